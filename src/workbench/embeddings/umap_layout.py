"""UMAP on a given neighbour graph: fuzzy graph, curve of distances, start; PCA and PaCMAP."""

import logging
import warnings
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench._machine import on_one_thread
from workbench._samples import same_samples
from workbench.embeddings.layout import Layout
from workbench.embeddings.neighbors import arrays, checked, exact_rows, large_enough
from workbench.embeddings.neighbors import neighbors as find_neighbors


def memberships(distance: np.ndarray) -> np.ndarray:
    """How strongly a sample belongs together with each of its neighbours: float64, 0 to 1.

    McInnes, Healy and Melville 2018, section 3.1: ``exp(-(d - rho) / sigma)`` beyond the nearest
    neighbour's `distance` (sample, neighbor) ``rho``, with ``sigma`` such that the sum is
    ``log2(k + 1)`` (there, a sample counts among its own neighbours).

    Examples
    --------
    >>> memberships(np.array([[1.0, 2.0, 3.0]])).round(3)
    array([[1.   , 0.618, 0.382]])
    """
    distance = distance.astype(np.float64)
    positive = np.where(distance > 0, distance, np.inf).min(axis=1)
    rho = np.where(np.isfinite(positive), positive, 0.0)
    beyond = np.maximum(distance - rho[:, None], 0)
    target = np.log2(distance.shape[1] + 1)
    low, high = np.zeros(len(distance)), np.full(len(distance), np.inf)
    sigma = np.ones(len(distance))
    for _ in range(64):
        with np.errstate(over="ignore", under="ignore"):
            total = np.exp(-beyond / sigma[:, None]).sum(axis=1)
        if np.all(np.abs(total - target) < 1e-5):
            break
        large = total > target
        high, low = np.where(large, sigma, high), np.where(large, low, sigma)
        sigma = np.where(np.isfinite(high), (low + high) / 2, sigma * 2)
    # With many neighbours at one distance no sigma reaches the sum: keep it from vanishing.
    mean = distance.sum(axis=1) / (distance.shape[1] + 1)
    floor = 1e-3 * np.where(rho > 0, mean, mean.mean())
    sigma = np.maximum(sigma, np.maximum(floor, 1e-300))
    with np.errstate(under="ignore"):
        strength: np.ndarray = np.exp(-beyond / sigma[:, None])
    return strength


def fuzzy_graph(index: np.ndarray, distance: np.ndarray, mix: float = 1.0) -> Any:
    """The symmetric graph of memberships: a scipy sparse (sample, sample) matrix.

    An edge is there if either end says so: ``w + w' - w w'`` (`mix` 1), or if both do: ``w w'``
    (`mix` 0), or in between.
    """
    directed = _links(index, memberships(distance), len(index))
    mirrored = directed.T.tocsr()
    both = directed.multiply(mirrored)
    graph = mix * (directed + mirrored - both) + (1 - mix) * both
    graph = graph.tocsr()
    graph.eliminate_zeros()
    return graph


def curve(min_dist: float, spread: float) -> tuple[float, float]:
    """``a`` and ``b`` that make ``1 / (1 + a d^2b)`` resemble what `min_dist` asks for.

    That is 1 up to `min_dist` and ``exp(-(d - min_dist) / spread)`` beyond (same paper, section
    4.2, definition 11).
    """
    optimize = need("scipy.optimize", extra="embeddings")
    d = np.linspace(0, 3 * spread, 300)
    wanted = np.where(d < min_dist, 1.0, np.exp(-(d - min_dist) / spread))
    (a, b), _ = optimize.curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), d, wanted)
    return float(a), float(b)


def spectral_start(graph: Any, seed: int, count: int = 2) -> np.ndarray | None:
    """The `count` slowest modes of the graph, or None where it falls into separate parts.

    Eigenvectors of ``D^-1/2 A D^-1/2`` behind the first, which are those of the normalised
    Laplacian (Belkin and Niyogi 2003).
    """
    sparse = need("scipy.sparse", extra="embeddings")
    csgraph = need("scipy.sparse.csgraph", extra="embeddings")
    n = graph.shape[0]
    if n < count + 2 or csgraph.connected_components(graph, directed=False)[0] > 1:
        return None
    root = np.sqrt(np.asarray(graph.sum(axis=0)).ravel())
    scale = sparse.diags(1 / root)
    normal = scale @ graph @ scale
    if n <= 500:
        vectors = np.linalg.eigh(normal.toarray())[1]
    else:
        linalg = need("scipy.sparse.linalg", extra="embeddings")
        try:
            _, vectors = linalg.eigsh(normal, count + 1, which="LA", ncv=20, tol=1e-4, v0=root)
        except linalg.ArpackNoConvergence:
            return None
    modes: np.ndarray = vectors[:, -2 : -2 - count : -1]
    # The sign of an eigenvector is arbitrary; this makes it the same on every machine.
    modes = modes * np.where(modes[np.abs(modes).argmax(axis=0), range(count)] < 0, -1, 1)
    return np.asarray(modes + np.abs(modes).max() * 1e-5 * _noise(modes.shape, seed))


@on_one_thread
def principal_components(values: np.ndarray, seed: int, count: int = 2) -> np.ndarray:
    """The first principal components, float (sample, `count`); zeros where there are fewer."""
    decomposition = need("sklearn.decomposition", extra="embeddings")
    there = min(count, *values.shape)
    pca = decomposition.PCA(n_components=there, random_state=seed)
    if not np.ptp(values, axis=0).any():
        return np.zeros((len(values), count))
    scores = pca.fit_transform(values)
    return np.pad(scores, ((0, 0), (0, count - there)))


def _noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@on_one_thread
def pca(
    features: xr.DataArray,
    _: xr.Dataset | None,
    seed: int,
    *,
    components: int = 2,
    **options: Any,
) -> Layout:
    """Principal components: exact, linear, and the same for unseen samples."""
    decomposition = need("sklearn.decomposition", extra="embeddings")
    values = checked(features)
    model = decomposition.PCA(**{"n_components": components, "random_state": seed, **options})
    model.fit(values)
    scale = np.sqrt(model.explained_variance_) if model.whiten else 1.0
    layout = Layout(values, {"mean": model.mean_, "axes": model.components_.T / scale})
    return replace(layout, points=pca_place(layout, values))


def pca_place(layout: Layout, values: np.ndarray) -> np.ndarray:
    """The components of other rows."""
    return np.asarray((values - layout.arrays["mean"]) @ layout.arrays["axes"])


def umap(
    features: xr.DataArray,
    graph: xr.Dataset | None,
    seed: int,
    *,
    components: int = 2,
    n_neighbors: int | None = None,
    min_dist: float = 0.1,
    spread: float = 1.0,
    n_epochs: int | None = None,
    init: Literal["spectral", "pca"] | np.ndarray = "spectral",
    learning_rate: float = 1.0,
    negative_sample_rate: int = 5,
    repulsion_strength: float = 1.0,
    set_op_mix_ratio: float = 1.0,
    labels: xr.DataArray | None = None,
    target_weight: float = 0.5,
) -> Layout:
    """UMAP on the given graph: umap-learn's objective, order of moves and defaults, but epochs."""
    from workbench.embeddings import umap_descent

    if components not in (2, 3):
        raise ValueError(f"components={components}: a map has 2 or 3 axes")
    values = checked(features)
    graph, used = umap_graph(features, graph, n_neighbors)
    index, distance = arrays(graph, used)
    kept = {"values": values, "index": index, "distance": distance}
    if labels is not None:
        kept["labels"] = _classes(labels, features)
    descent: dict[str, Any] = {
        "curve": curve(min_dist, spread),
        "seed": seed,
        "negatives": negative_sample_rate,
        "repulsion": repulsion_strength,
    }
    # Twice umap-learn's: the descent is quick, and neighbour recall gains a hundredth.
    epochs = n_epochs or (1000 if len(values) <= 10_000 else 400)
    settings = {
        "descent": descent,
        "epochs": epochs,
        "rate": learning_rate,
        "mix": set_op_mix_ratio,
        "weight": target_weight,
        "metric": graph.attrs.get("metric", "euclidean"),
    }
    edges = _edges(kept, settings)
    start = _umap_start(values, edges, init, seed, components)
    points = umap_descent.descend(start, None, edges, epochs=epochs, rate=learning_rate, **descent)
    return Layout(points, kept, settings)


def umap_place(layout: Layout, new: np.ndarray) -> np.ndarray:
    """At the mean of the neighbours, then a few epochs at a quarter of the rate."""
    from workbench.embeddings import umap_descent

    kept, settings = layout.arrays, layout.settings
    k = kept["index"].shape[1]
    index, distance = exact_rows(kept["values"], new, k, settings["metric"])
    links = _links(index, memberships(distance), len(kept["values"]))
    start = links.multiply(1 / links.sum(axis=1)).tocsr() @ layout.points
    epochs, rate = max(settings["epochs"] // 6, 1), settings["rate"] / 4
    placed: np.ndarray = umap_descent.descend(
        start, layout.points, links, epochs=epochs, rate=rate, **settings["descent"]
    )
    return placed


def umap_settle(layout: Layout) -> np.ndarray:
    """The points of a map that others have joined, after a short and slow descent."""
    from workbench.embeddings import umap_descent

    settings = layout.settings
    epochs, rate = max(int(settings["epochs"] * SETTLE[0]), 1), settings["rate"] * SETTLE[1]
    edges = _edges(layout.arrays, settings)
    descent = settings["descent"] | {"epochs": epochs, "rate": rate}
    return np.asarray(umap_descent.descend(layout.points, None, edges, **descent))


#: Shares of the epochs and of the rate that a map settles with: more let all samples drift.
SETTLE = (0.05, 0.02)


def _edges(kept: dict[str, np.ndarray], settings: dict[str, Any]) -> Any:
    """The fuzzy graph, sharpened by the labels where there are any."""
    edges = fuzzy_graph(kept["index"], kept["distance"], mix=settings["mix"])
    if "labels" in kept:
        return supervised(edges, kept["labels"], settings["weight"])
    return edges


def supervised(graph: Any, labels: np.ndarray, weight: float) -> Any:
    """The graph's intersection with the classes' (umap-learn's supervised reduction).

    An edge between two classes is multiplied by ``exp(-far)``, larger for a larger `weight` from 0
    to 1, one to a sample without a label (-1) by ``exp(-1)``; then each sample's strongest edge
    is made 1 again.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"target_weight={weight} must lie between 0 and 1")
    sparse = need("scipy.sparse", extra="embeddings")
    edges = graph.tocoo()
    far = 2.5 / (1 - weight) if weight < 1 else 1e12
    one, other = labels[edges.row], labels[edges.col]
    strength = edges.data * np.exp(-far * (one != other))
    unknown = (one < 0) | (other < 0)
    strength[unknown] = edges.data[unknown] * np.exp(-1.0)
    joined = sparse.csr_matrix((strength, (edges.row, edges.col)), shape=graph.shape)
    joined.eliminate_zeros()
    strongest = joined.max(axis=1).toarray().ravel()
    joined = sparse.diags(1 / np.where(strongest > 0, strongest, 1)) @ joined
    joined = (joined + joined.T - joined.multiply(joined.T)).tocsr()
    joined.eliminate_zeros()
    return joined


def _classes(labels: xr.DataArray, features: xr.DataArray) -> np.ndarray:
    """Class numbers of the samples, in the order of the features."""
    classes = np.asarray(same_samples(labels, features, ("labels", "the features")))
    if classes.ndim != 1 or classes.dtype.kind not in "iu" or classes.min(initial=0) < -1:
        raise ValueError(
            f"labels must be whole numbers (sample,), -1 for none, not {classes.dtype} of shape "
            f"{classes.shape}"
        )
    return classes.astype(np.int64)


def _umap_start(values: np.ndarray, edges: Any, init: Any, seed: int, count: int) -> np.ndarray:
    """Where the descent starts, stretched to [0, 10] along all axes as umap-learn does."""
    if isinstance(init, str) and init not in ("spectral", "pca"):
        raise ValueError(f"init={init!r} is not known; it can be 'spectral', 'pca' or an array")
    start = None if isinstance(init, str) else np.asarray(init, dtype=np.float64)
    if isinstance(init, str) and init == "spectral":
        start = spectral_start(edges, seed, count)
    if start is None:
        # A graph in separate parts has no slow modes that order them; components of the data do.
        start = principal_components(values, seed, count)
        # A little noise, so that duplicates start apart.
        start = start + (np.abs(start).max() or 1.0) * 1e-5 * _noise(start.shape, seed)
    if start.shape != (len(values), count):
        raise ValueError(f"init must have shape {(len(values), count)}, not {start.shape}")
    extent = np.ptp(start, axis=0)
    return np.asarray(10 * (start - start.min(axis=0)) / np.where(extent > 0, extent, 1))


def umap_graph(
    features: xr.DataArray, graph: xr.Dataset | None, n_neighbors: int | None
) -> tuple[xr.Dataset, int]:
    """The graph to use and how many of its neighbours: 15, or all where it holds fewer."""
    # UMAP counts a point among its own neighbours, so it needs one other fewer than it is told.
    others = 14 if n_neighbors is None else n_neighbors - 1
    if graph is None:
        most = features.sizes["sample"] - 1
        if n_neighbors is None and most < others:
            warnings.warn(
                f"{most + 1} samples have {most} neighbours each, fewer than UMAP's {others}: "
                "the map is made of those",
                stacklevel=2,
            )
            others = most
        graph = find_neighbors(features, k=others)
    if n_neighbors is None:
        others = min(others, graph.sizes["neighbor"])
    return large_enough(features, graph, others, f"n_neighbors={n_neighbors}"), others


def _links(index: np.ndarray, strength: np.ndarray, n: int) -> Any:
    sparse = need("scipy.sparse", extra="embeddings")
    rows, k = index.shape
    start = np.arange(0, rows * k + 1, k)
    return sparse.csr_matrix((strength.ravel(), index.ravel(), start), shape=(rows, n))


def umap_learn(
    features: xr.DataArray,
    graph: xr.Dataset | None,
    seed: int,
    *,
    components: int = 2,
    **options: Any,
) -> Layout:
    """umap-learn itself, with everything that it can do, on the given graph."""
    library = need("umap", extra="embeddings")
    values = checked(features)
    graph, used = umap_graph(features, graph, options.get("n_neighbors"))
    index, distance = arrays(graph, used)
    own = np.arange(len(values))
    model = library.UMAP(
        **{"n_components": components, **options, "n_neighbors": used + 1},
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
        return Layout(model.fit_transform(values))


def pacmap(
    features: xr.DataArray,
    graph: xr.Dataset | None,
    seed: int,
    *,
    components: int = 2,
    n_neighbors: int = 10,
    init: Literal["pca", "random"] = "pca",
    **options: Any,
) -> Layout:
    """PaCMAP on near pairs from the given graph; it draws its mid-near and far pairs itself."""
    library = need("pacmap", extra="embeddings")
    values = checked(features).astype(np.float32)
    # Near, mid-near and further pairs must all be other samples.
    share = 1 + options.get("MN_ratio", 0.5) + options.get("FP_ratio", 2.0)
    most = int((len(values) - 1) / share)
    if most < 1:
        raise ValueError(f"PaCMAP needs {int(share) + 2} samples or more, not {len(values)}")
    if most < n_neighbors:
        warnings.warn(
            f"{len(values)} samples are too few for n_neighbors={n_neighbors}: PaCMAP takes {most}",
            stacklevel=2,
        )
        n_neighbors = most
    if graph is None:
        graph = find_neighbors(features, k=min(n_neighbors + 50, len(values) - 1))
    graph = large_enough(features, graph, n_neighbors, f"n_neighbors={n_neighbors}")
    pairs = _near_pairs(graph, n_neighbors)
    distance = "angular" if graph.attrs.get("metric") == "cosine" else "euclidean"
    # It warns that it was given a seed.
    logging.getLogger("pacmap.pacmap").setLevel(logging.ERROR)
    model = library.PaCMAP(
        n_components=components,
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
        return Layout(model.fit_transform(values, init=init))
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
