"""Which points lie near one another, without comparing all with all."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from workbench._units import parse_size, show_size

#: Two positions and a distance.
_PAIR_BYTES = 24
_SAMPLED = 1000


def pairs_within(points: ArrayLike, distance: float, *, memory: int | str = "1GiB") -> pd.DataFrame:
    """All pairs of points that are at most `distance` apart.

    A k-d tree (scipy) finds them. Time and memory grow with the number of pairs that are found,
    never with the square of the points.

    Parameters
    ----------
    points
        (point, 2): x and y of each, in pixels or any other unit of length; not degrees.
    distance
        In the same unit, included.
    memory
        The largest result, a number of bytes or a text such as ``"1GiB"``. A pair takes 24, and
        while they are looked for up to twice as much again.

    Returns
    -------
    pandas.DataFrame
        One row a pair: ``first`` and ``second`` int64, positions in `points` with
        ``first < second``, and ``distance`` float64. The order of the rows has no meaning, and is
        the same for the same points.

    Raises
    ------
    ValueError
        No points, points that are not (point, 2), NaN or infinity, a negative distance, or more
        pairs than fit into `memory`: estimated before they are looked for.

    Examples
    --------
    >>> pairs_within([[0, 0], [30, 40], [300, 400]], distance=50)
       first  second  distance
    0      0       1      50.0
    """
    at = _checked(points)
    if not 0 <= distance < np.inf:
        raise ValueError(f"distance={distance} must be a number of 0 or more")
    # Splitting at the middle instead of the median builds and searches faster on such points.
    tree = cKDTree(at, balanced_tree=False, compact_nodes=False)
    expected = _expected_pairs(tree, at, distance)
    if expected * _PAIR_BYTES > parse_size(memory):
        raise ValueError(
            f"about {expected:,.0f} pairs are within {distance} and would take "
            f"{show_size(round(expected * _PAIR_BYTES))}, more than memory={memory!r}: give more, "
            "take a smaller distance, or ask scipy.spatial.cKDTree for a part of the points"
        )
    first, second = tree.query_pairs(distance, output_type="ndarray").T
    squared = np.zeros(len(first))
    for axis in (0, 1):
        # one axis at a time, so that gathering reads half the memory at once
        value = np.ascontiguousarray(at[:, axis])
        difference = value[first] - value[second]
        squared += np.square(difference, out=difference)
    columns = {"first": first, "second": second, "distance": np.sqrt(squared, out=squared)}
    return pd.DataFrame(columns, copy=False)


def _expected_pairs(tree: Any, at: NDArray[np.float64], reach: float) -> float:
    """How many pairs there are, from up to a thousand of the points."""
    sampled = at[np.linspace(0, len(at) - 1, min(_SAMPLED, len(at))).round().astype(int)]
    neighbors = tree.query_ball_point(sampled, reach, return_length=True).mean() - 1
    return float(neighbors * len(at) / 2)


def _checked(points: ArrayLike) -> NDArray[np.float64]:
    """The points as float64 (point, 2), or an error that says why they cannot be used."""
    at = np.asarray(points, dtype=np.float64)
    if at.size == 0:
        raise ValueError("there are no points")
    if at.ndim != 2 or at.shape[1] != 2:
        raise ValueError(f"points must be (point, 2), x and y of each; got {at.shape}")
    finite = np.isfinite(at).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{np.count_nonzero(~finite)} of {len(at)} points hold NaN or infinity, "
            f"the first at position {int(np.argmin(finite))}"
        )
    return at
