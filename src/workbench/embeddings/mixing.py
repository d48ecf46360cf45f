"""Which classes run into which."""

import numpy as np
import xarray as xr


def mixing(neighbors: xr.Dataset, labels: xr.DataArray) -> xr.DataArray:
    """How often the neighbours of one class carry the label of another.

    Parameters
    ----------
    neighbors
        ``index`` (sample, neighbor).
    labels
        int (sample,), -1 for none.

    Returns
    -------
    xarray.DataArray
        float64 (label, neighbor_label): of the neighbours of the samples of a class, the share
        that carry each label; every row adds up to 1. Samples without a label are a class of
        their own, -1.

    Raises
    ------
    ValueError
        `labels` belongs to another number of samples.

    Examples
    --------
    >>> graph = xr.Dataset({"index": (("sample", "neighbor"), [[1], [0], [1]])})
    >>> mixing(graph, xr.DataArray([7, 7, 3], dims="sample")).sel(label=3).values
    array([0., 1.])
    """
    index = neighbors["index"].values
    if labels.shape != (len(index),):
        raise ValueError(f"{len(index)} samples in the graph, labels of shape {labels.shape}")
    numbers, own = np.unique(labels.values, return_inverse=True)
    counts = np.zeros((len(numbers), len(numbers)))
    np.add.at(counts, (np.repeat(own, index.shape[1]), own[index].ravel()), 1)
    return xr.DataArray(
        counts / counts.sum(axis=1, keepdims=True),
        coords={"label": numbers, "neighbor_label": numbers},
        dims=("label", "neighbor_label"),
        name="mixing",
    )
