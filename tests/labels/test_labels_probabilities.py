"""Every sample is predicted by a model that never saw it."""

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from workbench import embeddings, labels
from workbench.datasets import load
from workbench.labels import out_of_fold
from workbench.models.augmentation import Recipe


def rows(values):
    return xr.DataArray(np.asarray(values, dtype=float), dims=("sample", "feature"))


def test_logistic_is_sklearns_cross_validation():
    x, y = load_digits(return_X_y=True)
    x, y = x[:300], y[:300]
    ours = out_of_fold(rows(x), y, folds=3, seed=4, progress=False)
    theirs = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200)),
        x, y, cv=StratifiedKFold(3, shuffle=True, random_state=4), method="predict_proba",
    )  # fmt: skip
    np.testing.assert_allclose(ours, theirs)
    assert ours.attrs["accuracy"] == pytest.approx((theirs.argmax(1) == y).mean(), abs=1e-4)


def test_no_sample_sees_its_own_label():
    # Random labels: the nearest neighbour of a sample that was seen would be itself.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 3)), rng.integers(0, 2, 400)
    found = out_of_fold(rows(x), y, lambda: KNeighborsClassifier(1), progress=False)
    assert 0.4 < found.attrs["accuracy"] < 0.6


RECIPE = Recipe(epochs=20, batch_size=16, peak_rate=0.1, shift=0, flip=False)


def network(outputs=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))


@pytest.fixture(scope="module")
def images():
    ds = load("digits", n=120)
    return ds.assign(image=ds["image"].astype(np.uint8))


def test_a_network_is_trained_on_images_and_the_seed_fixes_all_of_it(images):
    options = {"folds": 2, "recipe": RECIPE, "progress": False}
    found = out_of_fold(images, images["label"], network, **options)
    assert found.attrs["accuracy"] > 0.5
    np.testing.assert_allclose(found.sum("class"), 1)
    np.testing.assert_array_equal(found["sample"], images["sample"])
    torch.rand(3)  # what others drew before does not matter
    again = out_of_fold(images, images["label"], network, **options)
    np.testing.assert_array_equal(again, found)


def test_a_network_that_would_see_its_own_answers_is_refused(images):
    one = network()
    with pytest.raises(ValueError, match="the same network each time"):
        out_of_fold(images, images["label"], lambda: one, folds=2, recipe=RECIPE, progress=False)


def test_a_network_with_other_outputs_is_refused(images):
    with pytest.raises(ValueError, match="the network has 7 outputs for 10 classes"):
        out_of_fold(images, images["label"], lambda: network(7), folds=2, progress=False)


def test_copies_come_to_lie_in_one_part():
    digits = load("digits")
    rng = np.random.default_rng(1)
    pixels = digits.image.values.reshape(digits.sizes["sample"], -1).astype(float)
    bad = rng.choice(len(pixels), 100, replace=False)
    noisy = digits.label.values.copy()
    noisy[bad] = (noisy[bad] + rng.integers(1, 10, 100)) % 10
    rows = np.r_[np.arange(len(pixels)), np.tile(bad, 4)]
    wrong = np.isin(rows, bad)
    features = xr.DataArray(pixels[rows], dims=("sample", "feature"))

    def recall(**options):
        p = out_of_fold(features, noisy[rows], KNeighborsClassifier, progress=False, **options)
        table = labels.find_issues(noisy[rows], p).sort_index()
        return table.is_issue.to_numpy()[wrong].mean()

    assert recall() < 0.6
    assert recall(groups=rows) > 0.9
    assert recall(neighbors=embeddings.neighbors(features, k=10)) > 0.9


def test_groups_do_not_change_folds_where_there_are_none():
    features = xr.DataArray(
        np.random.default_rng(0).normal(size=(40, 3)), dims=("sample", "feature")
    )
    given = np.tile([0, 1], 20)
    plain = out_of_fold(features, given, progress=False)
    alone = out_of_fold(features, given, groups=np.full(40, -1), progress=False)
    np.testing.assert_array_equal(plain, alone)
    with pytest.raises(ValueError, match="class 1 has one member only, or one group"):
        out_of_fold(features, given, groups=np.where(given == 1, 7, -1), progress=False)


def test_images_serve_as_features():
    ds = load("digits", n=200)
    assert out_of_fold(ds, ds["label"], folds=2, progress=False).attrs["accuracy"] > 0.8


def test_a_class_that_is_never_given_has_probability_0():
    found = out_of_fold(
        rows([[0], [1], [5], [6]]), [0, 0, 2, 2], folds=2, classes=4, progress=False
    )
    assert found.shape == (4, 4)
    assert not found.values[:, [1, 3]].any()


def test_a_class_smaller_than_the_folds_is_served():
    x = rows(np.r_[np.zeros(9), 5.0, 5.1][:, None])
    found = out_of_fold(x, [0] * 9 + [1, 1], folds=5, progress=False)
    assert (found.values[9:, 1] > found.values[:9, 1].max()).all()


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 0, 0, 0], {}, "all 4 labels are class 0"),
        ([0, 0, 0, 1], {}, "class 1 has one member only"),
        ([0, 0, 1, 1], {"folds": 1}, "folds=1"),
        ([0, 1], {}, "labels hold 2 samples and features 4"),
        ([0, 0, 1, 7], {"classes": 2}, "the first is 7"),
    ],
)
def test_what_cannot_be_learnt_is_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        out_of_fold(rows([[0], [1], [2], [3]]), labels, progress=False, **options)


def test_models_of_another_kind_are_refused():
    x = rows([[0], [1], [2], [3]])
    cases = [
        (dict, "must make a torch module or a classifier"),
        (lambda: nn.Linear(1, 2), "trained on images"),
        (nn.Linear(1, 2), "a Linear itself"),
        (LogisticRegression(), "a LogisticRegression itself"),
        ("forest", "model is 'forest'; give 'logistic'"),
    ]
    for model, message in cases:
        with pytest.raises(TypeError, match=message):
            out_of_fold(x, [0, 0, 1, 1], model, folds=2, progress=False)
    with pytest.raises(TypeError, match="features are a ndarray"):
        out_of_fold(x.values, [0, 0, 1, 1], folds=2, progress=False)
