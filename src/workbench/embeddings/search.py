"""Find nearest rows: exactly with one matrix product a block, or through clusters of rows."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from workbench._extras import need

CLUSTERED = "pca + ivf"
FLAT = "flat"
_RECALL = 0.95
# Components kept, clusters looked into, and candidates for each wanted neighbour. The first line
# reaches .99 on raw MNIST; data whose variance is spread wider is taken through the next.
_EFFORTS = ((64, 24, 2), (128, 64, 4), (256, 128, 6))


def exact_rows(reference: np.ndarray, queries: np.ndarray, k: int, metric: str) -> Any:
    """The `k` nearest rows of `reference` for each of `queries`, as (index, distance).

    Memory is that of the two matrices and ``queries * k``. The candidates come from
    ``|x|^2 + |y|^2 - 2xy`` in float32 on centred rows, which loses small distances to rounding;
    the distances of the candidates are therefore taken again from differences.
    """
    faiss = need("faiss", extra="embeddings")
    reference, queries = (directions(rows, metric) for rows in (reference, queries))
    # A few more than wanted: rounding may have put the last ones in the wrong order.
    count = min(k + 9, len(reference))
    small, asked = _prepared(reference, queries)
    _, candidates = faiss.knn(asked, small, count)
    return refine(reference, queries, candidates, k, metric)


def exact_graph(values: np.ndarray, k: int, metric: str) -> Any:
    """The `k` nearest others of every row, as (index, distance)."""
    faiss = need("faiss", extra="embeddings")
    values = directions(values, metric)
    (small,) = _prepared(values)
    _, candidates = faiss.knn(small, small, min(k + 9, len(values)))
    return refine(values, values, candidates, k, metric, own=np.arange(len(values)))


def clustered_graph(values: np.ndarray, k: int, metric: str, seed: int) -> Any:
    """Almost the `k` nearest others of every row, as (index, distance, recall) or None.

    The rows are reduced by principal components and clustered by k-means; those in the nearest
    clusters are compared there, and the best of them in the original space. ``recall`` is
    measured on 500 rows drawn with `seed`; where it stays under .95, None is returned.
    """
    values = directions(values, metric)
    (small,) = _prepared(values)
    rows = np.random.default_rng(seed).choice(len(values), min(500, len(values)), replace=False)
    truth = _kth_distance(values, small, rows, k, metric)
    for components, probes, breadth in _EFFORTS:
        candidates = _candidates(small, components, probes, breadth * (k + 9), seed)
        probe = refine(values, values[rows], candidates[rows], k, metric, own=rows)
        recall = float((probe[1] <= truth[:, None]).mean())
        if recall >= _RECALL:
            own = np.arange(len(values))
            index, distance = refine(values, values, candidates, k, metric, own=own)
            if index.min() >= 0:
                return index, distance, recall
    return None


def _kth_distance(
    values: np.ndarray, small: np.ndarray, rows: np.ndarray, k: int, metric: str
) -> np.ndarray:
    """The true distance of the k-th neighbour, a hair enlarged so that ties count as found."""
    faiss = need("faiss", extra="embeddings")
    _, candidates = faiss.knn(small[rows], small, min(k + 9, len(values)))
    _, distance = refine(values, values[rows], candidates, k, metric, own=rows)
    farthest: np.ndarray = distance[:, -1] * np.float32(1 + 1e-6)
    return farthest


def _candidates(
    small: np.ndarray, components: int, probes: int, count: int, seed: int
) -> np.ndarray:
    """Likely neighbours of every row, -1 where a cluster held too few."""
    faiss = need("faiss", extra="embeddings")
    n, width = small.shape
    if components < width:
        pca = faiss.PCAMatrix(width, components)
        pca.train(small)
        small = pca.apply(small)
    quantizer = faiss.IndexFlatL2(small.shape[1])
    clusters = max(1, int(2 * np.sqrt(n)))
    index = faiss.IndexIVFFlat(quantizer, small.shape[1], clusters)
    index.cp.seed, index.cp.niter, index.cp.max_points_per_centroid = seed + 1, 8, 64
    # Its advice on few points a cluster is about compression, which is not used here.
    index.cp.min_points_per_centroid = 1
    index.train(small)
    index.add(small)
    index.nprobe = min(probes, clusters)
    found: np.ndarray = index.search(small, min(count, n))[1]
    return found


def refine(
    reference: np.ndarray,
    queries: np.ndarray,
    candidates: np.ndarray,
    k: int,
    metric: str,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest `k` of the candidates, by distances taken from differences.

    Parameters
    ----------
    reference, queries
        Rows as :func:`directions` returns them.
    candidates
        int (query, candidate): rows of `reference`, -1 for none.
    own
        The row of `reference` that a query is itself, never its own neighbour.

    Returns
    -------
    tuple
        int64 index and float32 distance, both (query, `k`), nearest first.
    """
    index = np.empty((len(queries), k), dtype=np.int64)
    distance = np.empty((len(queries), k), dtype=np.float32)

    def fill(block: slice) -> None:
        rows = candidates[block]
        difference = reference[rows] - queries[block, None]
        squared = np.einsum("ijk,ijk->ij", difference, difference)
        squared[rows < 0] = np.inf
        if own is not None:
            squared[rows == own[block, None]] = np.inf
        order = np.argsort(squared, axis=1, kind="stable")[:, :k]
        nearest = np.take_along_axis(squared, order, axis=1)
        index[block] = np.take_along_axis(rows, order, axis=1)
        distance[block] = nearest / 2 if metric == "cosine" else np.sqrt(nearest)

    with ThreadPoolExecutor(need("faiss", extra="embeddings").omp_get_max_threads()) as pool:
        list(pool.map(fill, _blocks(len(queries), candidates.shape[1] * reference.shape[1])))
    return index, distance


def directions(values: np.ndarray, metric: str) -> np.ndarray:
    """The rows in floating point; scaled to length one for the cosine."""
    if not np.issubdtype(values.dtype, np.floating) or values.dtype.itemsize < 4:
        values = values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    if metric == "cosine":
        if not values.any(axis=1).all():
            raise ValueError("rows of zeros have no direction, so metric='cosine' is undefined")
        # Divided by the largest entry first: squares of very large or small numbers overflow.
        values = values / np.abs(values).max(axis=1, keepdims=True)
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
    return values


def _prepared(reference: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """float32 rows around zero and within one: the least rounding for a float32 product."""
    center = reference.mean(axis=0, dtype=np.float64).astype(reference.dtype)
    moved = [rows - center for rows in (reference, *others)]
    largest = max(float(np.abs(rows).max(initial=0)) for rows in moved) or 1.0
    return [np.ascontiguousarray(rows / largest, dtype=np.float32) for rows in moved]


def _blocks(n: int, floats_a_row: int) -> Iterator[slice]:
    """Row blocks of about four megabytes, which stay in a processor's cache."""
    step = max(1, 2**20 // floats_a_row)
    return (slice(start, start + step) for start in range(0, n, step))
