"""The same bytes whatever number of threads BLAS and OpenMP have."""

import numpy as np
import xarray as xr
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from workbench.embeddings import features, neighbors, project

SHORT = {
    "umap": {"n_epochs": 20},
    "tsne": {"perplexity": 5, "n_iter": 20, "early_exaggeration_iter": 20},
    "pca": {},
}


def test_components_graphs_and_maps_do_not_depend_on_threads():
    images = np.tile(load_digits().images, (1, 4, 4)).astype(np.uint8)[..., None]
    ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), images)})
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            reduced = features(ds, "pca", components=30)
            # Whole numbers, so that many neighbours are equally far.
            graph = neighbors(features(ds, scaled=False), k=15)
            maps = [project(reduced, m, graph, **given).values for m, given in SHORT.items()]
            found.append([reduced.values, graph["index"].values, *maps])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
