"""Lay the samples out on a plane."""

import time
import warnings
from typing import Any, Literal

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench.embeddings.neighbors import neighbors as find_neighbors

Method = Literal["umap", "pca"]


def project(
    features: xr.DataArray,
    method: Method = "umap",
    neighbors: xr.Dataset | None = None,
    seed: int = 51,
    **options: Any,
) -> xr.DataArray:
    """A map: two coordinates for every sample.

    Parameters
    ----------
    features
        float (sample, feature).
    method
        ``"umap"`` (McInnes, Healy and Melville 2018, arXiv:1802.03426) or ``"pca"``.
    neighbors
        The graph of :func:`workbench.embeddings.neighbors`. UMAP takes it as it is and searches
        nothing itself; without it, the exact graph is found first. PCA has no use for it.
    seed
        Fixes the map. UMAP then runs on one thread and repeats bit for bit on one machine with
        the same versions; across machines it can differ.
    **options
        Passed to ``umap.UMAP`` or ``sklearn.decomposition.PCA``, ``min_dist=0.3`` for instance.

    Returns
    -------
    xarray.DataArray
        float32 (sample, axis) with ``method``, ``seed``, ``seconds`` and the options in
        ``attrs``.

    Raises
    ------
    ValueError
        `method` is not known, or `neighbors` belongs to other samples or is too small.

    Examples
    --------
    >>> import numpy as np
    >>> line = xr.DataArray(np.arange(8.0).reshape(4, 2), dims=("sample", "feature"))
    >>> project(line, method="pca").sizes["axis"]
    2
    """
    if method not in _METHODS:
        raise ValueError(f"method={method!r} is not known; it can be one of {sorted(_METHODS)}")
    if neighbors is not None and neighbors.sizes["sample"] != features.sizes["sample"]:
        raise ValueError(
            f"the neighbour graph has {neighbors.sizes['sample']} samples and the features have "
            f"{features.sizes['sample']}: both must come from the same data"
        )
    started = time.perf_counter()
    points = _METHODS[method](features, neighbors, seed, options)
    seconds = time.perf_counter() - started
    coords = {"sample": features["sample"]} if "sample" in features.coords else {}
    return xr.DataArray(
        np.asarray(points, dtype=np.float32),
        dims=("sample", "axis"),
        coords=coords,
        name=method,
        attrs={"method": method, "seed": seed, "seconds": round(seconds, 2), **options},
    )


def _umap(
    features: xr.DataArray, graph: xr.Dataset | None, seed: int, options: dict[str, Any]
) -> np.ndarray:
    umap = need("umap", extra="embeddings")
    # UMAP counts a point among its own neighbours, so it needs one other fewer than it is told.
    n_neighbors = options.get("n_neighbors", 15 if graph is None else graph.sizes["neighbor"] + 1)
    if graph is None:
        graph = find_neighbors(features, k=n_neighbors - 1)
    others = n_neighbors - 1
    if graph.sizes["neighbor"] < others:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs {others} neighbours besides the point itself and "
            f"the graph holds {graph.sizes['neighbor']}: use neighbors(features, k={others})"
        )
    n = features.sizes["sample"]
    index = np.column_stack([np.arange(n), graph["index"].values[:, :others]])
    distance = np.column_stack([np.zeros(n), graph["distance"].values[:, :others]])
    model = umap.UMAP(
        **{**options, "n_neighbors": n_neighbors},
        random_state=seed,
        n_jobs=1,
        precomputed_knn=(index, distance.astype(np.float32)),
    )
    with warnings.catch_warnings():
        # Both restate what a seed and a precomputed graph mean.
        warnings.filterwarnings("ignore", message="n_jobs value")
        warnings.filterwarnings("ignore", message="precomputed_knn")
        points: np.ndarray = model.fit_transform(features.values)
    return points


def _pca(
    features: xr.DataArray, _: xr.Dataset | None, seed: int, options: dict[str, Any]
) -> np.ndarray:
    decomposition = need("sklearn.decomposition", extra="embeddings")
    pca = decomposition.PCA(**{"n_components": 2, "random_state": seed, **options})
    points: np.ndarray = pca.fit_transform(features.values)
    return points


_METHODS = {"umap": _umap, "pca": _pca}
