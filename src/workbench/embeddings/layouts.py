"""The methods behind :func:`workbench.embeddings.project`: each lays out and, if it can, places."""

import logging
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench.embeddings import fuzzy
from workbench.embeddings.neighbors import checked
from workbench.embeddings.neighbors import neighbors as find_neighbors
from workbench.embeddings.search import exact_rows

Place = Callable[[np.ndarray], np.ndarray]
Layout = tuple[np.ndarray, Place | None]


def pca(features: xr.DataArray, _: xr.Dataset | None, seed: int, **options: Any) -> Layout:
    """Principal components: exact, linear, and the same for unseen samples."""
    decomposition = need("sklearn.decomposition", extra="embeddings")
    values = checked(features)
    model = decomposition.PCA(**{"n_components": 2, "random_state": seed, **options}).fit(values)
    return model.transform(values), model.transform


def umap(
    features: xr.DataArray,
    graph: xr.Dataset | None,
    seed: int,
    *,
    n_neighbors: int | None = None,
    min_dist: float = 0.1,
    spread: float = 1.0,
    n_epochs: int | None = None,
    init: Literal["spectral", "pca"] | np.ndarray = "spectral",
    learning_rate: float = 1.0,
    negative_sample_rate: int = 5,
    repulsion_strength: float = 1.0,
    set_op_mix_ratio: float = 1.0,
) -> Layout:
    """UMAP on the given graph: umap-learn's objective, order of moves and defaults, but epochs."""
    from workbench.embeddings import sgd

    values = checked(features)
    graph, used = umap_graph(features, graph, n_neighbors)
    edges = fuzzy.fuzzy_graph(*arrays(graph, used), mix=set_op_mix_ratio)
    settings: dict[str, Any] = {
        "curve": fuzzy.curve(min_dist, spread),
        "seed": seed,
        "negatives": negative_sample_rate,
        "repulsion": repulsion_strength,
    }
    # Twice umap-learn's: the descent is quick, and neighbour recall gains a hundredth.
    epochs = n_epochs or (1000 if len(values) <= 10_000 else 400)
    start = _umap_start(values, edges, init, seed)
    points = sgd.descend(start, None, edges, epochs=epochs, rate=learning_rate, **settings)

    def place(new: np.ndarray) -> np.ndarray:
        """At the mean of the neighbours, then a few epochs at a quarter of the rate."""
        index, distance = exact_rows(values, new, used, graph.attrs.get("metric", "euclidean"))
        links = _links(index, fuzzy.memberships(distance), len(values))
        start = links.multiply(1 / links.sum(axis=1)).tocsr() @ points
        placed: np.ndarray = sgd.descend(
            start, points, links, epochs=max(epochs // 6, 1), rate=learning_rate / 4, **settings
        )
        return placed

    return points, place


def _umap_start(values: np.ndarray, edges: Any, init: Any, seed: int) -> np.ndarray:
    """Where the descent starts, stretched to [0, 10] along both axes as umap-learn does."""
    if isinstance(init, str) and init not in ("spectral", "pca"):
        raise ValueError(f"init={init!r} is not known; it can be 'spectral', 'pca' or an array")
    start = None if isinstance(init, str) else np.asarray(init, dtype=np.float64)
    if isinstance(init, str) and init == "spectral":
        start = fuzzy.spectral_start(edges, seed)
    if start is None:
        # A graph in separate parts has no slow modes that order them; components of the data do.
        start = fuzzy.principal_start(values, seed)
    if start.shape != (len(values), 2):
        raise ValueError(f"init must have shape {(len(values), 2)}, not {start.shape}")
    extent = np.ptp(start, axis=0)
    return np.asarray(10 * (start - start.min(axis=0)) / np.where(extent > 0, extent, 1))


def umap_graph(
    features: xr.DataArray, graph: xr.Dataset | None, n_neighbors: int | None
) -> tuple[xr.Dataset, int]:
    """The graph to use and how many of its neighbours: 15, or all where it holds fewer."""
    # UMAP counts a point among its own neighbours, so it needs one other fewer than it is told.
    others = 14 if n_neighbors is None else n_neighbors - 1
    if graph is None:
        graph = find_neighbors(features, k=others)
    held = graph.sizes["neighbor"]
    if n_neighbors is None:
        others = min(others, held)
    if held < others:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs {others} neighbours besides the point itself and "
            f"the graph holds {held}: use neighbors(features, k={others})"
        )
    return graph, others


def arrays(graph: xr.Dataset, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest `k` of each sample as two arrays."""
    return graph["index"].values[:, :k], graph["distance"].values[:, :k]


def _links(index: np.ndarray, strength: np.ndarray, n: int) -> Any:
    sparse = need("scipy.sparse", extra="embeddings")
    rows, k = index.shape
    start = np.arange(0, rows * k + 1, k)
    return sparse.csr_matrix((strength.ravel(), index.ravel(), start), shape=(rows, n))


def umap_learn(
    features: xr.DataArray, graph: xr.Dataset | None, seed: int, **options: Any
) -> Layout:
    """umap-learn itself, with everything that it can do, on the given graph."""
    library = need("umap", extra="embeddings")
    values = checked(features)
    graph, used = umap_graph(features, graph, options.get("n_neighbors"))
    index, distance = arrays(graph, used)
    own = np.arange(len(values))
    model = library.UMAP(
        **{**options, "n_neighbors": used + 1},
        random_state=seed,
        n_jobs=1,
        precomputed_knn=(
            np.column_stack([own, index]),
            np.column_stack([np.zeros(len(values)), distance]).astype(np.float32),
        ),
    )
    with warnings.catch_warnings():
        # Both restate what a seed and a precomputed graph mean.
        warnings.filterwarnings("ignore", message="n_jobs value")
        warnings.filterwarnings("ignore", message="precomputed_knn")
        return model.fit_transform(values), None


def pacmap(
    features: xr.DataArray,
    graph: xr.Dataset | None,
    seed: int,
    *,
    n_neighbors: int = 10,
    init: Literal["pca", "random"] = "pca",
    **options: Any,
) -> Layout:
    """PaCMAP on near pairs from the given graph; it draws its mid-near and far pairs itself."""
    library = need("pacmap", extra="embeddings")
    values = checked(features).astype(np.float32)
    if graph is None:
        graph = find_neighbors(features, k=min(n_neighbors + 50, len(values) - 1))
    if graph.sizes["neighbor"] < n_neighbors:
        raise ValueError(
            f"n_neighbors={n_neighbors} and the graph holds {graph.sizes['neighbor']}: "
            f"use neighbors(features, k={n_neighbors}) or larger, up to {n_neighbors + 50}"
        )
    pairs = _near_pairs(graph, n_neighbors)
    distance = "angular" if graph.attrs.get("metric") == "cosine" else "euclidean"
    # It warns that it was given a seed.
    logging.getLogger("pacmap.pacmap").setLevel(logging.ERROR)
    model = library.PaCMAP(
        n_neighbors=n_neighbors,
        pair_neighbors=pairs,
        distance=distance,
        random_state=seed,
        **options,
    )
    numba = need("numba", extra="embeddings")
    threads = numba.get_num_threads()
    # As for t-SNE: on few samples, handing out work to threads costs more than the work.
    numba.set_num_threads(threads if len(values) >= 10_000 else 1)
    try:
        return model.fit_transform(values, init=init), None
    finally:
        numba.set_num_threads(threads)


def _near_pairs(graph: xr.Dataset, n_neighbors: int) -> np.ndarray:
    """Neighbours that are near by both ends' scales (Wang, Huang, Rudin and Shaposhnik 2021)."""
    index, distance = arrays(graph, n_neighbors + 50)
    scale = np.maximum(distance[:, 3:6].mean(axis=1), 1e-10)
    scaled = distance.astype(np.float64) ** 2 / scale[:, None] / scale[index]
    order = np.argsort(scaled, axis=1, kind="stable")[:, :n_neighbors]
    nearest = np.take_along_axis(index, order, axis=1)
    own = np.repeat(np.arange(len(index)), n_neighbors)
    return np.column_stack([own, nearest.ravel()]).astype(np.int32)
