"""Ways to find the pairs of near points, timed side by side on the same points."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.spatial import pairs_within

Points = NDArray[np.float64]
#: Rows that are compared with all points at once.
_ROWS = 16


def brute_force(points: Points, distance: float, rows: int | None = None) -> int:
    """Compare each of the first `rows` points with all after it, and count the near pairs."""
    found, last = 0, len(points) if rows is None else rows
    for start in range(0, last, _ROWS):
        block, rest = points[start : min(start + _ROWS, last)], points[start:]
        across = block[:, :1] - rest[:, 0]
        down = block[:, 1:] - rest[:, 1]
        near = across * across + down * down <= distance * distance
        found += int(np.triu(near, 1).sum())
    return found


def strtree_dwithin(points: Points, distance: float) -> int:
    """Ask shapely's STRtree which points are within a distance."""
    shapely = need("shapely", extra="rasters")
    shapes = shapely.points(points)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=distance)
    return int((first < second).sum())


def strtree_box(points: Points, distance: float) -> int:
    """Ask shapely's STRtree for the points in the box around each, and measure those."""
    shapely = need("shapely", extra="rasters")
    boxes = shapely.box(*(points - distance).T, *(points + distance).T)
    first, second = shapely.STRtree(shapely.points(points)).query(boxes)
    first, second = first[first < second], second[first < second]
    apart = points[first] - points[second]
    return int(((apart**2).sum(axis=1) <= distance**2).sum())


def kdtree(points: Points, distance: float) -> int:
    """Ask scipy's k-d tree for the pairs, without their distances."""
    tree = need("scipy.spatial", extra="rasters").cKDTree(points)
    return len(tree.query_pairs(distance, output_type="ndarray"))


def ours(points: Points, distance: float) -> int:
    """Pairs with their distances, by :func:`workbench.rasters.pairs_within`."""
    return len(pairs_within(points, distance))


WAYS: dict[str, Callable[[Points, float], int]] = {
    "STRtree, dwithin": strtree_dwithin,
    "STRtree, box then distance": strtree_box,
    "k-d tree, query_pairs": kdtree,
    "pairs_within": ours,
}


def compare_pairs(
    counts: Sequence[int],
    distance: float = 50.0,
    side: float = 5000.0,
    *,
    most_brute: int = 10_000,
    repeat: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Seconds that each way takes for points drawn evenly in a square.

    Parameters
    ----------
    counts
        How many points, one after the other.
    distance, side
        What counts as near, and the side of the square.
    most_brute
        With more points, brute force compares only so many of them with all after them, and its
        time is multiplied up to all pairs.
    repeat
        The shortest of so many runs counts; brute force runs once.
    seed
        Fixes the points.

    Returns
    -------
    pandas.DataFrame
        ``way``, ``points``, ``seconds``, ``pairs`` (-1 where extrapolated), ``extrapolated``.

    Examples
    --------
    >>> compare_pairs([100], distance=500.0)["pairs"].nunique()
    1
    """
    rows = []
    for n in counts:
        points = np.random.default_rng(seed).uniform(0, side, (n, 2))
        compared = min(n, most_brute)
        taken, found = _timed(brute_force, points, distance, compared)
        # pairs compared, of all pairs
        share = (compared * n - compared * (compared + 1) / 2) / (n * (n - 1) / 2)
        partly = compared < n
        rows.append(("brute force", n, taken / share, -1 if partly else found, partly))
        for way, find in WAYS.items():
            taken, found = min(_timed(find, points, distance) for _ in range(repeat))
            rows.append((way, n, taken, found, False))
    return pd.DataFrame(rows, columns=["way", "points", "seconds", "pairs", "extrapolated"])


def _timed(find: Callable[..., int], *arguments: object) -> tuple[float, int]:
    started = time.perf_counter()
    found = find(*arguments)
    return time.perf_counter() - started, found
