"""The k-nearest-neighbour graph, found once and used by everything else.

Exactly, with one matrix product a block, or approximately, through clusters of rows.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench.embeddings.distances import COMPARED, compared_rows, row_blocks


def arrays(graph: xr.Dataset, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest `k` of each sample as two arrays, or an error where they are no graph."""
    index = checked_index(graph["index"].values[:, :k])
    distance = graph["distance"].values[:, :k]
    if index.shape != distance.shape or not (np.diff(distance, axis=1) >= 0).all():
        raise ValueError("the graph's distances must be numbers, nearest first in every row")
    return index, distance


def checked_index(index: np.ndarray) -> np.ndarray:
    """The neighbours of a graph, or an error where one of them is none of its samples."""
    n = len(index)
    wrong = (index < 0) | (index >= n)
    if wrong.any():
        raise ValueError(f"the graph's index holds {index[wrong][0]}, which is none of {n} samples")
    return index


CLUSTERED = "pca + ivf"
FLAT = "flat"
GPU = "torch"
#: Beyond, values are taken for placeholders (GDAL's 3.4e38): nothing measured is so large.
_LARGEST = 1e35
_RECALL = 0.95
_PROBED = 500
# Components kept, and candidates for each wanted neighbour. The first line serves raw MNIST; data
# whose variance is spread wider is taken through the next.
_EFFORTS = ((64, 2), (128, 4), (256, 6))
_PROBES = (24, 32, 48, 64, 96, 128)
# What a row costs the approximate search, in multiply-adds of the exact one: some work for itself,
# and some for each feature of its candidates.
_ROW_COST = 1.3e6
_FEATURE_COST = 1e4


def exact_rows(
    reference: np.ndarray, queries: np.ndarray, k: int, metric: str, own: np.ndarray | None = None
) -> Any:
    """The `k` nearest rows of `reference` for each of `queries`, as (index, distance).

    Memory is that of the two matrices and ``queries * k``. The candidates come from
    ``|x|^2 + |y|^2 - 2xy`` in float32 on centred rows, which loses small distances to rounding;
    the distances of the candidates are therefore taken again from differences.
    """
    if metric in COMPARED:
        return compared_rows(reference, queries, k, metric, own)
    faiss = need("faiss", extra="embeddings")
    same = queries is reference
    reference = directions(reference, metric)
    queries = reference if same else directions(queries, metric)
    small, *others = _prepared(*([reference] if same else [reference, queries]))
    # A few more than wanted: rounding may have put the last ones in the wrong order.
    _, candidates = faiss.knn(others[0] if others else small, small, min(k + 9, len(reference)))
    return refine(reference, queries, candidates, k, metric, own)


def nearest_of(parts: list[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest of what several searches found for the same rows: exact where they were."""
    index, distance = (np.hstack(part) for part in zip(*parts, strict=True))
    order = np.lexsort((index, distance), axis=1)[:, :k]
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(distance, order, axis=1)


def extended(
    values: np.ndarray, graph: tuple[np.ndarray, np.ndarray], metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """The graph of the first rows of `values`, extended to all of them by exact searches."""
    n, k = graph[0].shape
    found = exact_rows(values[n:], values[:n], min(k, len(values) - n), metric)
    old = nearest_of([graph, (found[0] + n, found[1])], k)
    new = exact_rows(values, values[n:], k, metric, own=np.arange(n, len(values)))
    return np.vstack([old[0], new[0]]), np.vstack([old[1], new[1]])


def device_graph(values: np.ndarray, k: int, metric: str, device: str) -> Any:
    """As :func:`exact_rows`, by torch on a GPU: float32, never TF32, a block of rows at a time."""
    torch = need("torch", extra="networks")
    values = np.ascontiguousarray(directions(values, metric))
    n, width = values.shape
    small = torch.from_numpy(_prepared(values)[0]).to(device)
    full = torch.from_numpy(values).to(device)
    norms = (small * small).sum(dim=1)
    count = min(k + 9, n)
    found = []
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for rows in torch.arange(n, device=device).split(max(1, 2**28 // max(n, count * width))):
            near = (norms - 2 * small[rows] @ small.T).topk(count, largest=False).indices
            squared = (full[near] - full[rows, None]).square().sum(dim=2)
            squared[near == rows[:, None]] = torch.inf
            squared, order = squared.sort(dim=1, stable=True)
            found.append((near.gather(1, order[:, :k]).cpu(), squared[:, :k].cpu()))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    index, squared = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    distance = squared / 2 if metric == "cosine" else np.sqrt(squared)
    return index, distance.astype(np.float32)


def clustered_graph(
    values: np.ndarray, k: int, metric: str, seed: int, rows: np.ndarray, truth: np.ndarray
) -> Any:
    """Almost the `k` nearest others of every row, as (index, distance), or None.

    Rows reduced by principal components are compared within the nearest clusters of k-means, and
    the best of them in the original space. How many clusters that takes is found beforehand on
    `rows`, whose neighbours' true distance is known; where no number suffices, there is none.
    """
    values = directions(values, metric)
    (small,) = _prepared(values)
    for components, breadth in _EFFORTS:
        reduced, index = _clusters(small, components, seed)
        count = min(breadth * (k + 9), len(values))
        for probes in _PROBES:
            index.nprobe = min(probes, index.nlist)
            candidates = index.search(reduced[rows], count)[1]
            probe = refine(values, values[rows], candidates, k, metric, own=rows)
            if _recall(probe[1], truth) >= _RECALL:
                candidates = index.search(reduced, count)[1]
                found = refine(values, values, candidates, k, metric, own=np.arange(len(values)))
                if found[0].min() >= 0:
                    return found
            if probes >= index.nlist:
                break
    return None


def _truth(values: np.ndarray, k: int, metric: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some rows, and the distance of the `k`-th neighbour of each, found in float64."""
    n = len(values)
    rows = np.random.default_rng(seed).choice(n, min(_PROBED, n), replace=False)
    center = np.median(values[rows], axis=0).astype(np.float64)  # no outlier moves it
    asked = values[rows] - center
    count = min(k + 9, n)
    squared = np.empty((len(rows), 0))
    index = np.empty((len(rows), 0), dtype=np.int64)
    for block in row_blocks(np.arange(n), 2048):
        part = values[block] - center
        away = (asked**2).sum(axis=1)[:, None] + (part**2).sum(axis=1) - 2 * asked @ part.T
        squared = np.hstack([squared, away])
        index = np.hstack([index, np.broadcast_to(block, away.shape)])
        best = np.argpartition(squared, min(count, squared.shape[1]) - 1, axis=1)[:, :count]
        squared = np.take_along_axis(squared, best, axis=1)
        index = np.take_along_axis(index, best, axis=1)
    return rows, refine(values, values[rows], index, k, metric, own=rows)[1][:, -1]


def _recall(distance: np.ndarray, truth: np.ndarray) -> float:
    """The share of true neighbours, by distance: whichever of several at one distance will do."""
    return float((distance <= truth[:, None] * (1 + 1e-5)).mean())


def _clusters(small: np.ndarray, components: int, seed: int) -> tuple[np.ndarray, Any]:
    """The rows reduced to their components, and an index of them by clusters."""
    faiss = need("faiss", extra="embeddings")
    n, width = small.shape
    if components < width:
        pca = faiss.PCAMatrix(width, components)
        pca.train(small)
        small = pca.apply(small)
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatL2(small.shape[1]), small.shape[1], max(1, int(2 * np.sqrt(n)))
    )
    index.cp.seed = seed + 1
    index.cp.niter = 8
    index.cp.max_points_per_centroid = 64
    # Its advice on few points a cluster is about compression, which is not used here.
    index.cp.min_points_per_centroid = 1
    index.train(small)
    index.add(small)
    return small, index


def refine(
    reference: np.ndarray,
    queries: np.ndarray,
    candidates: np.ndarray,
    k: int,
    metric: str,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest `k` of the candidates, by distances taken from differences.

    `reference` and `queries` are rows as :func:`directions` returns them, `candidates` int (query,
    candidate) rows of `reference`, -1 for none; `own`, the row that a query is itself, is left
    out. Returns int64 index and float32 distance (query, `k`), nearest first.
    """
    index = np.empty((len(queries), k), dtype=np.int64)
    distance = np.empty((len(queries), k), dtype=np.float32)

    def fill(block: np.ndarray) -> None:
        rows = np.sort(candidates[block], axis=1)  # equals in one order on any number of threads
        difference = reference[rows] - queries[block][:, None]
        squared = np.einsum("ijk,ijk->ij", difference, difference)
        squared[rows < 0] = np.inf
        if own is not None:
            squared[rows == own[block][:, None]] = np.inf
        order = np.argsort(squared, axis=1, kind="stable")[:, :k]
        nearest = np.take_along_axis(squared, order, axis=1)
        index[block] = np.take_along_axis(rows, order, axis=1)
        distance[block] = nearest / 2 if metric == "cosine" else np.sqrt(nearest)

    with ThreadPoolExecutor(need("faiss", extra="embeddings").omp_get_max_threads()) as pool:
        # Blocks of about four megabytes, which stay in a processor's cache.
        step = max(1, 2**20 // (candidates.shape[1] * reference.shape[1]))
        list(pool.map(fill, row_blocks(np.arange(len(queries)), step)))
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


Metric = Literal["euclidean", "cosine", "manhattan", "jaccard", "precomputed"]
Device = Literal["auto", "cpu", "cuda"]


def neighbors(
    features: xr.DataArray,
    k: int = 15,
    metric: Metric = "euclidean",
    exact: bool | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> xr.Dataset:
    """The `k` nearest neighbours of every sample, itself excluded.

    Up to three dimensions (maps) a k-d tree serves. Otherwise the exact search multiplies blocks
    of the matrix with BLAS (faiss), ``samples^2 * features`` multiply-adds: the default while
    that is predicted to cost less than the approximate search (up to some 12,000 raw MNIST
    digits), and on a GPU. Beyond, rows are reduced to 64 principal components, clustered,
    compared with those in the nearest clusters, and the best compared again in the original
    space. How many clusters that takes is found on 500 samples, whose true neighbours are
    searched for in float64, and so is the recall of every graph; where it would stay under .95,
    the search is exact, and in float64 if need be, with a warning. Memory grows with
    ``samples * k``, never with the square of the samples.

    Parameters
    ----------
    features
        (sample, feature), any real type; a map (sample, axis) will do as well.
    k
        How many neighbours, from 1 to the number of samples less one.
    metric
        ``"euclidean"``, or ``"cosine"`` (one minus the cosine of the angle). ``"manhattan"``,
        ``"jaccard"`` (of what is present: features of 0 and 1) and ``"precomputed"`` (`features`
        are distances between all samples) are searched exactly by comparing all with all.
    exact
        True, False, or None for the rule above.
    seed
        Fixes the clusters and the rows on which recall is measured. An exact graph repeats bit
        for bit, an approximate one with the same number of threads.
    device
        ``"cuda"`` searches exactly on a GPU through torch: the same neighbours, but for ties.
        ``"auto"`` does where there is one with enough memory and at least a second's work.

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
    if width <= 3 and metric == "euclidean":  # exact, so that there is no recall to measure
        return _graph(features, *_tree(values, k), k, metric, "k-d tree", 1.0)
    if metric in COMPARED:
        if metric == "precomputed" and (n != width or values.min() < 0):
            raise ValueError(
                "metric='precomputed' takes distances (sample, sample), 0 or more: they have shape "
                f"{values.shape}, the smallest is {values.min():g}"
            )
        index, distance = compared_rows(values, values, k, metric, own=np.arange(n))
        return _graph(features, index, distance, k, metric, "compared", 1.0)
    rows, truth = _truth(directions(values, metric), k, metric, seed)
    if exact is not False and (device == "cuda" or (device == "auto" and _fits_gpu(values))):
        method = GPU
        index, distance = device_graph(values, k, metric, "cuda")
    else:
        few = n * width <= _ROW_COST + _FEATURE_COST * width if exact is None else exact
        found = None if few else clustered_graph(values, k, metric, seed, rows, truth)
        if not few and found is None:
            warnings.warn(
                f"the approximate search found fewer than 95% of the neighbours of {len(rows)} "
                "samples; searching exactly instead",
                stacklevel=2,
            )
        method = CLUSTERED if found else FLAT
        index, distance = found or exact_rows(values, values, k, metric, own=np.arange(n))
    recall = _recall(distance[rows], truth)
    if recall < _RECALL:
        warnings.warn(
            f"features of very different sizes: in float32 only {recall:.0%} of the neighbours of "
            f"{len(rows)} samples were found; searching in float64 instead, which takes longer. "
            "Is there a placeholder for missing values, or should the features be scaled?",
            stacklevel=2,
        )
        method = FLAT
        wide = directions(values, metric).astype(np.float64)
        index, distance = compared_rows(wide, wide, k, metric, own=np.arange(n))
        recall = _recall(distance[rows], truth)
    return _graph(features, index, distance, k, metric, method, recall)


def _graph(
    features: xr.DataArray,
    index: np.ndarray,
    distance: np.ndarray,
    k: int,
    metric: str,
    method: str,
    recall: float,
) -> xr.Dataset:
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


def large_enough(
    features: xr.DataArray, graph: xr.Dataset | None, k: int, reason: str, otherwise: str = ""
) -> xr.Dataset:
    """The given graph, or one of `k` neighbours; an error if it holds fewer."""
    graph = neighbors(features, k=k) if graph is None else graph
    if graph.sizes["neighbor"] < k:
        raise ValueError(
            f"{reason} needs {k} neighbours besides the sample itself, and the graph holds "
            f"{graph.sizes['neighbor']}: use neighbors(features, k={k}){otherwise}"
        )
    return graph


def _tree(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours on a map, where trees beat everything else."""
    sklearn_neighbors = need("sklearn.neighbors", extra="embeddings")
    search = sklearn_neighbors.NearestNeighbors(n_neighbors=k, algorithm="kd_tree", n_jobs=-1)
    distance, index = search.fit(values).kneighbors()
    return index.astype(np.int64), distance.astype(np.float32)


def _fits_gpu(values: np.ndarray) -> bool:
    """Whether a GPU is there, has room, and is worth the time that loading torch takes."""
    if len(values) ** 2 * values.shape[1] < 1e11 or not find_spec("torch"):
        return False
    torch = need("torch", extra="networks")
    return bool(torch.cuda.is_available()) and (
        3 * values.nbytes + 2**32 < torch.cuda.mem_get_info()[0]
    )


def checked(features: xr.DataArray, metric: str = "euclidean") -> np.ndarray:
    """The matrix of `features`, or an error that says why it cannot be used."""
    if not isinstance(features, xr.DataArray):
        raise TypeError(
            f"features must be a DataArray (sample, feature), not a {type(features).__name__}; "
            "embeddings.features(ds) makes one from an image dataset"
        )
    if features.ndim != 2 or features.dims[0] != "sample":
        raise ValueError(f"features must have dims (sample, feature), not {features.dims}")
    if metric not in get_args(Metric):
        known = ", ".join(map(repr, get_args(Metric)))
        raise ValueError(f"metric={metric!r} is not known; it can be one of {known}")
    values = np.ascontiguousarray(features.values)
    if metric == "jaccard" and not np.isin(values, (0, 1)).all():
        raise ValueError("metric='jaccard' compares what is present: features must be 0 or 1")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{np.count_nonzero(~finite)} of {len(values)} rows hold NaN or infinity, "
            f"the first at position {int(np.argmin(finite))}"
        )
    largest = np.abs(values).max(axis=0, initial=0)
    if values.dtype.kind == "f" and (absurd := largest > _LARGEST).any():
        column = int(np.argmax(absurd))
        raise ValueError(
            f"{np.count_nonzero(absurd)} features hold absurd values, such as feature {column}: "
            f"{largest[column]:.3g} in {np.count_nonzero(np.abs(values[:, column]) > _LARGEST)} "
            f"of {len(values)} rows. If that stands for missing values, replace it first"
        )
    if metric == "cosine" and (zero := ~values.any(axis=1)).any():
        raise ValueError(
            f"{np.count_nonzero(zero)} rows are all zeros, the first at position "
            f"{int(np.argmax(zero))}; they have no direction, so metric='cosine' is undefined"
        )
    return values
