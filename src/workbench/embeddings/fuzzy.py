"""UMAP's fuzzy graph, the curve of its distances on the map, and where a layout starts."""

from typing import Any

import numpy as np

from workbench._extras import need


def memberships(distance: np.ndarray) -> np.ndarray:
    """How strongly a sample belongs together with each of its neighbours.

    McInnes, Healy and Melville 2018, section 3.1: ``exp(-(d - rho) / sigma)`` beyond the nearest
    neighbour's distance ``rho``, with ``sigma`` such that the sum is ``log2(k + 1)`` (there, a
    sample counts among its own neighbours).

    Parameters
    ----------
    distance
        float (sample, neighbor), nearest first.

    Returns
    -------
    numpy.ndarray
        float64 (sample, neighbor) in [0, 1].

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
    sparse = need("scipy.sparse", extra="embeddings")
    n, k = index.shape
    directed = sparse.csr_matrix(
        (memberships(distance).ravel(), index.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n)
    )
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


def spectral_start(graph: Any, seed: int) -> np.ndarray | None:
    """The two slowest modes of the graph, or None where it falls into separate parts.

    Eigenvectors of ``D^-1/2 A D^-1/2`` behind the first, which are those of the normalised
    Laplacian (Belkin and Niyogi 2003).
    """
    sparse = need("scipy.sparse", extra="embeddings")
    csgraph = need("scipy.sparse.csgraph", extra="embeddings")
    n = graph.shape[0]
    if n < 4 or csgraph.connected_components(graph, directed=False)[0] > 1:
        return None
    root = np.sqrt(np.asarray(graph.sum(axis=0)).ravel())
    scale = sparse.diags(1 / root)
    normal = scale @ graph @ scale
    if n <= 500:
        vectors = np.linalg.eigh(normal.toarray())[1]
    else:
        linalg = need("scipy.sparse.linalg", extra="embeddings")
        try:
            _, vectors = linalg.eigsh(normal, 3, which="LA", ncv=20, tol=1e-4, v0=root)
        except linalg.ArpackNoConvergence:
            return None
    modes: np.ndarray = vectors[:, [-2, -3]]
    # The sign of an eigenvector is arbitrary; this makes it the same on every machine.
    modes = modes * np.where(modes[np.abs(modes).argmax(axis=0), [0, 1]] < 0, -1, 1)
    return np.asarray(modes + np.abs(modes).max() * 1e-5 * _noise(n, seed))


def principal_start(values: np.ndarray, seed: int) -> np.ndarray:
    """Two principal components with a little noise, so that duplicates start apart."""
    points = principal_components(values, seed)
    return np.asarray(points + (np.abs(points).max() or 1.0) * 1e-5 * _noise(len(points), seed))


def principal_components(values: np.ndarray, seed: int, **options: Any) -> np.ndarray:
    """The first two principal components, float (sample, 2); zeros where there is but one."""
    decomposition = need("sklearn.decomposition", extra="embeddings")
    count = min(2, *values.shape)
    pca = decomposition.PCA(n_components=count, random_state=seed, **options)
    if not np.ptp(values, axis=0).any():
        return np.zeros((len(values), 2))
    scores = pca.fit_transform(values)
    return np.pad(scores, ((0, 0), (0, 2 - count)))


def _noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2))
