"""How the order of distances changes from one space to another, a block of rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workbench.embeddings.search import directions


@dataclass(frozen=True)
class RowScores:
    """What each of the rows looked at contributes; float64 (row,).

    Attributes
    ----------
    intruders
        Sum over the `k` nearest on the map of how far they lie beyond rank `k` in the original
        space; trustworthiness counts them.
    losses
        The same the other way round; continuity counts them.
    kept
        Share of the `k` nearest in the original space that are among the `k` nearest on the map.
    """

    intruders: np.ndarray
    losses: np.ndarray
    kept: np.ndarray


def row_scores(
    values: np.ndarray, points: np.ndarray, rows: np.ndarray, k: int, metric: str
) -> RowScores:
    """Compare the neighbourhoods of some `rows` in both spaces with all samples as candidates.

    Memory is that of a block of rows times all samples; time grows with ``rows * samples *
    features``.
    """
    original = _Distances(directions(values, metric))
    flat = _Distances(points)
    parts = []
    for block in _blocks(rows, len(values)):
        far, flat_far = original.from_rows(block), flat.from_rows(block)
        near, flat_near = _nearest(far, k), _nearest(flat_far, k)
        intruders = np.maximum(_ranks(far, flat_near) - k, 0).sum(axis=1)
        losses = np.maximum(_ranks(flat_far, near) - k, 0).sum(axis=1)
        kept = (near[:, :, None] == flat_near[:, None, :]).any(axis=2).mean(axis=1)
        parts.append((intruders, losses, kept))
    return RowScores(
        *(np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
    )


class _Distances:
    """Squared Euclidean distances of rows to all others, as one matrix product.

    In float64 where that is quick, so that the order is exact; in float32 beyond, where rounding
    can swap two neighbours whose distances agree to six digits.
    """

    def __init__(self, values: np.ndarray) -> None:
        dtype = np.float64 if values.size <= 2**24 else np.float32
        center = values.mean(axis=0, dtype=np.float64).astype(values.dtype)
        self.values = (values - center).astype(dtype, copy=False)
        self.squares = np.einsum("ij,ij->i", self.values, self.values)

    def from_rows(self, rows: np.ndarray) -> np.ndarray:
        """(row, sample); a row's distance to itself is -1, so it comes first and alone."""
        squared: np.ndarray = self.values[rows] @ self.values.T
        squared *= -2
        squared += self.squares
        squared += self.squares[rows, None]
        np.maximum(squared, 0, out=squared)
        squared[np.arange(len(rows)), rows] = -1
        return squared


def _nearest(squared: np.ndarray, k: int) -> np.ndarray:
    """The `k` nearest others of each row, in no order."""
    inner = np.argpartition(squared, k, axis=1)[:, : k + 1]
    # The row itself is among them; put it last and cut it off.
    own = np.take_along_axis(squared, inner, axis=1) < 0
    order = np.argsort(own, axis=1, kind="stable")
    return np.take_along_axis(inner, order, axis=1)[:, :k]


def _ranks(squared: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The rank of the chosen columns in each row: 1 for the nearest, equals share the best."""
    wanted = np.take_along_axis(squared, chosen, axis=1)
    squared.sort(axis=1)
    # The row itself sorts first, which makes the number of nearer ones the rank.
    return np.stack([np.searchsorted(row, one) for row, one in zip(squared, wanted, strict=True)])


def _blocks(rows: np.ndarray, n: int) -> Iterator[np.ndarray]:
    """Rows whose distances to all samples take some 64 MB."""
    step = max(1, 2**23 // n)
    return (rows[start : start + step] for start in range(0, len(rows), step))
