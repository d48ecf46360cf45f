"""What the neighbours of a sample say its label is."""

from collections.abc import Iterator

import numpy as np
import xarray as xr


def neighbor_votes(graph: xr.Dataset, labels: xr.DataArray) -> xr.Dataset:
    """What the neighbours of each sample say its label is.

    Neighbours without a label (-1) do not vote. A tie goes to the label whose members rank nearer.

    Parameters
    ----------
    graph
        ``index`` (sample, neighbor), as :func:`workbench.embeddings.neighbors` returns it.
    labels
        int (sample,), -1 for none.

    Returns
    -------
    xarray.Dataset
        ``vote`` int64, the most frequent label among the neighbours, -1 where none has one;
        ``agreement`` float32, the share of the voting neighbours that carry the sample's own
        label, NaN where nobody votes or the sample has no label.

    Raises
    ------
    ValueError
        `labels` belongs to another number of samples, or holds values below -1.
    """
    own = np.asarray(labels.values)
    index = graph["index"].values
    if own.shape != (len(index),):
        raise ValueError(f"{len(index)} samples in the graph, labels of shape {own.shape}")
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


def votes_of(own: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The majority label around each row of `index`; `own` are the labels of all samples."""
    classes = int(own.max(initial=0)) + 1
    return np.concatenate([_majority(own[index[part]], classes) for part in row_blocks(len(index))])


def row_blocks(n: int, step: int = 4096) -> Iterator[slice]:
    """Runs of rows: what is computed from a graph's rows then stays in the processor's cache."""
    return (slice(start, start + step) for start in range(0, max(n, 1), step))


def _majority(theirs: np.ndarray, n_classes: int) -> np.ndarray:
    """The most frequent non-negative value of each row, -1 where there is none."""
    rows, k = theirs.shape
    # A nearer vote weighs a little more: too little to outvote anyone, enough to break a tie.
    nearer = 1 - (np.arange(k) + 1) / (k + 1) ** 2
    # One bin a row and class, and one before the row's classes for neighbours without a label.
    bins = theirs + (np.arange(rows) * (n_classes + 1) + 1)[:, None]
    weights = np.broadcast_to(nearer, theirs.shape).ravel()
    counts = np.bincount(bins.ravel(), weights, rows * (n_classes + 1))
    counts = counts.reshape(rows, n_classes + 1)[:, 1:]
    vote: np.ndarray = counts.argmax(axis=1).astype(np.int64)
    vote[counts[np.arange(rows), vote] == 0] = -1
    return vote


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
        int (sample,), -1 for none.

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
    labelled = labels.values >= 0
    if not labelled.any():
        return float("nan")
    vote = neighbor_votes(graph, labels)["vote"].values
    return float((vote == labels.values)[labelled].mean())
