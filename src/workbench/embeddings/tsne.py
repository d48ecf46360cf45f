"""t-SNE on a given neighbour graph, through openTSNE."""

import logging
from typing import Any, Literal

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench.embeddings.layout import Layout
from workbench.embeddings.neighbors import arrays, checked, exact_rows, large_enough
from workbench.embeddings.umap_layout import principal_components

Initialization = Literal["pca", "pca-unscaled", "random"]


def tsne(
    features: xr.DataArray,
    graph: xr.Dataset | None,
    seed: int,
    *,
    components: int = 2,
    perplexity: float = 30.0,
    initialization: Initialization | np.ndarray = "pca",
    n_jobs: int | None = None,
    **options: Any,
) -> Layout:
    """t-SNE whose affinities come from the graph's nearest ``3 * perplexity`` neighbours."""
    values = checked(features)
    wanted = _wanted(perplexity, len(values))
    most = wanted if graph is None else graph.sizes["neighbor"]
    less = f", or perplexity={most // 3} or less"
    graph = large_enough(features, graph, wanted, f"perplexity={perplexity:g}", less)
    index, distance = arrays(graph, wanted)
    kept = {"values": values, "index": index, "distance": distance}
    if components > 2:  # interpolation on a grid serves two axes at most
        options = {"negative_gradient_method": "bh", **options}
    known = {"n_components": components, "perplexity": perplexity, "random_state": seed, **options}
    settings = {
        "options": {key: value for key, value in known.items() if not callable(value)},
        "metric": graph.attrs.get("metric", "euclidean"),
    }
    start = _start(values, initialization, seed, components)
    model = _model(len(values), {**known, "n_jobs": n_jobs})
    affinities = _affinities(kept, settings, model.n_jobs)
    embedding = model.fit(affinities=affinities, initialization=start)
    return Layout(np.array(embedding), kept, settings)


def tsne_place(layout: Layout, new: np.ndarray) -> np.ndarray:
    """Where the neighbours' medians are, then optimised one by one by openTSNE."""
    embedding = _embedding(layout)
    placed = np.asarray(embedding.transform(new))
    # To place samples, openTSNE centres its map anew: back into the frame that was drawn.
    return np.asarray(placed - (np.asarray(embedding) - layout.points).mean(axis=0))


def tsne_settle(layout: Layout) -> np.ndarray:
    """The points of a map that others have joined, after some more iterations."""
    embedding = _embedding(layout)
    return np.array(embedding.optimize(n_iter=SETTLE, momentum=0.5))


#: Iterations after samples were added: more move the old ones by over a hundredth of the width.
SETTLE = 50


def _embedding(layout: Layout) -> Any:
    """The library's own object for a map that is there."""
    model = _model(len(layout.points), layout.settings["options"])
    affinities = _affinities(layout.arrays, layout.settings, model.n_jobs)
    # It warns that the points are wider than a start should be.
    logging.getLogger("openTSNE.tsne").setLevel(logging.ERROR)
    points = np.asarray(layout.points, dtype=np.float64)
    return model.prepare_initial(affinities=affinities, initialization=points)


def _model(n: int, options: dict[str, Any]) -> Any:
    if options.get("n_jobs") is None:
        # The map is the same for any number of threads; below, handing out work costs more than
        # the work, five times as much where other programs want the cores too.
        options = {**options, "n_jobs": -1 if n >= 10_000 else 1}
    return need("openTSNE", extra="embeddings").TSNE(**options)


def _affinities(kept: dict[str, np.ndarray], settings: dict[str, Any], n_jobs: int) -> Any:
    affinity = need("openTSNE.affinity", extra="embeddings")
    perplexity = settings["options"]["perplexity"]
    index = _index(kept, settings["metric"])
    return affinity.PerplexityBasedNN(perplexity=perplexity, knn_index=index, n_jobs=n_jobs)


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


def _start(values: np.ndarray, initialization: Any, seed: int, count: int) -> np.ndarray:
    """The first positions.

    t-SNE's forces vanish with distance, so a start that is wide stays as it is: a lump. Principal
    components must be shrunk to a standard deviation of 1e-4 (Kobak and Berens 2019, Nature
    Communications 10:5416); ``"pca-unscaled"`` leaves them, to show what happens.
    """
    if not isinstance(initialization, str):
        return np.asarray(initialization, dtype=np.float64)
    noise = np.random.default_rng(seed).normal(scale=1e-4, size=(len(values), count))
    if initialization == "random":
        return noise
    if initialization not in ("pca", "pca-unscaled"):
        raise ValueError(
            f"initialization={initialization!r} is not known; it can be 'pca', 'pca-unscaled', "
            "'random' or an array"
        )
    start = principal_components(values, seed, count).astype(np.float64)
    if initialization == "pca-unscaled":
        return start
    width = start[:, 0].std()
    # Duplicates that start on one spot would stay there.
    return start / width * 1e-4 + noise * 1e-2 if width > 0 else noise


def _index(kept: dict[str, np.ndarray], metric: str) -> Any:
    """Dress the graph as openTSNE's search index; unseen samples are searched for exactly."""
    base = need("openTSNE.nearest_neighbors", extra="embeddings").KNNIndex
    values = kept["values"]

    class Graph(base):  # type: ignore[misc,valid-type]
        VALID_METRICS = (metric,)

        def build(self) -> tuple[np.ndarray, np.ndarray]:
            return kept["index"], kept["distance"]

        def query(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            index, distance = exact_rows(values, query, min(k, len(values)), metric)
            return index, distance.astype(np.float64)

    return Graph(values, kept["index"].shape[1], metric=metric)
