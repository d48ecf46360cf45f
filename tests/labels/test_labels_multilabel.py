"""Several labels an image: wrong, missing and strange ones, against known errors and cleanlab."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from cleanlab.count import compute_confident_joint
from cleanlab.multilabel_classification.filter import find_label_issues
from cleanlab.multilabel_classification.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss
from sklearn.model_selection import KFold

from workbench import datasets, labels


def simulated(n=1500, k=4, wrong=0.03, missing=0.03, seed=0):
    """Labels of which some are too many and some too few, and the probabilities of a model."""
    rng = np.random.default_rng(seed)
    true = rng.random((n, k)) < 0.4
    logits = 2.5 * (2 * true - 1) + rng.normal(size=(n, k)) * 1.2
    lot = rng.random((n, k))
    given = np.where(true, lot >= missing, lot < wrong)
    return true, given, 1 / (1 + np.exp(-1.7 * logits))


TRUE, GIVEN, P = simulated()
LISTS = [np.flatnonzero(row).tolist() for row in GIVEN]


@pytest.fixture(scope="module")
def issues():
    return labels.find_multilabel_issues(GIVEN, P)


def test_scores_and_flags_are_cleanlabs(issues):
    back = issues.sort_index()
    for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        np.testing.assert_allclose(back[method], get_label_quality_scores(LISTS, P, method=method))
    for name in ("prune_by_noise_rate", "confident_learning", "predicted_neq_given"):
        np.testing.assert_array_equal(
            back[f"flag_{name}"], find_label_issues(LISTS, P, filter_by=name, n_jobs=1)
        )


def test_wrong_and_missing_labels_are_told_apart_and_better_than_by_one_score(issues):
    wrong, missing = (GIVEN & ~TRUE)[issues.index], (TRUE & ~GIVEN)[issues.index]
    for flags, score in ((wrong, issues.wrong_score), (missing, issues.missing_score)):
        ours = average_precision_score(flags.any(axis=1), score)
        assert ours > 0.6
        assert ours > average_precision_score(flags.any(axis=1), -issues.self_confidence)
    named = [(row, k) for row, found in enumerate(issues.missing) for k in found]
    right = np.mean([missing[row, k] for row, k in named])
    assert right > 0.6
    assert len(named) > 0.4 * missing.sum()


def test_what_is_named_is_given_if_wrong_and_not_if_missing(issues):
    for row in issues.itertuples():
        assert set(row.wrong) <= set(row.given)
        assert not set(row.missing) & set(row.given)
        assert bool(row.wrong or row.missing) == row.is_issue


def test_the_joint_is_cleanlabs_one_versus_rest():
    joint = labels.multilabel_joint(xr.DataArray(GIVEN, dims=("sample", "class")), P)
    np.testing.assert_array_equal(joint, compute_confident_joint(LISTS, P, multi_label=True))
    assert joint.dims == ("class", "given", "true")
    np.testing.assert_array_equal(joint.sum("true").sel(given=1), GIVEN.sum(axis=0))


def test_independent_classes_leave_no_error_in_the_joint():
    # A table of class against class would be full of co-occurrences here.
    true, _, p = simulated(wrong=0, missing=0)
    joint = labels.multilabel_joint(true, p)
    errors = joint.sel(given=0, true=1) + joint.sel(given=1, true=0)
    assert float(errors.sum()) < 0.01 * true.size


def test_loss_is_cross_entropy():
    ours = labels.losses(GIVEN, P)
    np.testing.assert_allclose(
        ours[:5],
        [log_loss(g.astype(int), p, labels=[0, 1]) for g, p in zip(GIVEN[:5], P[:5], strict=True)],
    )
    assert labels.losses([1], [[0.25, 0.75]])[0] == pytest.approx(-np.log(0.75))


def test_agreement_is_the_jaccard_index():
    flags = pd.DataFrame({"a": [1, 1, 0, 0], "b": [1, 0, 1, 0], "none": [0, 0, 0, 0]}).astype(bool)
    found = labels.method_agreement(flags)
    assert found.loc["a", "b"] == pytest.approx(1 / 3)
    assert found.loc["a", "a"] == 1
    assert np.isnan(found.loc["none", "none"])


def test_no_sample_is_judged_by_a_model_that_saw_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 3))
    given = np.column_stack([x[:, 0] > 0, x[:, 1] > 0.5])
    features = xr.DataArray(x, dims=("sample", "feature"))
    found = labels.multilabel_out_of_fold(
        features, given, LogisticRegression, folds=3, seed=5, progress=False
    )
    for train, test in KFold(3, shuffle=True, random_state=5).split(x):
        for k in range(2):
            expected = LogisticRegression().fit(x[train], given[train, k]).predict_proba(x[test])
            np.testing.assert_allclose(found.values[test, k], expected[:, 1])


def test_a_class_that_nothing_has_is_no_trouble():
    given = np.column_stack([GIVEN[:40, 0], np.zeros(40, dtype=bool)])
    x = xr.DataArray(P[:40], dims=("sample", "feature"))
    found = labels.multilabel_out_of_fold(x, given, folds=2, progress=False)
    assert not found.values[:, 1].any()
    assert len(labels.find_multilabel_issues(given, found)) == 40


@pytest.mark.parametrize(
    ("given", "p", "message"),
    [
        ([[0, 2]], [[0.1, 0.2]], "position 0 holds 2"),
        ([0, 1], [[0.1, 0.2]] * 2, "shape"),
        ([[0, 1]], [[0.1, np.nan]], "NaN or values outside"),
        ([[0, 1]], [[0.1, 1.2]], "first at position 0"),
        ([[0, 1]], [[0.1, 0.2, 0.3]], r"\(1, 2\), probabilities of shape \(1, 3\)"),
        ([[0, 1]], [[0.1, 0.2]] * 2, "for 2 samples"),
    ],
)
def test_what_is_no_label_or_probability_is_refused(given, p, message):
    with pytest.raises(ValueError, match=message):
        labels.find_multilabel_issues(given, p)


def test_scenes_hold_what_their_true_labels_say_and_the_errors_that_were_asked_for():
    ds = datasets.load("digits")
    scenes = labels.compose_scenes(ds, 400, wrong=0.1, missing=0.1, out=0.05, seed=3)
    kind, given, true = scenes.kind.values, scenes.labels.values, scenes.labels_true.values
    counts = {name: int((kind == name).sum()) for name in np.unique(kind)}
    assert counts == {"right": 300, "wrong": 40, "missing": 40, "out of distribution": 20}
    assert (given == true)[kind == "right"].all()
    assert ((given & ~true).sum(axis=1) == 1)[kind == "wrong"].all()
    assert ((true & ~given).sum(axis=1) == 1)[kind == "missing"].all()
    assert not true[kind == "out of distribution"].any()
    tiles = scenes.image.values[..., 0].reshape(400, 2, 8, 3, 8).transpose(0, 1, 3, 2, 4)
    filled = tiles.reshape(400, 6, 64).any(axis=2).sum(axis=1)
    np.testing.assert_array_equal(filled, np.where(true.any(axis=1), true.sum(axis=1), 2))
    # Each tile is one of the digits, of a class that the scene has.
    known = {image.tobytes(): label for image, label in zip(
        ds.image.values[..., 0], ds.label.values, strict=True)}  # fmt: skip
    for scene, present in zip(tiles[:50].reshape(50, 6, 8, 8), true[:50], strict=True):
        shown = {known[tile.tobytes()] for tile in scene if tile.any()}
        assert shown == set(np.flatnonzero(present)) or (not present.any() and min(shown) > 5)


def test_scenes_need_strangers():
    with pytest.raises(ValueError, match="classes=10: from 2 to 9"):
        labels.compose_scenes(datasets.load("digits"), 10, classes=10)


def test_right_labels_are_not_flagged_and_a_class_that_nobody_has_flags_nothing():
    given = np.random.default_rng(0).random((200, 3)) < [0.5, 0.3, 0.1]
    for p in (np.where(given, 0.95, 0.05), np.where(given, 0.7, 0.3)):
        assert not labels.find_multilabel_issues(given, p).is_issue.any()
    never = np.column_stack([given, np.zeros(200, bool)])
    p = np.column_stack([np.where(given, 0.9, 0.1), np.full(200, 0.2)])
    assert not labels.find_multilabel_issues(never, p).is_issue.any()
    p[7, 3] = 0.9
    found = labels.find_multilabel_issues(never, p)
    assert found.index[found.is_issue].tolist() == [7]
    assert found.loc[7, "missing"] == (3,)


def test_samples_and_classes_in_another_order_are_aligned():
    def named(values, ids):
        return xr.DataArray(values, dims=("sample", "class"), coords={"sample": ids})

    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.9]])
    given = named(p > 0.5, ["a", "b", "c"]).assign_coords({"class": ["x", "y"]})
    turned = named(p, ["a", "b", "c"]).assign_coords({"class": ["x", "y"]})[::-1, ::-1]
    assert not labels.find_multilabel_issues(given, turned).is_issue.any()
    with pytest.raises(ValueError, match="1 of 3 ids of labels are not among"):
        labels.find_multilabel_issues(given, turned.assign_coords(sample=["c", "b", "z"]))
