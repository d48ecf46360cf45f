"""The nearest-neighbour graph, found once and used by everything else."""

from typing import Literal

import numpy as np
import xarray as xr

from workbench._extras import need

Metric = Literal["euclidean", "cosine"]


def neighbors(features: xr.DataArray, k: int = 15, metric: Metric = "euclidean") -> xr.Dataset:
    """The `k` nearest neighbours of every sample, itself excluded.

    The search is exact: scikit-learn multiplies blocks of the matrix with BLAS and keeps the `k`
    smallest of each row, so memory grows with ``samples * k``, never with its square.

    Parameters
    ----------
    features
        (sample, feature), any real type; a map (sample, axis) will do as well.
    k
        How many neighbours, from 1 to the number of samples less one.
    metric
        ``"euclidean"``, or ``"cosine"`` (one minus the cosine of the angle).

    Returns
    -------
    xarray.Dataset
        ``index`` int64 and ``distance`` float32, both (sample, neighbor), nearest first.
        ``index`` counts positions along ``sample``. ``attrs`` holds `k`, `metric`, ``exact``.

    Raises
    ------
    ValueError
        Too few samples for `k`; rows with NaN or infinity (how many, and the first); rows of
        zeros under ``"cosine"``.

    Examples
    --------
    >>> points = xr.DataArray([[0.0], [1.0], [3.0]], dims=("sample", "feature"))
    >>> neighbors(points, k=1).index.values.ravel()
    array([1, 0, 1])
    """
    values = _checked(features, k, metric)
    sklearn_neighbors = need("sklearn.neighbors", extra="embeddings")
    # Trees win in two or three dimensions, where maps live, and lose to brute force beyond.
    algorithm = "kd_tree" if values.shape[1] <= 3 and metric == "euclidean" else "brute"
    search = sklearn_neighbors.NearestNeighbors(
        n_neighbors=k, algorithm=algorithm, metric=metric, n_jobs=-1
    )
    distance, index = search.fit(values).kneighbors()
    coords = {"sample": features["sample"]} if "sample" in features.coords else {}
    return xr.Dataset(
        {
            "index": (("sample", "neighbor"), index.astype(np.int64)),
            "distance": (("sample", "neighbor"), distance.astype(np.float32)),
        },
        coords=coords,
        attrs={"k": k, "metric": metric, "exact": 1},
    )


def _checked(features: xr.DataArray, k: int, metric: str) -> np.ndarray:
    """The matrix to search, or an error that says why it cannot be searched."""
    if features.ndim != 2 or features.dims[0] != "sample":
        raise ValueError(f"features must have dims (sample, feature), not {features.dims}")
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric={metric!r} is not known; it can be 'euclidean' or 'cosine'")
    values = np.ascontiguousarray(features.values)
    if not 1 <= k < len(values):
        raise ValueError(
            f"k={k} neighbours of {len(values)} samples: k must lie between 1 and "
            f"{len(values) - 1}, the number of other samples"
        )
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
