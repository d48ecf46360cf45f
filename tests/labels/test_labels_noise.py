"""Wrong labels made on purpose."""

import numpy as np
import pytest
import xarray as xr

from workbench.labels import inject_noise

TRUE = np.tile(np.arange(4), 500)
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(4), len(TRUE))


@pytest.mark.parametrize("kind", ["uniform", "pair", "confusion", "annotator"])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.4])
def test_the_rate_is_exact_and_the_truth_is_kept(kind, rate):
    noisy = inject_noise(TRUE, kind, rate, seed=1, probabilities=P)
    assert int(noisy.is_wrong.sum()) == round(rate * len(TRUE))
    np.testing.assert_array_equal(noisy.label_true, TRUE)
    np.testing.assert_array_equal(noisy.is_wrong, noisy.label != noisy.label_true)
    again = inject_noise(TRUE, kind, rate, seed=1, probabilities=P)
    np.testing.assert_array_equal(noisy.label, again.label)


def test_uniform_noise_reaches_every_other_class_equally():
    noisy = inject_noise(TRUE, "uniform", 0.6)
    shift = (noisy.label - noisy.label_true).values[noisy.is_wrong.values] % 4
    counts = np.bincount(shift, minlength=4)
    assert counts[0] == 0
    assert counts[1:].min() > 0.8 * counts[1:].max()


def test_pair_noise_goes_to_the_next_class():
    noisy = inject_noise(TRUE, "pair", 0.3)
    shift = (noisy.label - noisy.label_true).values % 4
    assert set(shift) == {0, 1}


def test_confusion_follows_the_confusion_matrix():
    # The model takes every other 0 for 3, and all else for what it is.
    p = np.eye(4)[TRUE]
    p[np.flatnonzero(TRUE == 0)[::2]] = np.eye(4)[3]
    noisy = inject_noise(TRUE, "confusion", 0.1, probabilities=p)
    wrong = noisy.isel(sample=noisy.is_wrong.values)
    assert set(wrong.label_true.values) == {0}
    assert set(wrong.label.values) == {3}
    with pytest.raises(ValueError, match="only 500 of 2000 samples"):
        inject_noise(TRUE, "confusion", 0.4, probabilities=p)


def test_annotators_err_on_hard_images_and_towards_likely_classes():
    p = np.full((len(TRUE), 4), 0.01)
    hard = np.arange(len(TRUE)) % 2 == 0
    p[np.arange(len(TRUE)), TRUE] = np.where(hard, 0.5, 0.97)
    p[hard, (TRUE[hard] + 1) % 4] = 0.48
    p /= p.sum(axis=1, keepdims=True)
    noisy = inject_noise(TRUE, "annotator", 0.2, probabilities=p)
    wrong = noisy.is_wrong.values
    assert wrong[hard].sum() > 5 * wrong[~hard].sum()
    shift = (noisy.label - noisy.label_true).values[wrong & hard] % 4
    assert (shift == 1).mean() > 0.9


def test_ids_are_kept():
    named = xr.DataArray([0, 1, 0, 1], dims="sample", coords={"sample": list("abcd")})
    assert inject_noise(named, rate=0.5)["sample"].values.tolist() == list("abcd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "random"}, "it can be one of uniform"),
        ({"rate": 1.0}, "rate=1.0"),
        ({"kind": "annotator"}, "needs the probabilities"),
        ({"kind": "confusion", "probabilities": P[:5]}, "5 samples and labels 2000"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        inject_noise(TRUE, **options)


def test_one_class_cannot_be_made_wrong():
    with pytest.raises(ValueError, match="one class"):
        inject_noise([0, 0, 0])
    assert inject_noise([0, 0, 0, 0], rate=0.5, classes=2).label.sum() == 2
