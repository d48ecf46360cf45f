"""The k-nearest-neighbour graph, found once and used by everything else.

Exactly, with one matrix product a block, or approximately, through clusters of rows.
"""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import xarray as xr

from workbench._extras import need

Place = Callable[[np.ndarray], np.ndarray]
Layout = tuple[np.ndarray, Place | None]


def arrays(graph: xr.Dataset, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest `k` of each sample as two arrays."""
    return graph["index"].values[:, :k], graph["distance"].values[:, :k]


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
