"""Random pairs of samples and the distances of given ones."""

import numpy as np

from workbench.embeddings.search import directions

MOST_PAIRS = 500_000
DRAWN_PAIRS = 200_000


def random_pairs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of `n` samples if there are at most 500,000, otherwise 200,000 drawn with `seed`.

    A pair is never a sample with itself; drawn pairs can repeat, once in thousands.
    """
    if n * (n - 1) // 2 <= MOST_PAIRS:
        return np.triu_indices(n, 1)
    dice = np.random.default_rng(seed)
    one = dice.integers(0, n, DRAWN_PAIRS)
    return one, (one + dice.integers(1, n, DRAWN_PAIRS)) % n


def pair_distances(
    values: np.ndarray, one: np.ndarray, other: np.ndarray, metric: str = "euclidean"
) -> np.ndarray:
    """float64 (pair,): distances between rows `one` and rows `other`, a block at a time."""
    values = directions(values, metric)
    distance = np.empty(len(one))
    step = max(1, 2**18 // values.shape[1])  # what fits into the processor's cache
    for start in range(0, len(one), step):
        block = slice(start, start + step)
        difference = (values[one[block]] - values[other[block]]).astype(np.float64)
        distance[block] = np.einsum("ij,ij->i", difference, difference)
    return distance / 2 if metric == "cosine" else np.sqrt(distance)
