"""Votes, label accuracy and outliers."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from workbench.embeddings import label_accuracy, mixing, neighbor_votes, neighbors, outliers


def graph(index, distance=None):
    index = np.asarray(index)
    distance = np.ones(index.shape) if distance is None else np.asarray(distance, float)
    dims = ("sample", "neighbor")
    return xr.Dataset({"index": (dims, index), "distance": (dims, distance)})


def labels(values):
    return xr.DataArray(np.asarray(values, dtype=np.int64), dims="sample")


def test_label_accuracy_is_that_of_sklearns_leave_one_out_knn():
    x, y = load_digits(return_X_y=True)
    x, y = x[:300], y[:300]
    ours = label_accuracy(neighbors(xr.DataArray(x, dims=("sample", "feature")), k=1), labels(y))
    theirs = cross_val_score(
        KNeighborsClassifier(1, algorithm="kd_tree"), x, y, cv=LeaveOneOut()
    ).mean()
    assert ours == pytest.approx(theirs)


def test_majority_wins_and_nearer_votes_break_ties():
    votes = neighbor_votes(graph([[1, 2, 3], [2, 3, 0], [3, 0, 1], [0, 1, 2]]),
                           labels([0, 1, 1, 2]))  # fmt: skip
    assert votes.vote.values.tolist() == [1, 1, 2, 1]  # the third: one vote each, 2 is nearest
    np.testing.assert_allclose(votes.agreement, [0, 1 / 3, 1 / 3, 0])


def test_a_majority_is_never_outvoted_by_nearness():
    rng = np.random.default_rng(0)
    own = rng.integers(0, 3, 50)
    index = np.array([rng.permutation(50)[:15] for _ in range(50)])
    vote = neighbor_votes(graph(index), labels(own)).vote.values
    for row, winner in zip(own[index], vote, strict=True):
        counts = np.bincount(row, minlength=3)
        assert counts[winner] == counts.max()


def test_unlabelled_samples_do_not_vote_and_are_not_scored():
    votes = neighbor_votes(graph([[1, 2], [2, 0], [0, 1]]), labels([-1, -1, 5]))
    assert votes.vote.values.tolist() == [5, 5, -1]
    assert np.isnan(votes.agreement.values).all()
    assert np.isnan(label_accuracy(graph([[1], [0]]), labels([-1, -1])))


def test_labels_of_other_samples_or_below_minus_one_are_refused():
    with pytest.raises(ValueError, match="labels hold 3 samples and the graph 2"):
        neighbor_votes(graph([[1], [0]]), labels([1, 2, 3]))
    with pytest.raises(ValueError, match="-7"):
        neighbor_votes(graph([[1], [0]]), labels([1, -7]))


def test_a_far_point_is_isolated_and_a_planted_outlier_is_found():
    rng = np.random.default_rng(1)
    points = np.vstack([rng.normal(0, 1, (50, 2)), rng.normal(20, 1, (50, 2)), [[60.0, 60.0]]])
    own = np.repeat([0, 1], [50, 51])
    own[7] = 1
    found = outliers(neighbors(xr.DataArray(points, dims=("sample", "axis")), k=8), labels(own))
    assert int(found.isolation.values.argmax()) == 100
    assert np.flatnonzero(found.outlier.values).tolist() == [7]
    assert found.vote.values[7] == 0


def test_duplicates_have_isolation_one_and_density_does_not_matter():
    same = outliers(graph([[1], [0]], [[0.0], [0.0]]))
    assert same.isolation.values.tolist() == [1.0, 1.0]
    rng = np.random.default_rng(0)
    points = xr.DataArray(rng.normal(size=(200, 2)), dims=("sample", "axis"))
    small, large = (outliers(neighbors(points * scale, k=5)).isolation for scale in (1, 1000))
    np.testing.assert_allclose(small, large, rtol=1e-4)


def test_twenty_thousand_classes_take_no_more_memory_than_two():
    rng = np.random.default_rng(0)
    index = rng.integers(0, 20_000, (20_000, 15))
    own = rng.permutation(20_000)
    tracemalloc.start()
    vote = neighbor_votes(graph(index), labels(own)).vote.values
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # one column a class and block would take 650 MB
    # Each label is there once, so that the nearest of the most frequent neighbours has it.
    expected = [max(row, key=lambda one: (list(row).count(one), -list(row).index(one)))
                for row in index[:500].tolist()]  # fmt: skip
    once = np.array([len(set(row)) == 15 for row in index[:500].tolist()])
    np.testing.assert_array_equal(vote[:500][once], own[np.array(expected)][once])


@pytest.mark.parametrize("take", [neighbor_votes, mixing, outliers])
def test_a_graph_with_a_missing_neighbour_is_refused(take):
    with pytest.raises(ValueError, match="holds -1, which is none of 3 samples"):
        take(graph([[1], [2], [-1]]), labels([0, 0, 1]))
