"""Metrics without a matrix product: as scipy has them, on maps, in quality, for new samples."""

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import cdist

from workbench.embeddings import collisions, fit, neighbors, quality

NAMES = {"manhattan": "cityblock", "jaccard": "jaccard"}


def features(metric, n=120):
    values = np.random.default_rng(0).normal(size=(n, 12))
    if metric == "jaccard":
        values = (values > 0.5).astype(np.uint8)
    return xr.DataArray(values, dims=("sample", "feature"))


def brute(metric, table):
    values = table.values.astype(bool) if metric == "jaccard" else table.values
    return cdist(values, values, NAMES[metric])


@pytest.mark.parametrize("metric", NAMES)
def test_neighbours_are_brute_forces_and_so_are_those_of_its_distances(metric):
    table = features(metric)
    far = brute(metric, table)
    given = xr.DataArray(far, dims=("sample", "other"))
    graph = neighbors(table, k=7, metric=metric)
    same = neighbors(given, k=7, metric="precomputed")
    np.fill_diagonal(far, np.inf)
    np.testing.assert_allclose(graph["distance"], np.sort(far)[:, :7], rtol=1e-6)
    np.testing.assert_array_equal(same["distance"], graph["distance"])
    own = np.take_along_axis(far, graph["index"].values, axis=1)
    np.testing.assert_allclose(own, graph["distance"], rtol=1e-6)
    assert (graph.attrs["metric"], graph.attrs["exact"]) == (metric, 1)


@pytest.mark.parametrize("metric", NAMES)
@pytest.mark.parametrize(
    ("method", "options"),
    [("umap", {"n_epochs": 60}), ("tsne", {"perplexity": 5, "n_iter": 50})],
)
def test_maps_and_their_quality_follow_the_metric(metric, method, options):
    table = features(metric)
    graph = neighbors(table[:100], k=15, metric=metric)
    made = fit(table[:100], method, graph, **options)
    far = brute(metric, table)
    given = xr.DataArray(far[:, :100], dims=("sample", "other"))
    plain = neighbors(given[:100], k=15, metric="precomputed")
    measured = quality(table[:100], made.xy, graph, k=5)
    np.testing.assert_allclose(measured, quality(given[:100], made.xy, plain, k=5), atol=1e-6)
    more = made.add(table[100:])
    assert more.xy.shape == (120, 2)
    placed = fit(given[:100], method, plain, **options)
    assert placed.transform(given[100:]).shape == (20, 2)
    with pytest.raises(NotImplementedError, match="map of distances"):
        placed.add(given[100:])
    pairs = collisions(table[:100], made.xy, n=3, far=0, metric=metric)
    expected = far[pairs["first"], pairs["second"]]
    np.testing.assert_allclose(pairs["distance"], expected, rtol=1e-6)


def test_what_a_metric_cannot_take_is_refused():
    table = features("manhattan")
    with pytest.raises(ValueError, match="must be 0 or 1"):
        neighbors(table, k=3, metric="jaccard")
    with pytest.raises(ValueError, match=r"distances \(sample, sample\), 0 or more"):
        neighbors(table, k=3, metric="precomputed")
    with pytest.raises(ValueError, match="one of 'euclidean', 'cosine', 'manhattan'"):
        neighbors(table, k=3, metric="hamming")
