import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from workbench import datasets
from workbench.datasets.dataset import choose

counts = st.lists(st.integers(1, 60), min_size=1, max_size=8)


def labelled(counts: list[int]) -> np.ndarray:
    label = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(label)


@given(counts=counts, data=st.data(), seed=st.integers(0, 2**32))
def test_draw_is_exact_unique_sorted_proportional_and_repeatable(counts, data, seed):
    label = labelled(counts)
    n = data.draw(st.integers(1, len(label)))
    chosen = choose(label, len(label), n, seed)
    assert len(chosen) == n
    assert (np.diff(chosen) > 0).all()
    assert (chosen == choose(label, len(label), n, seed)).all()
    drawn = np.bincount(label[chosen], minlength=len(counts))
    share = n * np.array(counts) / len(label)
    if n >= len(counts):
        assert (drawn >= 1).all()
    # a share is rounded up or down, unless classes that would get nothing are lifted to one
    if (share >= 1).all() or n < len(counts):
        assert (np.abs(drawn - share) < 1).all()
    assert (drawn <= counts).all()


@given(total=st.integers(1, 200), data=st.data())
def test_without_labels_the_draw_is_plain(total, data):
    n = data.draw(st.integers(1, total))
    chosen = choose(None, total, n, 3)
    assert len(set(chosen.tolist())) == n
    assert chosen.max() < total


def test_large_class_gives_way_to_small_ones():
    label = labelled([1, 1, 1, 97])
    drawn = np.bincount(label[choose(label, 100, 10, 0)], minlength=4)
    assert drawn.tolist() == [1, 1, 1, 7]


def test_ties_fall_by_lot_not_by_class_number():
    label = labelled([10] * 10)
    first = {tuple(label[choose(label, 100, 1, seed)]) for seed in range(40)}
    assert len(first) > 5


def test_subset_keeps_ids_and_says_what_it_did():
    ds = datasets.load("digits", split="test")
    small = datasets.subset(ds, 100, seed=4)
    assert small.attrs["seed"] == 4
    assert small.attrs["n_available"] == 599
    assert small.attrs["sha256"] == ds.attrs["sha256"]
    xr.testing.assert_equal(small, ds.sel(sample=small.sample))
    xr.testing.assert_identical(small, datasets.load("digits", split="test", n=100, seed=4))
    assert not np.array_equal(small.sample, datasets.subset(ds, 100, seed=5).sample)


def test_subset_of_a_multi_label_dataset():
    ds = xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"), np.zeros((9, 2, 2, 1), np.uint8)),
            "labels": (("sample", "class"), np.eye(9, 3, dtype=bool)),
        }
    )
    assert datasets.subset(ds, 4).sizes["sample"] == 4


@pytest.mark.parametrize("n", [0, -3])
def test_less_than_one(n):
    with pytest.raises(datasets.BadDataError, match="1 or more"):
        datasets.load("digits", n=n)


def test_more_than_there_is():
    with pytest.raises(datasets.BadDataError, match="n=600 is more than there is: 599"):
        datasets.load("digits", split="test", n=600)


@pytest.mark.parametrize("n", [2.5, "10", True])
def test_not_a_number(n):
    with pytest.raises(TypeError, match="whole number"):
        datasets.load("digits", n=n)


def test_a_seed_must_be_one():
    with pytest.raises(datasets.BadDataError, match="seed"):
        datasets.load("digits", n=5, seed=-1)
