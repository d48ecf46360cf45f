"""What the neighbour graph says of labels: votes, outliers, mixing of classes, near-duplicates."""

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench._samples import same_samples
from workbench.embeddings.distances import row_blocks
from workbench.embeddings.neighbors import checked_index

#: From so many neighbours on, the farther ones tell what distances chance gives.
_LEAST_NEIGHBORS = 4


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
        A distance, itself included. By default that of the largest number of neighbours within
        it less a hundred times the number expected by chance: a power law of the distance (Levina
        and Bickel 2004), fitted to the farther half of each sample's neighbours, which may not be
        copies too. Of fewer than four neighbours it is a quarter of the median distance to the
        nearest.

    Returns
    -------
    xarray.DataArray
        int64 (sample,): the number of the group, counted from 0 in the order of their first
        members; -1 for samples that have no near-duplicate. ``attrs`` holds ``threshold``.

    Examples
    --------
    >>> points = xr.DataArray([[0.0], [5.0], [0.1], [9.0]], dims=("sample", "feature"))
    >>> from workbench.embeddings import neighbors
    >>> duplicates(neighbors(points, k=1), threshold=0.2).values
    array([ 0, -1,  0, -1])
    """
    sparse = need("scipy.sparse", extra="embeddings")
    csgraph = need("scipy.sparse.csgraph", extra="embeddings")
    index, distance = checked_index(neighbors["index"].values), neighbors["distance"].values
    if threshold is None:
        threshold = _beyond_chance(distance)
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


def _beyond_chance(distance: np.ndarray) -> float:
    """The distance up to which neighbours are a hundred times as many as by chance."""
    k = distance.shape[1]
    if k < _LEAST_NEIGHBORS:
        return float(np.median(distance[:, 0])) / 4
    half, last = distance[:, k // 2 - 1].astype(np.float64), distance[:, -1].astype(np.float64)
    spread = half > 0
    if not spread.any():
        return 0.0
    # Of k neighbours spread evenly in a dimensions, the j-th and the last are on average
    # (1/j + ... + 1/(k-1)) / a apart in the logarithm of their distance.
    apart = float(np.median(np.log(last[spread] / half[spread])))
    a = (1 / np.arange(k // 2, k)).sum() / max(apart, 0.01)
    # Neighbours that are all very near are copies: they say nothing of chance.
    middle = np.median(last[spread])
    reach = np.sort((last[spread] / middle).clip(min=0.25))
    # Farther away chance alone is more than a hundredth of all neighbours.
    near = np.sort(distance[distance <= middle * 50 ** (-1 / a)])
    found = near / middle
    full = np.searchsorted(reach, found, side="right")
    powers = np.append(np.cumsum(reach[::-1] ** -a)[::-1], 0)
    gain = np.arange(1, len(found) + 1) - 100 * k * (full + found**a * powers[full])
    return float(near[gain.argmax()]) if gain.max(initial=0) > 0 else 0.0


def mixing(neighbors: xr.Dataset, labels: xr.DataArray) -> xr.DataArray:
    """How often the neighbours of one class carry the label of another.

    Parameters
    ----------
    neighbors
        ``index`` (sample, neighbor).
    labels
        int (sample,), -1 for none; put into the order of the graph by their ids.

    Returns
    -------
    xarray.DataArray
        float64 (label, neighbor_label): of the neighbours of the samples of a class, the share
        that carry each label; every row adds up to 1. Samples without a label are a class of
        their own, -1.

    Raises
    ------
    ValueError
        `labels` belongs to other samples.

    Examples
    --------
    >>> graph = xr.Dataset({"index": (("sample", "neighbor"), [[1], [0], [1]])})
    >>> mixing(graph, xr.DataArray([7, 7, 3], dims="sample")).sel(label=3).values
    array([0., 1.])
    """
    index = checked_index(neighbors["index"].values)
    labels = _labels_of(neighbors, labels)
    numbers, own = np.unique(labels.values, return_inverse=True)
    counts = np.zeros((len(numbers), len(numbers)))
    np.add.at(counts, (np.repeat(own, index.shape[1]), own[index].ravel()), 1)
    return xr.DataArray(
        counts / counts.sum(axis=1, keepdims=True),
        coords={"label": numbers, "neighbor_label": numbers},
        dims=("label", "neighbor_label"),
        name="mixing",
    )


def neighbor_votes(graph: xr.Dataset, labels: xr.DataArray) -> xr.Dataset:
    """What the neighbours of each sample say its label is.

    Neighbours without a label (-1) do not vote. A tie goes to the label whose members rank nearer.

    Parameters
    ----------
    graph
        ``index`` (sample, neighbor), as :func:`workbench.embeddings.neighbors` returns it.
    labels
        int (sample,), -1 for none; put into the order of the graph by their ids.

    Returns
    -------
    xarray.Dataset
        ``vote`` int64, the most frequent label among the neighbours, -1 where none has one;
        ``agreement`` float32, the share of the voting neighbours that carry the sample's own
        label, NaN where nobody votes or the sample has no label.

    Raises
    ------
    ValueError
        `labels` belongs to other samples, or holds values below -1.
    """
    labels = _labels_of(graph, labels)
    own = np.asarray(labels.values)
    index = checked_index(graph["index"].values)
    if own.size and own.min() < -1:
        raise ValueError(f"labels must be class numbers or -1 for none, found {own.min()}")
    theirs = own[index]
    voting = theirs >= 0
    vote = votes_of(own, index)
    with np.errstate(invalid="ignore"):
        agreement = ((theirs == own[:, None]) & voting).sum(axis=1) / voting.sum(axis=1)
    agreement[own < 0] = np.nan
    return xr.Dataset(
        {"vote": ("sample", vote), "agreement": ("sample", agreement.astype(np.float32))},
        coords=labels.coords,
    )


def _labels_of(graph: xr.Dataset, labels: xr.DataArray) -> xr.DataArray:
    """The labels in the order of the graph's samples."""
    if labels.ndim != 1:
        raise ValueError(f"labels must have the shape (sample,), not {labels.shape}")
    return same_samples(labels, graph["index"], ("the labels", "the graph"))


def votes_of(own: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The majority label around each row of `index`; `own` are the labels of all samples."""
    # A block compares every neighbour with every other: memory does not grow with the classes.
    step = max(1, 2**20 // index.shape[1] ** 2)
    blocks = row_blocks(np.arange(len(index)), step)
    return np.concatenate([_majority(own[index[part]]) for part in blocks])


def _majority(theirs: np.ndarray) -> np.ndarray:
    """The most frequent non-negative value of each row, -1 where there is none."""
    k = theirs.shape[1]
    # A nearer vote weighs a little more: too little to outvote anyone, enough to break a tie.
    nearer = (k + 1) ** 2 - np.arange(1, k + 1, dtype=np.float64)
    votes = (theirs[:, :, None] == theirs[:, None, :]) @ nearer
    votes[theirs < 0] = 0
    most = votes == votes.max(axis=1, keepdims=True)
    # Should even the ranks add up alike, the lowest class number has it.
    vote: np.ndarray = np.where(most & (theirs >= 0), theirs, np.iinfo(np.int64).max).min(axis=1)
    return np.where(votes.any(axis=1), vote, -1)


def label_accuracy(graph: xr.Dataset, labels: xr.DataArray) -> float:
    """Share of the labelled samples whose neighbours' majority carries their label.

    This is the leave-one-out accuracy of a k-nearest-neighbours classifier. On the graph of a
    map it tells how well the classes keep apart there, on the graph of the features how well
    they do in the original space.

    Parameters
    ----------
    graph
        ``index`` (sample, neighbor).
    labels
        int (sample,), -1 for none; put into the order of the graph by their ids.

    Returns
    -------
    float
        Between 0 and 1; NaN if no sample has a label.

    Examples
    --------
    >>> graph = xr.Dataset({"index": (("sample", "neighbor"), [[1], [0], [1]])})
    >>> label_accuracy(graph, xr.DataArray([7, 7, 3], dims="sample"))
    0.6666666666666666
    """
    labels = _labels_of(graph, labels)
    labelled = labels.values >= 0
    if not labelled.any():
        return float("nan")
    vote = neighbor_votes(graph, labels)["vote"].values
    return float((vote == labels.values)[labelled].mean())


def outliers(neighbors: xr.Dataset, labels: xr.DataArray | None = None) -> xr.Dataset:
    """Measure how lonely every sample is and, given labels, which are outliers among the labels.

    Parameters
    ----------
    neighbors
        A graph over the features, or over a map: what is an outlier depends on the space.
    labels
        int (sample,), -1 for none; put into the order of the graph by their ids.

    Returns
    -------
    xarray.Dataset
        ``isolation`` float32 (sample,): the sample's mean distance to its neighbours, divided
        by the median of that mean over the same neighbours. About 1 inside a cluster, whatever
        its density; the larger, the lonelier. A ratio in the spirit of the local outlier factor
        (Breunig et al. 2000), without its reachability smoothing. Where duplicates make both
        zero it is 1.
        With labels also ``vote`` int64 and ``agreement`` float32 (see
        :func:`workbench.embeddings.graph.neighbor_votes`) and ``outlier`` bool: no neighbour
        carries the sample's label, and at least half carry one and the same other.

    Examples
    --------
    >>> graph = xr.Dataset({
    ...     "index": (("sample", "neighbor"), [[1], [0], [1]]),
    ...     "distance": (("sample", "neighbor"), [[1.0], [1.0], [9.0]])})
    >>> outliers(graph).isolation.values
    array([1., 1., 9.], dtype=float32)
    """
    index = checked_index(neighbors["index"].values)
    mean = neighbors["distance"].values.mean(axis=1, dtype=np.float64)
    around = np.concatenate(
        [_medians(mean[index[part]]) for part in row_blocks(np.arange(len(index)), 4096)]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        isolation = np.where(mean == around, 1.0, mean / around)
    result = xr.Dataset(
        {"isolation": ("sample", isolation.astype(np.float32))}, coords=neighbors.coords
    )
    if labels is None:
        return result
    labels = _labels_of(neighbors, labels)
    votes = neighbor_votes(neighbors, labels)
    theirs = labels.values[index]
    united = (theirs == votes["vote"].values[:, None]).mean(axis=1) >= 0.5
    outlier = (votes["agreement"].values == 0) & united
    return result.assign(
        vote=("sample", votes["vote"].values),
        agreement=("sample", votes["agreement"].values),
        outlier=("sample", outlier),
    )


def _medians(values: np.ndarray) -> np.ndarray:
    """Of each row; for short rows six times faster than np.median."""
    ordered, k = np.sort(values, axis=1), values.shape[1]
    medians: np.ndarray = (ordered[:, (k - 1) // 2] + ordered[:, k // 2]) / 2
    return medians
