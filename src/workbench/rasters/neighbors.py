"""Which points lie near one another, without comparing all with all."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.utils import parse_bytes
from numpy.typing import ArrayLike, NDArray

from workbench._extras import need

#: Two positions and a distance.
_PAIR_BYTES = 24
#: What a part is counted with: the search's own list, which grows by doubling, its copy as an
#: array and the result. Pairs within a strip count twice, so that parts measure below `memory`.
_WORKING_BYTES = 80
_SAMPLED = 1000


def pairs_within(points: ArrayLike, distance: float, *, memory: int | str = "1GiB") -> pd.DataFrame:
    """All pairs of points that are at most `distance` apart.

    A k-d tree (scipy) finds them. Of 100,000 points in a square of 5,000 it found those within 50
    of one another at least 4 times as fast as shapely's STRtree asked for boxes, 16 times as fast
    as it asked for distances, and 400 times as fast as comparing all with all: the R-tree wraps
    each point in a geometry. Time and memory grow with the number of pairs that are found, never
    with the square of the points.

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
    at, reach = _checked(points), _checked_distance(distance)
    tree = _tree(at)
    expected = _expected_pairs(tree, at, reach)
    if expected * _PAIR_BYTES > parse_bytes(memory):
        raise ValueError(
            f"about {expected:,.0f} pairs are within {distance} and would take "
            f"{expected * _PAIR_BYTES / 2**30:.1f} GiB, more than memory={memory!r}: give more, "
            "take a smaller distance, or go through rasters.pair_blocks(...) part by part"
        )
    found = tree.query_pairs(reach, output_type="ndarray")
    return _measured(at, found[:, 0], found[:, 1])


def pair_blocks(
    points: ArrayLike, distance: float, *, memory: int | str = "256MiB"
) -> Iterator[pd.DataFrame]:
    """The same pairs as :func:`pairs_within`, part by part, for results that do not fit.

    The points are cut into strips along x such that the pairs of one strip, with itself and with
    what follows it, fit into `memory`. Each pair comes once.

    Parameters
    ----------
    points, distance
        As in :func:`pairs_within`.
    memory
        What the search of one part takes at most, unless a single point's neighbours take more.

    Yields
    ------
    pandas.DataFrame
        ``first``, ``second``, ``distance``, as in :func:`pairs_within`.

    Raises
    ------
    ValueError
        As :func:`pairs_within`, but for the size of the result.

    Examples
    --------
    >>> parts = pair_blocks([[0, 0], [30, 40], [300, 400]], distance=50)
    >>> sum(len(part) for part in parts)
    1
    """
    at, reach = _checked(points), _checked_distance(distance)
    order = np.argsort(at[:, 0], kind="stable")
    at = at[order]
    counts = _tree(at).query_ball_point(at, reach, return_length=True, workers=-1) - 1
    part = np.cumsum(counts) // max(1, parse_bytes(memory) // _WORKING_BYTES)
    cuts = [0, *(np.flatnonzero(np.diff(part)) + 1), len(at)]
    return (_strip(at, order, start, end, reach) for start, end in pairwise(cuts))


def _strip(
    at: NDArray[np.float64], order: NDArray[np.intp], start: int, end: int, reach: float
) -> pd.DataFrame:
    """The pairs whose left point is one of `start` to `end` in the order of x."""
    own = _tree(at[start:end])
    first, second = own.query_pairs(reach, output_type="ndarray").T
    # A little further than the reach, for the rounding of the sum; the tree decides.
    beyond = np.searchsorted(at[:, 0], np.nextafter(at[end - 1, 0] + reach, np.inf), "right")
    if beyond > end:
        across = own.sparse_distance_matrix(_tree(at[end:beyond]), reach, output_type="ndarray")
        first = np.concatenate([first, across["i"]])
        second = np.concatenate([second, across["j"] + (end - start)])
    table = _measured(at[start:beyond], first, second)
    one, other = order[start:beyond][first], order[start:beyond][second]
    return table.assign(first=np.minimum(one, other), second=np.maximum(one, other))


def nearest(points: ArrayLike, k: int = 1, *, among: ArrayLike | None = None) -> xr.Dataset:
    """The `k` nearest points of every point.

    Parameters
    ----------
    points
        (point, 2): x and y of each, in pixels or any other unit of length.
    k
        How many.
    among
        (other, 2): where to look; by default `points`, each without itself.

    Returns
    -------
    xarray.Dataset
        ``index`` int64 (positions in `among`) and ``distance`` float64, both (point, neighbor),
        nearest first. Which of several equally near points comes is not defined.

    Raises
    ------
    ValueError
        No points, points that are not (point, 2), NaN or infinity, or too few for `k`.

    Examples
    --------
    >>> nearest([[0, 0], [3, 4], [9, 4]], k=1).distance.values.ravel().tolist()
    [5.0, 5.0, 6.0]
    """
    at = _checked(points)
    there = at if among is None else _checked(among)
    own = int(among is None)
    if not 1 <= k <= len(there) - own:
        raise ValueError(
            f"k={k} nearest of {len(there)} points: k must lie between 1 and {len(there) - own}"
        )
    distance, index = _tree(there).query(at, k=np.arange(1, k + 1 + own), workers=-1)
    if own:
        distance, index = _without_self(distance, index)
    dims = ("point", "neighbor")
    return xr.Dataset({"index": (dims, index.astype(np.int64)), "distance": (dims, distance)})


def _without_self(
    distance: NDArray[np.float64], index: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Drop each point from its own row; where many lie on one spot it may not be there."""
    itself = index == np.arange(len(index))[:, None]
    itself[~itself.any(axis=1), -1] = True
    shape = (len(index), index.shape[1] - 1)
    return distance[~itself].reshape(shape), index[~itself].reshape(shape)


def _measured(
    at: NDArray[np.float64], first: NDArray[np.intp], second: NDArray[np.intp]
) -> pd.DataFrame:
    """Pairs of rows of `at` with their distances."""
    squared = np.zeros(len(first))
    for axis in (0, 1):
        # one axis at a time, so that gathering reads half the memory at once
        value = np.ascontiguousarray(at[:, axis])
        difference = value[first] - value[second]
        squared += np.square(difference, out=difference)
    columns = {"first": first, "second": second, "distance": np.sqrt(squared, out=squared)}
    return pd.DataFrame(columns, copy=False)


def _tree(at: NDArray[np.float64]) -> Any:
    # Splitting at the middle instead of the median builds and searches faster on such points.
    return need("scipy.spatial", extra="rasters").cKDTree(
        at, balanced_tree=False, compact_nodes=False
    )


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


def _checked_distance(distance: float) -> float:
    if not 0 <= distance < np.inf:
        raise ValueError(f"distance={distance} must be a number of 0 or more")
    return float(distance)
