"""t-SNE on a given neighbour graph, through openTSNE."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench.embeddings.neighbors import Layout, arrays, checked, exact_rows
from workbench.embeddings.neighbors import neighbors as find_neighbors
from workbench.embeddings.umap_layout import principal_components

Initialization = Literal["pca", "pca-unscaled", "random"]


def tsne(
    features: xr.DataArray,
    graph: xr.Dataset | None,
    seed: int,
    *,
    perplexity: float = 30.0,
    initialization: Initialization | np.ndarray = "pca",
    n_jobs: int | None = None,
    **options: Any,
) -> Layout:
    """t-SNE whose affinities come from the graph's nearest ``3 * perplexity`` neighbours."""
    library = need("openTSNE", extra="embeddings")
    affinity = need("openTSNE.affinity", extra="embeddings")
    values = checked(features)
    wanted = _wanted(perplexity, len(values))
    if n_jobs is None:
        # The map is the same for any number of threads; below, handing out work costs more than
        # the work, five times as much where other programs want the cores too.
        n_jobs = -1 if len(values) >= 10_000 else 1
    if graph is None:
        graph = find_neighbors(features, k=wanted)
    if graph.sizes["neighbor"] < wanted:
        raise ValueError(
            f"perplexity={perplexity:g} needs {wanted} neighbours, three times itself, and the "
            f"graph holds {graph.sizes['neighbor']}: use neighbors(features, k={wanted}), or "
            f"perplexity={graph.sizes['neighbor'] // 3} or less"
        )
    affinities = affinity.PerplexityBasedNN(
        perplexity=perplexity, knn_index=_index(values, graph, wanted), n_jobs=n_jobs
    )
    model = library.TSNE(perplexity=perplexity, random_state=seed, n_jobs=n_jobs, **options)
    start = _start(values, initialization, seed)
    embedding = model.fit(affinities=affinities, initialization=start)

    points = np.array(embedding)

    def place(new: np.ndarray) -> np.ndarray:
        placed = np.asarray(embedding.transform(new))
        # To place samples, openTSNE centres its map anew: back into the frame that was drawn.
        moved = (np.asarray(embedding) - points).mean(axis=0)
        return np.asarray(placed - moved)

    return points, place


def _wanted(perplexity: float, n: int) -> int:
    """How many neighbours `perplexity` takes, or an error naming the largest that `n` allow."""
    if not perplexity > 0:
        raise ValueError(f"perplexity={perplexity:g} must be positive")
    wanted = max(1, int(3 * perplexity))
    if wanted > n - 1:
        raise ValueError(
            f"perplexity={perplexity:g} needs {wanted} neighbours, three times itself, and each "
            f"of {n} samples has {n - 1}: the largest perplexity here is {(n - 1) // 3}"
        )
    return wanted


def _start(values: np.ndarray, initialization: Any, seed: int) -> np.ndarray:
    """The first positions.

    t-SNE's forces vanish with distance, so a start that is wide stays as it is: a lump. Principal
    components must be shrunk to a standard deviation of 1e-4 (Kobak and Berens 2019, Nature
    Communications 10:5416); ``"pca-unscaled"`` leaves them, to show what happens.
    """
    if not isinstance(initialization, str):
        return np.asarray(initialization, dtype=np.float64)
    noise = np.random.default_rng(seed).normal(scale=1e-4, size=(len(values), 2))
    if initialization == "random":
        return noise
    if initialization not in ("pca", "pca-unscaled"):
        raise ValueError(
            f"initialization={initialization!r} is not known; it can be 'pca', 'pca-unscaled', "
            "'random' or an array"
        )
    start = principal_components(values, seed).astype(np.float64)
    if initialization == "pca-unscaled":
        return start
    width = start[:, 0].std()
    # Duplicates that start on one spot would stay there.
    return start / width * 1e-4 + noise * 1e-2 if width > 0 else noise


def _index(values: np.ndarray, graph: xr.Dataset, k: int) -> Any:
    """Dress the graph as openTSNE's search index; unseen samples are searched for exactly."""
    base = need("openTSNE.nearest_neighbors", extra="embeddings").KNNIndex
    metric = graph.attrs.get("metric", "euclidean")

    class Graph(base):  # type: ignore[misc,valid-type]
        VALID_METRICS = ("euclidean", "cosine")

        def build(self) -> tuple[np.ndarray, np.ndarray]:
            return arrays(graph, k)

        def query(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            index, distance = exact_rows(values, query, min(k, len(values)), metric)
            return index, distance.astype(np.float64)

    return Graph(values, k, metric=metric)
