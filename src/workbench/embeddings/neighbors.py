"""The nearest-neighbour graph, found once and used by everything else."""

import warnings
from typing import Literal

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench.embeddings.search import CLUSTERED, FLAT, clustered_graph, exact_graph

Metric = Literal["euclidean", "cosine"]

EXACT_BUDGET = 1.5e12
"""Multiply-adds up to which the exact search is the default, half a minute on two cores."""


def neighbors(
    features: xr.DataArray,
    k: int = 15,
    metric: Metric = "euclidean",
    exact: bool | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """The `k` nearest neighbours of every sample, itself excluded.

    Up to three dimensions (maps) a k-d tree serves. Otherwise the exact search multiplies blocks
    of the matrix with BLAS (faiss), which takes ``samples^2 * features`` multiply-adds: up to
    1.5e12, about half a minute on two cores (44,000 raw MNIST digits), it is the default. Beyond,
    rows are reduced to 64 principal components, clustered, compared with those in the nearest
    clusters, and the best compared again in the original space. On 70,000 raw MNIST digits and
    one busy machine this took 11 s at a recall of .991; exact search 106 s, faiss HNSW 24 s at
    .994, pynndescent 36 s at .990, faiss IVF without the reduction 51 s at .995, usearch 77 s
    at .998. Recall is measured on 500 samples for every graph; under .95 the search looks wider,
    and at last searches exactly and warns. Memory grows with ``samples * k``, never with the
    square of the samples.

    Parameters
    ----------
    features
        (sample, feature), any real type; a map (sample, axis) will do as well.
    k
        How many neighbours, from 1 to the number of samples less one.
    metric
        ``"euclidean"``, or ``"cosine"`` (one minus the cosine of the angle).
    exact
        True, False, or None for the rule above.
    seed
        Fixes the clusters and the rows on which recall is measured. The graph then repeats bit
        for bit with the same number of threads; no speed is given up for that.

    Returns
    -------
    xarray.Dataset
        ``index`` int64 and ``distance`` float32, both (sample, neighbor), nearest first.
        ``index`` counts positions along ``sample``. ``attrs`` holds `k`, `metric`, ``exact``
        (0 or 1), ``method`` and ``recall`` (1.0, or as measured).

    Raises
    ------
    TypeError
        `features` is not a DataArray.
    ValueError
        Too few samples for `k`; rows with NaN or infinity (how many, and the first); rows of
        zeros under ``"cosine"``.

    Examples
    --------
    >>> points = xr.DataArray([[0.0], [1.0], [3.0]], dims=("sample", "feature"))
    >>> neighbors(points, k=1).index.values.ravel()
    array([1, 0, 1])
    """
    values = checked(features, metric)
    n, width = values.shape
    if not 1 <= k < n:
        raise ValueError(
            f"k={k} neighbours of {n} samples: k must lie between 1 and {n - 1}, "
            "the number of other samples"
        )
    found = None
    if width <= 3 and metric == "euclidean":
        found = *_tree(values, k), 1.0, "k-d tree"
    elif not (n * n * width <= EXACT_BUDGET if exact is None else exact):
        found = _clustered(values, k, metric, seed)
    index, distance, recall, method = found or (*exact_graph(values, k, metric), 1.0, FLAT)
    return xr.Dataset(
        {"index": (("sample", "neighbor"), index), "distance": (("sample", "neighbor"), distance)},
        coords={"sample": features["sample"]} if "sample" in features.coords else {},
        attrs={
            "k": k,
            "metric": metric,
            "exact": int(method != CLUSTERED),
            "method": method,
            "recall": round(recall, 4),
        },
    )


def _tree(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours on a map, where trees beat everything else."""
    sklearn_neighbors = need("sklearn.neighbors", extra="embeddings")
    search = sklearn_neighbors.NearestNeighbors(n_neighbors=k, algorithm="kd_tree", n_jobs=-1)
    distance, index = search.fit(values).kneighbors()
    return index.astype(np.int64), distance.astype(np.float32)


def _clustered(
    values: np.ndarray, k: int, metric: str, seed: int
) -> tuple[np.ndarray, np.ndarray, float, str] | None:
    found = clustered_graph(values, k, metric, seed)
    if found is None:
        warnings.warn(
            "the approximate search found fewer than 95% of the neighbours of 500 samples; "
            "searching exactly instead",
            stacklevel=3,
        )
        return None
    return *found, CLUSTERED


def checked(features: xr.DataArray, metric: str = "euclidean") -> np.ndarray:
    """The matrix of `features`, or an error that says why it cannot be used."""
    if not isinstance(features, xr.DataArray):
        raise TypeError(
            f"features must be a DataArray (sample, feature), not a {type(features).__name__}; "
            "embeddings.features(ds) makes one from an image dataset"
        )
    if features.ndim != 2 or features.dims[0] != "sample":
        raise ValueError(f"features must have dims (sample, feature), not {features.dims}")
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric={metric!r} is not known; it can be 'euclidean' or 'cosine'")
    values = np.ascontiguousarray(features.values)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{np.count_nonzero(~finite)} of {len(values)} rows hold NaN or infinity, "
            f"the first at position {int(np.argmin(finite))}"
        )
    if metric == "cosine" and (zero := ~values.any(axis=1)).any():
        raise ValueError(
            f"{np.count_nonzero(zero)} rows are all zeros, the first at position "
            f"{int(np.argmax(zero))}; they have no direction, so metric='cosine' is undefined"
        )
    return values
