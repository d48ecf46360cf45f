"""Samples that lie far from everything, or among samples of another class."""

import numpy as np
import xarray as xr

from workbench.embeddings.votes import neighbor_votes, row_blocks


def outliers(neighbors: xr.Dataset, labels: xr.DataArray | None = None) -> xr.Dataset:
    """Measure how lonely every sample is and, given labels, how much of a stranger.

    Parameters
    ----------
    neighbors
        A graph over the features, or over a map: what is an outlier depends on the space.
    labels
        int (sample,), -1 for none.

    Returns
    -------
    xarray.Dataset
        ``isolation`` float32 (sample,): the sample's mean distance to its neighbours, divided
        by the median of that mean over the same neighbours. About 1 inside a cluster, whatever
        its density; the larger, the lonelier. A ratio in the spirit of the local outlier factor
        (Breunig et al. 2000), without its reachability smoothing. Where duplicates make both
        zero it is 1.
        With labels also ``vote`` int64 and ``agreement`` float32 (see
        :func:`workbench.embeddings.votes.neighbor_votes`) and ``stranger`` bool: no neighbour
        carries the sample's label, and at least half carry one and the same other.

    Examples
    --------
    >>> graph = xr.Dataset({
    ...     "index": (("sample", "neighbor"), [[1], [0], [1]]),
    ...     "distance": (("sample", "neighbor"), [[1.0], [1.0], [9.0]])})
    >>> outliers(graph).isolation.values
    array([1., 1., 9.], dtype=float32)
    """
    index = neighbors["index"].values
    mean = neighbors["distance"].values.mean(axis=1, dtype=np.float64)
    around = np.concatenate([_medians(mean[index[part]]) for part in row_blocks(len(index))])
    with np.errstate(divide="ignore", invalid="ignore"):
        isolation = np.where(mean == around, 1.0, mean / around)
    result = xr.Dataset(
        {"isolation": ("sample", isolation.astype(np.float32))}, coords=neighbors.coords
    )
    if labels is None:
        return result
    votes = neighbor_votes(neighbors, labels)
    theirs = labels.values[index]
    united = (theirs == votes["vote"].values[:, None]).mean(axis=1) >= 0.5
    stranger = (votes["agreement"].values == 0) & united
    return result.assign(
        vote=("sample", votes["vote"].values),
        agreement=("sample", votes["agreement"].values),
        stranger=("sample", stranger),
    )


def _medians(values: np.ndarray) -> np.ndarray:
    """Of each row; for short rows six times faster than np.median."""
    ordered, k = np.sort(values, axis=1), values.shape[1]
    medians: np.ndarray = (ordered[:, (k - 1) // 2] + ordered[:, k // 2]) / 2
    return medians
