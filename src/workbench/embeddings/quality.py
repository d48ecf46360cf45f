"""How far a map can be trusted: trustworthiness, neighbour recall, triplets, collisions."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench._extras import need
from workbench._samples import same_samples
from workbench.embeddings.distances import COMPARED, distances, pair_distances, row_blocks
from workbench.embeddings.graph import votes_of
from workbench.embeddings.neighbors import Metric, checked, directions, exact_rows
from workbench.embeddings.neighbors import neighbors as find_neighbors

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


@dataclass(frozen=True)
class RowScores:
    """What each of the rows looked at contributes; float64 (row,).

    `intruders` are sums over the `k` nearest on the map of how far they lie beyond rank `k` in the
    original space, `losses` the same the other way round, `kept` the share of the `k` nearest in
    the original space that are among those on the map.
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
    original = _Distances(directions(values, metric), metric)
    flat = _Distances(points)
    parts = []
    # Rows whose distances to all samples take some 64 MB.
    for block in row_blocks(rows, max(1, 2**23 // len(values))):
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
    """Distances of rows to all others: squared Euclidean ones as one matrix product.

    In float64 where that is quick, so that the order is exact; in float32 beyond, where rounding
    can swap two neighbours whose distances agree to six digits.
    """

    def __init__(self, values: np.ndarray, metric: str = "euclidean") -> None:
        self.metric = metric
        if metric in COMPARED:
            self.values = values
            return
        dtype = np.float64 if values.size <= 2**24 else np.float32
        center = values.mean(axis=0, dtype=np.float64).astype(values.dtype)
        self.values = (values - center).astype(dtype, copy=False)
        self.squares = np.einsum("ij,ij->i", self.values, self.values)

    def from_rows(self, rows: np.ndarray) -> np.ndarray:
        """(row, sample); a row's distance to itself is -1, so it comes first and alone."""
        if self.metric in COMPARED:
            squared = distances(self.values[rows], self.values, self.metric)
        else:
            squared = self.values[rows] @ self.values.T
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


SAMPLE = 2000
"""Rows looked at by default: the standard error of trustworthiness is then below 0.002."""


def quality(
    features: xr.DataArray,
    xy: xr.DataArray,
    neighbors: xr.Dataset | None = None,
    labels: xr.DataArray | None = None,
    *,
    k: int = 15,
    sample: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure what a map keeps of the original space.

    Parameters
    ----------
    features
        float (sample, feature).
    xy
        float (sample, axis): the map of the same samples.
    neighbors
        A graph of the features. It gives the metric, and the labels' accuracy in the original
        space for all samples; the neighbours that the other measures need are found exactly
        among all samples for the rows that are looked at.
    labels
        int (sample,), -1 for none; without them the accuracies are left out.
    k
        The size of a neighbourhood; less than half the number of samples.
    sample
        How many rows to look at; 2,000, or all if there are fewer. Each row is compared with all
        samples. Memory grows with the number of samples, never with its square.
    seed
        Fixes which rows and pairs are drawn.

    Returns
    -------
    pandas.DataFrame
        Indexed by measure, with ``value``, ``error`` (the standard error from drawing rows or
        pairs, 0 where all were counted) and ``n`` (how many rows or pairs were):

        ``trustworthiness``, ``continuity``: 1 minus the mean rank error of false and of lost
        neighbours (Venna and Kaski 2001; van der Maaten, Postma and van den Herik 2009, eq. 1
        and 3 of chapter 6). 1 is best, random maps have about 0.5.
        ``neighbor_recall``: share of the `k` nearest that are still among the `k` nearest.
        ``rank_correlation``: Spearman's correlation of distances over random pairs, a global
        measure; all pairs where there are fewer than 500,000. Its error is that of independent
        pairs (Bonett and Wright 2000). NaN if all distances are equal.
        ``label_accuracy``: of the `k` nearest on the map, over all labelled samples (see
        :func:`label_accuracy`), and ``label_accuracy_original``: the same in the original space,
        over the rows looked at if there is no graph of at least `k` neighbours.

    Raises
    ------
    ValueError
        `xy`, `neighbors` or `labels` belong to other samples, `k` does not fit, or rows hold NaN.

    Examples
    --------
    >>> line = xr.DataArray(np.arange(12.0).reshape(6, 2), dims=("sample", "feature"))
    >>> quality(line, line, k=2).value.round(3).to_dict()["trustworthiness"]
    1.0
    """
    metric = "euclidean" if neighbors is None else neighbors.attrs.get("metric", "euclidean")
    values = checked(features, metric)
    xy = same_samples(xy, features, ("the points", "the features"))
    points = checked(xy)
    if neighbors is not None:
        neighbors = same_samples(neighbors, features, ("the neighbours", "the features"))
    if labels is not None:
        labels = same_samples(labels, features, ("labels", "the features"))
    n = len(values)
    if not 1 <= k < n / 2:
        raise ValueError(f"k={k} must lie between 1 and {(n - 1) // 2} for {n} samples")
    if sample is not None and sample < 1:
        raise ValueError(f"sample={sample} must be 1 or more")
    rows = np.arange(n)
    if sample is None or sample < n:
        dice = np.random.default_rng(seed)
        rows = np.sort(dice.choice(n, min(SAMPLE if sample is None else sample, n), replace=False))
    measures = _neighborhoods(values, points, rows, k, metric)
    measures["rank_correlation"] = _rank_correlation(values, points, metric, seed)
    if labels is not None:
        near = find_neighbors(xy, k=k)
        measures["label_accuracy"] = _share_right(near, labels, np.arange(n))
        graph, looked_at = _original_graph(features, neighbors, rows, k, metric)
        measures["label_accuracy_original"] = _share_right(graph, labels, looked_at)
    return pd.DataFrame.from_dict(
        measures, orient="index", columns=["value", "error", "n"]
    ).rename_axis("measure")


Measure = tuple[float, float, int]


def _neighborhoods(
    values: np.ndarray, points: np.ndarray, rows: np.ndarray, k: int, metric: str
) -> dict[str, Measure]:
    n = len(values)
    scores = row_scores(values, points, rows, k, metric)
    worst = k * (2 * n - 3 * k - 1) / 2
    return {
        "trustworthiness": _mean(1 - scores.intruders / worst, n),
        "continuity": _mean(1 - scores.losses / worst, n),
        "neighbor_recall": _mean(scores.kept, n),
    }


def _mean(drawn: np.ndarray, n: int) -> Measure:
    """Mean, and its standard error for rows drawn without replacement from `n`."""
    m = len(drawn)
    error = 0.0 if m == n else float("nan")
    if 1 < m < n:
        error = float(drawn.std(ddof=1) * np.sqrt((1 - m / n) / m))
    return (float(drawn.mean()) if m else float("nan"), error, m)


def _rank_correlation(values: np.ndarray, points: np.ndarray, metric: str, seed: int) -> Measure:
    stats = need("scipy.stats", extra="embeddings")
    one, other = random_pairs(len(values), seed)
    far = pair_distances(directions(values, metric), one, other, metric)
    flat = pair_distances(points, one, other)
    m, n = len(one), len(values)
    if np.ptp(far) == 0 or np.ptp(flat) == 0:
        return float("nan"), float("nan"), m
    ranks = stats.rankdata(far), stats.rankdata(flat)
    rho = float(np.corrcoef(*ranks)[0, 1])
    everything = m == n * (n - 1) // 2
    error = 0.0 if everything else (1 - rho**2) * np.sqrt((1 + rho**2 / 2) / (m - 3))
    return rho, float(error), m


def _original_graph(
    features: xr.DataArray, graph: xr.Dataset | None, rows: np.ndarray, k: int, metric: Any
) -> tuple[xr.Dataset, np.ndarray]:
    """The `k` nearest in the original space and the rows for which they are known."""
    n = features.sizes["sample"]
    if graph is not None and graph.sizes["neighbor"] >= k:
        return graph.isel(neighbor=slice(k)), np.arange(n)
    if len(rows) == n:
        return find_neighbors(features, k=k, metric=metric, exact=True), rows
    index, _ = exact_rows(features.values, features.values[rows], k + 1, metric)
    others = index != rows[:, None]
    # Among more than k duplicates the row itself may not have been found: drop the last then.
    others[others.all(axis=1), -1] = False
    return xr.Dataset({"index": (("sample", "neighbor"), index[others].reshape(-1, k))}), rows


def _share_right(graph: xr.Dataset, labels: xr.DataArray, rows: np.ndarray) -> Measure:
    """Label accuracy over `rows`, whose neighbours the graph holds in the same order."""
    own = np.asarray(labels.values)
    vote = votes_of(own, graph["index"].values)
    right = (vote == own[rows])[own[rows] >= 0]
    return _mean(right.astype(np.float64), int((own >= 0).sum()))


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
    xy = same_samples(xy, features, ("the points", "the features"))
    values = checked(features, metric)
    points = checked(xy)
    if not 0 <= far <= 100:
        raise ValueError(f"far={far} must be a percentile, from 0 to 100")
    pairs = _near_pairs(xy)
    values = directions(values, metric)
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
