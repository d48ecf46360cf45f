"""The queue: cleanlab's columns are cleanlab's, the cut is better than either of its rivals."""

import json

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_normalized_margin_for_each_label, get_self_confidence_for_each_label
from sklearn.metrics import average_precision_score, f1_score

from workbench import datasets, embeddings, labels
from workbench.labels.noise_models import best_f1_cut, fit_class_model, fit_noise, smoothed, weighed


def simulated(n, transition, sharpness=3.0, seed=0):
    """Labels drawn from a known transition, and the probabilities of a calibrated model."""
    rng = np.random.default_rng(seed)
    k = len(transition)
    true = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), true] += sharpness
    p = np.exp(sharpness * logits / 2)
    p /= p.sum(axis=1, keepdims=True)
    given = (rng.random(n)[:, None] > transition[true].cumsum(axis=1)).sum(axis=1)
    return true, given, p


def uniform(k, rate):
    transition = np.full((k, k), rate / (k - 1))
    np.fill_diagonal(transition, 1 - rate)
    return transition


def f1s(true, given, p, issues):
    wrong = true != given
    flagged = {
        "ours": issues.is_issue.sort_index().to_numpy(),
        "cleanlab": issues.cleanlab_flag.sort_index().to_numpy(),
        "differs": p.argmax(axis=1) != given,
    }
    return {name: f1_score(wrong, flags) for name, flags in flagged.items()}


@pytest.fixture(scope="module")
def digits():
    ds = datasets.load("digits")
    return ds, embeddings.features(ds, "pixels")


def test_one_row_a_sample_worst_first_and_cleanlabs_scores_are_cleanlabs():
    _, given, p = simulated(400, uniform(5, 0.2))
    issues = labels.find_issues(given, p)
    assert issues.score.is_monotonic_decreasing
    assert issues.score.between(0, 1).all()
    assert sorted(issues.index) == list(range(400))
    back = issues.sort_index()
    np.testing.assert_array_equal(back.given, given)
    np.testing.assert_allclose(back.self_confidence, get_self_confidence_for_each_label(given, p))
    np.testing.assert_allclose(
        back.normalized_margin, get_normalized_margin_for_each_label(given, p)
    )
    np.testing.assert_array_equal(back.cleanlab_flag, find_label_issues(given, p, n_jobs=1))
    assert (issues.is_issue == (issues.score > issues.attrs["threshold"])).all()
    assert (issues.suggested != issues.given)[issues.is_issue].all()
    quiet = issues[~issues.is_issue]
    np.testing.assert_array_equal(quiet.suggested, p.argmax(axis=1)[quiet.index])


@pytest.mark.parametrize("k", [2, 3, 10, 60])
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_noise_by_class_is_cut_better_than_by_either_rival(k, rate):
    true, given, p = simulated(4000, uniform(k, rate), sharpness=2.5)
    found = f1s(true, given, p, labels.find_issues(given, p))
    assert found["ours"] >= max(found["cleanlab"], found["differs"]) - 0.01
    assert found["ours"] > np.mean([found["cleanlab"], found["differs"]])


@pytest.mark.parametrize("power", [0.4, 1.0, 3.0])
def test_neither_timid_nor_boastful_probabilities_mislead_it(power):
    true, given, p = simulated(4000, uniform(10, 0.15), sharpness=2.5)
    q = p**power / (p**power).sum(axis=1, keepdims=True)
    found = f1s(true, given, q, labels.find_issues(given, q))
    # Cubed, the probabilities no longer show what kind of noise it is: .691 against .703.
    assert found["ours"] >= max(found["cleanlab"], found["differs"]) - 0.015 * (power > 1)
    assert found["ours"] > np.mean([found["cleanlab"], found["differs"]])


def test_labels_drawn_from_the_probabilities_are_cut_where_the_prediction_differs():
    # An annotator who sees what the model sees: nothing in the labels contradicts p.
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(6, 0.15), 4000)
    true = p.argmax(axis=1)
    given = (rng.random(4000)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, 5)
    issues = labels.find_issues(given, p)
    assert issues.attrs["class_noise_evidence"] < 0.2
    found = f1s(true, given, p, issues)
    assert found["differs"] == 1
    assert found["ours"] > 0.95 > found["cleanlab"]


def test_heavy_pair_noise_that_the_model_learnt_is_seen_through():
    # p is the noisy distribution itself, blurred: for many samples its largest entry is wrong.
    rng = np.random.default_rng(0)
    transition = 0.6 * np.eye(5) + 0.4 * np.roll(np.eye(5), 1, axis=1)
    true = rng.integers(0, 5, 4000)
    given = (rng.random(4000)[:, None] > transition[true].cumsum(axis=1)).sum(axis=1)
    p = transition[true] * rng.lognormal(0, 0.5, (4000, 5)) + 0.02
    p /= p.sum(axis=1, keepdims=True)
    found = f1s(true, given, p, labels.find_issues(given, p))
    assert found["ours"] > max(found["cleanlab"], found["differs"]) + 0.1


def test_a_known_transition_is_recovered():
    transition = np.array([[0.7, 0.3, 0.0], [0.0, 0.9, 0.1], [0.05, 0.05, 0.9]])
    _, given, p = simulated(20_000, transition, sharpness=4)
    parts = weighed(smoothed(p), given)
    found = fit_class_model(parts, given, 3, calibrated=1.0).transition
    np.testing.assert_allclose(found, transition, atol=0.02)
    issues = labels.find_issues(given, p)
    assert len(json.dumps(issues.attrs)) < 2_000  # nothing of classes times classes
    worst = issues.attrs["noisiest_pairs"][0]
    assert (worst["true"], worst["given"]) == (0, 1)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4])
def test_the_number_of_errors_lies_between_its_ends(rate):
    true, given, p = simulated(5000, uniform(10, rate), sharpness=3)
    attrs = labels.find_issues(given, p).attrs
    wrong = np.count_nonzero(true != given)
    assert attrs["n_errors_low"] <= attrs["n_errors"] <= attrs["n_errors_high"]
    assert attrs["n_errors_low"] <= wrong + 5
    assert attrs["n_errors_high"] >= wrong
    if rate:
        assert attrs["n_errors"] == pytest.approx(wrong, rel=0.2)
    json.dumps(attrs)  # plain numbers, lists and dicts


def test_the_best_cut_is_the_best_of_all_cuts():
    rng = np.random.default_rng(0)
    wrong = rng.beta(0.3, 1, 200)
    cut = best_f1_cut(wrong)

    def expected(t):
        flagged = wrong >= t
        return 2 * wrong[flagged].sum() / (flagged.sum() + wrong.sum())

    assert expected(cut) == pytest.approx(max(expected(t) for t in wrong))


def test_blocks_do_not_change_what_comes_out(monkeypatch):
    _, given, p = simulated(500, uniform(4, 0.2))
    whole = labels.find_issues(given, p)
    monkeypatch.setattr("workbench.labels.probabilities.BLOCK", 4 * 130)
    parts = labels.find_issues(given, p)
    np.testing.assert_allclose(parts.score, whole.score)
    np.testing.assert_array_equal(parts.index, whole.index)
    assert parts.attrs["n_errors"] == pytest.approx(whole.attrs["n_errors"])


def test_large_tables_are_flagged_by_cleanlab_in_batches(monkeypatch):
    true, given, p = simulated(3000, uniform(4, 0.2))
    monkeypatch.setattr("workbench.labels.issues.BLOCK", 1)
    flags = labels.find_issues(given, p).cleanlab_flag.sort_index()
    assert f1_score(true != given, flags) > 0.9


def test_neighbours_bring_votes_loneliness_and_duplicates(digits):
    ds, features = digits
    ds, features = ds.isel(sample=slice(300)), features.isel(sample=slice(300))
    features = features.copy()
    features[7] = features[5].values
    given = ds["label"].values.copy()
    given[20] = (given[20] + 1) % 10
    graph = embeddings.neighbors(features, k=10)
    p = labels.out_of_fold(features, given, progress=False)
    issues = labels.find_issues(given, p, graph)
    row = issues.loc[ds["sample"].values[20]]
    assert row.neighbor_vote == ds["label"].values[20]
    twins = issues.loc[ds["sample"].values[[5, 7]], "duplicate_group"]
    assert twins.nunique() == 1
    assert twins.iloc[0] >= 0
    assert 0.5 < issues.ood_score.median() < 1.5
    alone = labels.find_issues(given, p)
    assert (alone.neighbor_vote == -1).all()
    assert alone.ood_score.isna().all()


def test_two_samples_one_label_and_classes_without_labels_have_a_result():
    pair = labels.find_issues([0, 1], [[0.9, 0.1], [0.2, 0.8]])
    assert not pair.is_issue.any()
    one = labels.find_issues([0, 0, 0], [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0]])
    assert one.index[0] == 2
    assert not one.cleanlab_flag.any()  # cleanlab refuses labels of one class
    assert one.attrs["warnings"] == ["class 1 is never given", "class 2 is never given"]
    never = labels.find_issues([0, 1, 1, 1], [[0.1, 0.9]] * 4)
    assert "class 0 is given 1 times and never predicted" in never.attrs["warnings"]


def test_rare_classes_are_named():
    rng = np.random.default_rng(0)
    given = rng.choice(3, 2000, p=[0.7, 0.295, 0.005])
    p = 0.8 * np.eye(3)[given] + 0.2 / 3
    (warning,) = labels.find_issues(given, p).attrs["warnings"]
    assert warning.startswith("class 2 has ")


def test_real_errors_of_mnist_are_ranked_as_well_as_by_cleanlab(real_data):
    folder = real_data / "label_errors"
    p = np.load(folder / "mnist_test_set_pyx.npy")
    given = datasets.load("mnist", split="test")["label"].values
    votes = json.loads((folder / "mnist_mturk.json").read_text())
    wrong = np.zeros(len(given), dtype=bool)
    for entry in votes:
        wrong[entry["id"]] = entry["mturk"]["given"] < 3
    assert wrong.sum() == 15
    issues = labels.find_issues(given, p).sort_index()
    ours = average_precision_score(wrong, issues.score)
    theirs = average_precision_score(wrong, -issues.normalized_margin)
    assert theirs == pytest.approx(0.507, abs=0.001)
    assert ours >= theirs - 0.002


def test_many_classes_are_cut_as_well_as_few():
    rng = np.random.default_rng(0)
    given = rng.integers(0, 300, 3000)
    logits = rng.normal(size=(3000, 300))
    logits[np.arange(3000), given] += 6
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    wrong = rng.random(3000) < 0.1
    given[wrong] = rng.integers(0, 300, wrong.sum())
    issues = labels.find_issues(given, p)
    assert f1_score(wrong, issues.is_issue.sort_index()) > 0.9
    assert len(json.dumps(issues.attrs)) < 30_000


def test_the_same_seed_gives_the_same_cut():
    _, given, p = simulated(7000, uniform(3, 0.1))
    one, same = labels.find_issues(given, p, seed=3), labels.find_issues(given, p, seed=3)
    np.testing.assert_array_equal(one.score, same.score)
    assert fit_noise(smoothed(p), given).threshold == pytest.approx(one.attrs["threshold"], abs=0.1)
