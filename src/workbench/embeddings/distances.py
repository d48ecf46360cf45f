"""Distances in float64 and by any metric, a block of rows at a time: slower than products."""

from collections.abc import Iterator

import numpy as np

from workbench._extras import need

#: Metrics that no matrix product gives: they are searched for by comparing all rows with all.
COMPARED = ("manhattan", "jaccard", "precomputed")


def row_blocks(rows: np.ndarray, step: int) -> Iterator[np.ndarray]:
    """The rows' numbers, `step` at a time."""
    return (rows[start : start + step] for start in range(0, len(rows), step))


def distances(rows: np.ndarray, others: np.ndarray, metric: str) -> np.ndarray:
    """float64 (row, other); under the cosine, of rows of length one."""
    if metric == "precomputed":
        return rows.astype(np.float64)
    spatial = need("scipy.spatial.distance", extra="embeddings")
    if metric == "jaccard":
        rows, others = rows.astype(bool), others.astype(bool)
    names = {"manhattan": "cityblock", "cosine": "sqeuclidean"}
    far: np.ndarray = spatial.cdist(rows, others, names.get(metric, metric))
    if metric == "cosine":
        far /= 2
    return far


def compared_rows(
    reference: np.ndarray, queries: np.ndarray, k: int, metric: str, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest rows of `reference` for each of `queries` but its `own`, nearest first."""
    found = []
    for rows in row_blocks(np.arange(len(queries)), max(1, 2**23 // len(reference))):
        far = distances(queries[rows], reference, metric)
        if own is not None:
            far[np.arange(len(rows)), own[rows]] = np.inf
        near = np.argpartition(far, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(near, np.take_along_axis(far, near, 1).argsort(kind="stable"), 1)
        found.append((near, np.take_along_axis(far, near, 1).astype(np.float32)))
    index, distance = zip(*found, strict=True)
    return np.vstack(index), np.vstack(distance)


def pair_distances(
    values: np.ndarray, one: np.ndarray, other: np.ndarray, metric: str = "euclidean"
) -> np.ndarray:
    """float64 (pair,): distances between rows `one` and rows `other`, a block at a time."""
    if metric == "precomputed":
        return np.asarray(values[one, other], dtype=np.float64)
    far = np.empty(len(one))
    # What fits into the processor's cache.
    for block in row_blocks(np.arange(len(one)), max(1, 2**18 // values.shape[1])):
        here, there = values[one[block]], values[other[block]]
        if metric == "jaccard":
            here, there = here != 0, there != 0
            either = np.maximum((here | there).sum(axis=1), 1)
            far[block] = (here != there).sum(axis=1) / either
            continue
        difference = (here - there).astype(np.float64)
        if metric == "manhattan":
            far[block] = np.abs(difference).sum(axis=1)
            continue
        squared = np.einsum("ij,ij->i", difference, difference)
        far[block] = squared / 2 if metric == "cosine" else np.sqrt(squared)
    return far
