"""The approximate graph: its recall, its repeatability, and when it is chosen."""

from importlib import import_module

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import make_blobs

from workbench.embeddings import neighbors, project

search = import_module("workbench.embeddings.neighbors")  # its name is the function's too


def table(values):
    return xr.DataArray(np.asarray(values, dtype=np.float32), dims=("sample", "feature"))


@pytest.fixture(scope="module")
def blobs():
    values, _ = make_blobs(4000, 40, centers=30, cluster_std=2.0, random_state=0)
    return table(values)


def recall(graph, truth):
    found = (graph.index.values[:, :, None] == truth.index.values[:, None, :]).any(axis=2)
    return found.mean()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_finds_almost_all_and_says_how_many(blobs, metric):
    truth = neighbors(blobs, k=10, metric=metric, exact=True)
    graph = neighbors(blobs, k=10, metric=metric, exact=False)
    assert (truth.attrs["exact"], truth.attrs["method"], truth.attrs["recall"]) == (1, "flat", 1.0)
    assert (graph.attrs["exact"], graph.attrs["method"]) == (0, "pca + ivf")
    assert recall(graph, truth) >= 0.95
    assert graph.attrs["recall"] == pytest.approx(recall(graph, truth), abs=0.03)
    assert not (graph.index.values == np.arange(4000)[:, None]).any()


def test_repeats_for_a_seed(blobs):
    first, again = (neighbors(blobs, k=5, exact=False, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.index, again.index)
    np.testing.assert_array_equal(first.distance, again.distance)


def test_a_search_that_misses_too_much_looks_wider_and_at_last_exactly(blobs, monkeypatch):
    truth = neighbors(blobs, k=10, exact=True)
    efforts = search.__dict__["_EFFORTS"]
    monkeypatch.setattr(search, "_EFFORTS", ((2, 1), *efforts))
    assert recall(neighbors(blobs, k=10, exact=False), truth) >= 0.95
    monkeypatch.setattr(search, "_EFFORTS", ((2, 1),))
    with pytest.warns(UserWarning, match="searching exactly instead"):
        graph = neighbors(blobs, k=10, exact=False)
    assert graph.attrs["exact"] == 1
    assert recall(graph, truth) == 1


def test_the_predicted_cost_decides(blobs, monkeypatch):
    assert neighbors(blobs, k=5).attrs["exact"] == 1
    monkeypatch.setattr(search, "_ROW_COST", 1e5)
    monkeypatch.setattr(search, "_FEATURE_COST", 0)
    assert neighbors(blobs, k=5).attrs["exact"] == 0


def test_distances_of_near_duplicates_survive_float32():
    """Far from the origin ``|x|^2 + |y|^2 - 2xy`` has lost distances this small."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(100, 50)) + 1000.0
    values = np.repeat(base, 2, axis=0)
    values[1::2, 0] += 1e-3
    graph = neighbors(xr.DataArray(values, dims=("sample", "feature")), k=1)
    np.testing.assert_array_equal(graph.index.values.ravel(), np.arange(200) ^ 1)
    np.testing.assert_allclose(graph.distance, 1e-3, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_values_neither_vanish_nor_overflow(scale):
    values = np.random.default_rng(0).normal(size=(30, 6))
    plain = neighbors(xr.DataArray(values, dims=("sample", "feature")), k=4)
    for metric in ("euclidean", "cosine"):
        scaled = neighbors(xr.DataArray(values * scale, dims=("sample", "feature")), 4, metric)
        if metric == "euclidean":
            np.testing.assert_array_equal(scaled.index, plain.index)
        assert np.isfinite(scaled.distance).all()


def test_constant_features_and_integers_have_defined_neighbours():
    graph = neighbors(table(np.ones((20, 5))), k=3)
    assert (graph.distance.values == 0).all()
    assert not (graph.index.values == np.arange(20)[:, None]).any()
    whole = xr.DataArray(np.arange(40, dtype=np.uint8).reshape(8, 5), dims=("sample", "feature"))
    np.testing.assert_allclose(neighbors(whole, k=1).distance, 5 * np.sqrt(5))


def test_a_dataset_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r"embeddings\.features\(ds\)"):
        neighbors(table(np.eye(3)).to_dataset(name="image"), k=1)


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_few_samples_are_searched_too(n):
    values = table(np.random.default_rng(n).normal(size=(n, 6)))
    truth = neighbors(values, k=n - 1, exact=True)
    np.testing.assert_array_equal(neighbors(values, k=n - 1, exact=False).index, truth.index)


def test_unseen_rows_of_zeros_have_no_cosine():
    with pytest.raises(ValueError, match="no direction"):
        search.exact_rows(np.eye(3), np.zeros((1, 3)), 1, "cosine")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_torch_finds_the_same_neighbours(blobs, metric):
    """On the processor here; the same code runs on a GPU."""
    truth = neighbors(blobs, k=10, metric=metric, exact=True)
    index, distance = search.device_graph(blobs.values, 10, metric, "cpu")
    np.testing.assert_array_equal(index, truth.index)
    np.testing.assert_allclose(distance, truth.distance, rtol=1e-4)


def test_a_placeholder_for_missing_values_is_refused_by_its_feature(blobs):
    holed = blobs.copy()
    holed[::50, 7] = 3.4e38
    with pytest.raises(ValueError, match=r"such as feature 7: 3\.4e\+38 in 80 of 4000 rows"):
        neighbors(holed, k=5)


def test_features_of_very_different_sizes_are_searched_in_float64():
    """Recall is measured in float64, so that it cannot be wrong in the way of the search."""
    mixed = np.random.default_rng(0).normal(size=(2000, 100))
    mixed[::50, 7] = -1e6
    with pytest.warns(UserWarning, match="searching in float64 instead"):
        graph = neighbors(xr.DataArray(mixed, dims=("sample", "feature")), k=5, exact=True)
    assert graph.attrs["recall"] >= 0.99
    squared = ((mixed[1:4, None] - mixed[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(graph.distance[1:4], np.sqrt(np.sort(squared)[:, 1:6]), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda graph: graph.index.values.__setitem__((3, 2), -1), "-1, which is none of 60"),
        (lambda graph: graph.distance.values.__setitem__((3, 2), 0.0), "nearest first"),
    ],
)
def test_what_is_no_graph_is_refused(change, message):
    points = table(np.random.default_rng(0).normal(size=(60, 5)))
    graph = neighbors(points, k=14)
    change(graph)
    with pytest.raises(ValueError, match=message):
        project(points, neighbors=graph)
