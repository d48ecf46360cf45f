"""How far a map can be trusted."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench._extras import need
from workbench._samples import same_samples
from workbench.embeddings.neighbors import checked
from workbench.embeddings.neighbors import neighbors as find_neighbors
from workbench.embeddings.pairs import pair_distances, random_pairs
from workbench.embeddings.ranks import row_scores
from workbench.embeddings.search import exact_rows
from workbench.embeddings.votes import votes_of

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
    values, points = checked(features, metric), checked(xy)
    for other, what in ((xy, "the points"), (neighbors, "the neighbours"), (labels, "labels")):
        if other is not None:
            same_samples(other, features, (what, "the features"))
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
    far = pair_distances(values, one, other, metric)
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
