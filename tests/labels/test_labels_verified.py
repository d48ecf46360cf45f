"""The cut from verified labels, and other opinions on the ranking."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.neighbors import KNeighborsClassifier

from workbench import datasets, embeddings, labels


def f1(flags, wrong):
    return 2 * (flags & wrong).sum() / (flags.sum() + wrong.sum())


@pytest.fixture(scope="module")
def annotated():
    """Errors of an annotator on hard images, which probabilities alone hide."""
    ds = datasets.load("digits")
    vectors = embeddings.features(ds)
    clean = labels.out_of_fold(vectors, ds.label, progress=False)
    noisy = labels.inject_noise(ds.label, "annotator", 0.2, probabilities=clean)
    p = labels.out_of_fold(vectors, noisy.label, lambda: KNeighborsClassifier(10), progress=False)
    return ds.assign(label=noisy.label), labels.find_issues(noisy.label, p), noisy, p


def test_sixty_verdicts_move_the_cut_to_where_people_put_it(annotated):
    _, issues, noisy, p = annotated
    wrong = noisy.is_wrong.to_series()
    before = f1(issues.is_issue, wrong[issues.index])
    differs = f1(p.values.argmax(axis=1) != noisy.label.values, wrong.to_numpy())
    after = []
    for seed in range(5):
        ids = labels.audit_sample(issues, 60, seed)
        assert len(set(ids)) == 60
        found = labels.find_issues(noisy.label, p, verified=wrong[ids])
        assert found.attrs["verified"] == found.verified.sum() == 60
        assert (found.is_issue[ids] == wrong[ids]).all()
        after.append(f1(found.is_issue, wrong[found.index]))
    assert np.mean(after) > before + 0.05
    assert np.mean(after) > differs - 0.01


def test_the_review_asks_for_the_same_and_the_store_gives_the_verdicts(annotated, tmp_path):
    ds, issues, noisy, _ = annotated
    store = tmp_path / "review.db"
    truth = noisy.label_true.to_series()
    labels.review_batch(ds, issues, truth, store, audit=60, page=20, pages=3, progress=False)
    asked = labels.decisions(ds, store).index
    assert set(asked) == set(labels.audit_sample(issues, 60))
    found = labels.recut(issues, store)
    assert found.index[found.verified].sort_values().tolist() == sorted(asked)
    pd.testing.assert_frame_equal(found, labels.recut(issues, truth[asked].rename("label")))
    left = labels.review_batch(ds, found, truth, store, page=20, pages=1, progress=False)
    assert left.audited.iloc[-1] >= 60


def test_verdicts_that_are_all_alike_flag_no_more_than_before(annotated):
    _, issues, _, _ = annotated
    right = pd.Series(False, index=labels.audit_sample(issues, 60))
    found = labels.recut(issues, right)
    assert found.is_issue.sum() <= issues.is_issue.sum()
    assert not found.is_issue[right.index].any()


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        (pd.Series([], dtype=bool), "there is no verdict yet"),
        (pd.Series([True], index=[-7]), "1 of 1 verdicts are about samples that issues does not"),
    ],
)
def test_verdicts_on_nothing_are_refused(annotated, verdicts, message):
    with pytest.raises(ValueError, match=message):
        labels.recut(annotated[1], verdicts)
    with pytest.raises(ValueError, match="n=0 must be from 1 to the 1797"):
        labels.audit_sample(annotated[1], 0)


def test_a_second_opinion_is_weighed_in_by_rank():
    rng = np.random.default_rng(0)
    given = rng.integers(0, 3, 400)
    wrong = rng.random(400) < 0.1
    true = np.where(wrong, (given + 1) % 3, given)

    def model():
        p = rng.dirichlet(np.ones(3), 400) + 0.5 * np.eye(3)[true]
        return p / p.sum(axis=1, keepdims=True)

    first, second = model(), model()
    ids = np.arange(400) + 5
    named = xr.DataArray(given, dims="sample", coords={"sample": ids})
    alone = labels.find_issues(named, first)
    scores = pd.Series(1 - second[np.arange(400), given], index=ids)
    expected = labels.find_issues(named, first, opinions=[second])
    assert expected.is_issue.sum() == alone.is_issue.sum()
    bad = pd.Series(wrong, index=ids)
    assert f1(expected.is_issue, bad[expected.index]) > f1(alone.is_issue, bad[alone.index])
    for opinion in (scores.sample(frac=1, random_state=0), scores.to_numpy()):
        found = labels.find_issues(named, first, opinions=[opinion])
        assert found.index.tolist() == expected.index.tolist()
    graph = embeddings.neighbors(xr.DataArray(np.eye(3)[true], dims=("sample", "feature")), k=5)
    near = labels.find_issues(named, first, opinions=[graph])
    assert f1(near.is_issue, bad[near.index]) > f1(alone.is_issue, bad[alone.index])
    with pytest.raises(ValueError, match="an opinion holds NaN for 1 samples"):
        labels.find_issues(named, first, opinions=[scores.where(scores.index != 5)])
