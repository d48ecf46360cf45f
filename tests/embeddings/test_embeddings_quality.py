"""Every measure against scikit-learn, zadu or SciPy; samples within their stated error."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from zadu.measures import trustworthiness_continuity

from workbench.embeddings import label_accuracy, neighbors, project, quality


def table(values, dim="feature"):
    return xr.DataArray(np.asarray(values), dims=("sample", dim))


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    # A little noise: whole-numbered pixels give equal distances, which others rank at will.
    x = x[:900] / 16 + np.random.default_rng(0).normal(scale=1e-4, size=(900, 64))
    features = table(x)
    return features, project(features, "pca", seed=0), xr.DataArray(y[:900], dims="sample")


@pytest.mark.parametrize("k", [5, 15])
def test_everything_against_the_references(digits, k):
    features, xy, labels = digits
    found = quality(features, xy, labels=labels, k=k, sample=900)
    value = found["value"]
    expected = trustworthiness(features.values, xy.values, n_neighbors=k)
    assert value["trustworthiness"] == pytest.approx(expected, abs=1e-6)
    theirs = trustworthiness_continuity.measure(features.values, xy.values.astype(float), k=k)
    assert value["trustworthiness"] == pytest.approx(theirs["trustworthiness"], abs=1e-6)
    assert value["continuity"] == pytest.approx(theirs["continuity"], abs=1e-6)
    near, flat = neighbors(features, k=k), neighbors(xy, k=k)
    kept = (near.index.values[:, :, None] == flat.index.values[:, None, :]).any(2).mean()
    assert value["neighbor_recall"] == pytest.approx(kept, abs=1e-9)
    rho = spearmanr(pdist(features.values), pdist(xy.values)).statistic
    assert value["rank_correlation"] == pytest.approx(rho, abs=1e-6)
    assert value["label_accuracy"] == pytest.approx(label_accuracy(flat, labels))
    assert value["label_accuracy_original"] == pytest.approx(label_accuracy(near, labels))
    assert (found["error"] == 0).all()
    assert found["n"].tolist() == [900, 900, 900, 900 * 899 // 2, 900, 900]


@pytest.mark.long
def test_samples_agree_with_the_whole_within_their_errors(digits):
    features, xy, labels = digits
    whole = quality(features, xy, labels=labels, sample=900)["value"]
    ratios = []
    for seed in range(20):
        drawn = quality(features, xy, labels=labels, sample=150, seed=seed)
        rows = ["trustworthiness", "continuity", "neighbor_recall", "label_accuracy_original"]
        ratios.append(((drawn["value"] - whole) / drawn["error"])[rows])
        assert (drawn.loc[rows, "n"] == 150).all()
    # Errors that are right make these ratios standard normal.
    assert 0.7 < np.std(ratios) < 1.3
    assert abs(np.mean(ratios)) < 0.4


def test_a_graph_gives_the_metric_and_the_original_accuracy_of_all(digits):
    features, xy, labels = digits
    graph = neighbors(features + 1, k=20, metric="cosine")
    found = quality(features + 1, xy, graph, labels, k=15, sample=100)
    assert found.loc["label_accuracy_original", "n"] == 900
    near = graph.isel(neighbor=slice(15))
    expected = label_accuracy(near, labels)
    assert found.loc["label_accuracy_original", "value"] == pytest.approx(expected)
    directions = (features + 1) / np.linalg.norm(features + 1, axis=1, keepdims=True)
    unit = quality(directions, xy, k=15, sample=100)
    assert found.loc["trustworthiness", "value"] == pytest.approx(
        unit.loc["trustworthiness", "value"], abs=1e-6
    )


def test_a_perfect_map_and_a_random_one():
    flat = np.random.default_rng(0).normal(size=(400, 2))
    perfect = quality(table(flat), table(flat * 7, "axis"))["value"]
    np.testing.assert_allclose(perfect, 1)
    random = quality(table(flat), table(np.random.default_rng(1).normal(size=(400, 2)), "axis"))
    assert random.loc["trustworthiness", "value"] == pytest.approx(0.5, abs=0.05)
    assert abs(random.loc["rank_correlation", "value"]) < 0.1


def test_memory_is_far_below_all_pairs():
    rng = np.random.default_rng(0)
    features, xy = table(rng.normal(size=(20_000, 8)).astype(np.float32)), None
    xy = table(features.values[:, :2].copy(), "axis")
    tracemalloc.start()
    quality(features, xy, sample=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500e6 < 20_000**2 * 4


def test_one_class_no_labels_and_constant_features_are_defined():
    features = table(np.random.default_rng(0).normal(size=(60, 4)))
    one = quality(features, features[:, :2], labels=xr.DataArray(np.zeros(60, int), dims="sample"))
    assert one.loc["label_accuracy", "value"] == 1
    none = quality(features, features[:, :2], labels=xr.DataArray(np.full(60, -1), dims="sample"))
    assert np.isnan(none.loc["label_accuracy", "value"])
    assert none.loc["label_accuracy", "n"] == 0
    same = quality(table(np.ones((60, 4))), features[:, :2])
    assert np.isnan(same.loc["rank_correlation", "value"])
    assert np.isfinite(same.loc["trustworthiness", "value"])


def test_errors(digits):
    features, xy, labels = digits
    with pytest.raises(ValueError, match="the points hold 800 samples"):
        quality(features, xy[:800])
    with pytest.raises(ValueError, match="labels hold 10 samples"):
        quality(features, xy, labels=labels[:10])
    with pytest.raises(ValueError, match="k=15 must lie between 1 and 9"):
        quality(features[:20], xy[:20])
    with pytest.raises(ValueError, match="sample=0"):
        quality(features, xy, sample=0)
    with pytest.raises(TypeError, match="Dataset"):
        quality(features.to_dataset(name="image"), xy)
