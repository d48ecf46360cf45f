"""What to label next: never a repeat, a clear end, and better than chance where it matters."""

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression

from workbench import datasets, embeddings
from workbench.labels import next_batch

METHODS = ("typical", "margin", "coverage", "random")


def blobs(n=60):
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0], [10, 0], [0, 10]])
    features = xr.DataArray(
        rng.normal(size=(n, 2)) + middles[np.arange(n) % 3],
        dims=("sample", "feature"),
        coords={"sample": [f"image {i}" for i in range(n)]},
    )
    return features, rng.dirichlet(np.ones(3), size=n)


class TestNextBatch:
    @pytest.mark.parametrize("method", METHODS)
    def test_goes_through_the_pool_without_a_repeat_to_a_clear_end(self, method):
        features, probabilities = blobs()
        labels, seen = np.full(60, -1), []
        while (labels < 0).any():
            ids = next_batch(features, labels, 12, method, probabilities=probabilities)
            assert len(ids) == 12
            seen += ids.tolist()
            labels[np.isin(features["sample"], ids)] = 0
        assert sorted(seen) == sorted(features["sample"].values.tolist())
        with pytest.raises(ValueError, match="all 60 samples have a label: the pool is used up"):
            next_batch(features, labels, 1, method, probabilities=probabilities)

    @pytest.mark.parametrize("method", METHODS)
    def test_says_when_fewer_are_left(self, method):
        features, probabilities = blobs()
        labels = np.where(np.arange(60) < 57, 0, -1)
        with pytest.warns(UserWarning, match="only 3 samples without a label are left, 5"):
            ids = next_batch(features, labels, 5, method, probabilities=probabilities)
        assert sorted(ids) == ["image 57", "image 58", "image 59"]

    def test_typical_visits_every_cluster_first_and_its_middle(self):
        features, _ = blobs()
        ids = next_batch(features, np.full(60, -1), 3)
        rows = np.flatnonzero(np.isin(features["sample"], ids))
        assert sorted(rows % 3) == [0, 1, 2]
        middles = np.array([features.values[i::3].mean(0) for i in range(3)])
        away = np.linalg.norm(features.values - middles[np.arange(60) % 3], axis=1)
        assert (away[rows] < np.median(away)).all()

    def test_typical_avoids_clusters_that_hold_a_label(self):
        features, _ = blobs()
        labels = np.where(np.arange(60) % 3 == 1, 0, -1)  # one blob is labelled altogether
        rows = np.flatnonzero(np.isin(features["sample"], next_batch(features, labels, 2)))
        assert 1 not in rows % 3

    def test_margin_takes_the_undecided(self):
        probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4]])
        found = next_batch(np.zeros((3, 1)), [-1, -1, -1], 2, "margin", probabilities=probabilities)
        assert found.tolist() == [1, 2]

    def test_coverage_goes_to_the_farthest_from_all_labels(self):
        found = next_batch([[0.0], [1.0], [5.0], [9.0]], [0, -1, -1, -1], 2, "coverage")
        assert found.tolist() == [3, 2]

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"method": "best"}, "method='best' is not one of typical"),
            ({"n": 0}, "n=0 must be 1 or more"),
            ({"method": "margin"}, "needs the probabilities="),
            ({"labels": [-1]}, "both must come from the same data"),
        ],
    )
    def test_errors(self, options, says):
        arguments = {"features": [[0.0], [1.0]], "labels": [-1, -1], "n": 1, **options}
        with pytest.raises(ValueError, match=says):
            next_batch(**arguments)


def test_twenty_typical_digits_are_worth_more_than_twenty_by_lot(real_data):
    """The pilot: .62 against .43 at 20 labels of MNIST; many seeds are in docs/benchmarks.md."""
    pool, test = (datasets.load("mnist", split=part, n=1500) for part in ("train", "test"))
    vectors = embeddings.features(pool, "pca", components=50)
    asked = embeddings.features(test).values

    def accuracy(method, seed):
        ids = next_batch(vectors, np.full(1500, -1), 20, method, seed=seed)
        learnt = pool.sel(sample=ids)
        model = LogisticRegression().fit(embeddings.features(learnt).values, learnt["label"])
        return model.score(asked, test["label"])

    typical, chance = ([accuracy(m, seed) for seed in range(5)] for m in ("typical", "random"))
    assert np.mean(typical) > np.mean(chance) + 0.08
