"""Different samples on one spot of a map, and samples that are nearly the same."""

import warnings

import numpy as np
import pandas as pd
import xarray as xr

from workbench._extras import need
from workbench._samples import same_samples
from workbench.embeddings.neighbors import Metric, checked
from workbench.embeddings.neighbors import neighbors as find_neighbors
from workbench.embeddings.pairs import pair_distances, random_pairs


def collisions(
    features: xr.DataArray,
    xy: xr.DataArray,
    n: int = 20,
    *,
    far: float = 50.0,
    metric: Metric = "euclidean",
    seed: int = 0,
) -> pd.DataFrame:
    """Pairs that the map puts on nearly the same spot though they differ.

    Candidates are each sample's ten nearest on the map. Those whose distance in the original
    space reaches the `far` percentile of random pairs remain, nearest on the map first; each
    sample appears once, so that one misplaced sample does not fill the table.

    Parameters
    ----------
    features
        float (sample, feature).
    xy
        float (sample, axis): the map of the same samples.
    n
        How many pairs at most; where the map has fewer, a warning tells how far its neighbours
        are apart.
    far
        The percentile, from 0 to 100, above which two samples count as different. At 0 all but
        exact duplicates do.
    metric
        Of the original space.
    seed
        Fixes the random pairs from which percentiles are estimated: 200,000, or all pairs where
        there are at most 500,000. The standard error is then 0.11 points at most.

    Returns
    -------
    pandas.DataFrame
        One row a pair: ``first`` and ``second`` (positions along ``sample``), ``first_id`` and
        ``second_id`` (the coordinate, where there is one), ``map_distance``, ``distance`` (in the
        original space) and ``percentile`` (share of random pairs that are nearer, in percent).

    Raises
    ------
    ValueError
        `xy` belongs to other samples, `far` is no percentage, or rows hold NaN.

    Examples
    --------
    >>> features = xr.DataArray([[0.0], [9.0], [1.0], [2.0]], dims=("sample", "feature"))
    >>> xy = xr.DataArray([[0.0], [0.1], [5.0], [7.0]], dims=("sample", "axis"))
    >>> collisions(features, xy, n=1)[["first", "second", "distance"]].values.tolist()
    [[0.0, 1.0, 9.0]]
    """
    values, points = checked(features, metric), checked(xy)
    same_samples(xy, features, ("the points", "the features"))
    if not 0 <= far <= 100:
        raise ValueError(f"far={far} must be a percentile, from 0 to 100")
    pairs = _near_pairs(xy)
    distance = pair_distances(values, *pairs, metric)
    drawn = np.sort(pair_distances(values, *random_pairs(len(values), seed), metric))
    percentile = 100 * np.searchsorted(drawn, distance) / len(drawn)
    table = pd.DataFrame(
        {
            "first": pairs[0],
            "second": pairs[1],
            "map_distance": pair_distances(points, *pairs),
            "distance": distance,
            "percentile": percentile,
        }
    )
    table = table[distance > 0]
    most = table["percentile"].max()
    table = table[table["percentile"] >= far]
    table = table.sort_values(["map_distance", "percentile"], ascending=[True, False])
    table = _each_once(table, n)
    if len(table) < n and far > 0 and np.isfinite(most):
        warnings.warn(
            f"{len(table)} of {n} pairs: no others that are near on this map reach far={far:g} by "
            f"their features; the farthest are at percentile {most:.0f}. A lower far finds more",
            stacklevel=2,
        )
    if "sample" in features.coords:
        ids = features["sample"].values
        table.insert(2, "first_id", ids[table["first"]])
        table.insert(3, "second_id", ids[table["second"]])
    return table


def _near_pairs(xy: xr.DataArray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of near samples once, the lower position first."""
    near = find_neighbors(xy, k=min(k, xy.sizes["sample"] - 1))["index"].values
    own = np.repeat(np.arange(len(near)), near.shape[1])
    pairs = np.unique(np.sort(np.column_stack([own, near.ravel()]), axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _each_once(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first `n` rows in which neither sample has appeared before."""
    seen: set[int] = set()
    kept: list[int] = []
    for row, (first, second) in enumerate(
        zip(table["first"].tolist(), table["second"].tolist(), strict=True)
    ):
        if len(kept) == n:
            break
        if first not in seen and second not in seen:
            seen |= {first, second}
            kept.append(row)
    return table.iloc[kept].reset_index(drop=True)


def duplicates(neighbors: xr.Dataset, threshold: float | None = None) -> xr.DataArray:
    """Groups of samples that are nearly the same.

    Samples nearer than `threshold` to one another belong together, and so do those that they
    are near to in turn. Among more duplicates than the graph has neighbours, a group can fall
    into several.

    Parameters
    ----------
    neighbors
        A graph over the features.
    threshold
        A distance, itself included. By default a quarter of the median distance to the nearest
        neighbour, and so 0 (exact duplicates) where most samples have one.

    Returns
    -------
    xarray.DataArray
        int64 (sample,): the number of the group, counted from 0 in the order of their first
        members; -1 for samples that have no near-duplicate. ``attrs`` holds ``threshold``.

    Examples
    --------
    >>> points = xr.DataArray([[0.0], [5.0], [0.1], [9.0]], dims=("sample", "feature"))
    >>> duplicates(find_neighbors(points, k=1), threshold=0.2).values
    array([ 0, -1,  0, -1])
    """
    sparse = need("scipy.sparse", extra="embeddings")
    csgraph = need("scipy.sparse.csgraph", extra="embeddings")
    index, distance = neighbors["index"].values, neighbors["distance"].values
    if threshold is None:
        threshold = float(np.median(distance[:, 0])) / 4
    if not threshold >= 0:
        raise ValueError(f"threshold={threshold} must be a distance, 0 or more")
    rows, columns = np.nonzero(distance <= threshold)
    n = len(index)
    near = sparse.coo_matrix((np.ones(len(rows)), (rows, index[rows, columns])), shape=(n, n))
    _, part = csgraph.connected_components(near, directed=False)
    grouped = np.bincount(part)[part] > 1
    # Components are counted in the order of their first members, and so are those that remain.
    group = np.full(n, -1, dtype=np.int64)
    group[grouped] = np.unique(part[grouped], return_inverse=True)[1]
    return xr.DataArray(
        group,
        dims="sample",
        coords=neighbors["index"].coords if "sample" in neighbors.coords else {},
        name="duplicates",
        attrs={"threshold": threshold},
    )
