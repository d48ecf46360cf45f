import warnings

import numpy as np
import pytest
import xarray as xr

from workbench import datasets

MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_test_images(real_data):
    real_data("mnist")
    ds = datasets.load("mnist", split="test")
    assert ds.image.shape == (10_000, 28, 28, 1)
    assert ds.image.dtype == np.uint8
    assert ds.label.dtype == np.int64
    assert np.bincount(ds.label).tolist() == MNIST_TEST
    assert ds.label[:5].values.tolist() == [7, 2, 1, 0, 4]
    assert ds["class"].values.tolist() == list("0123456789")
    assert set(ds.split.values) == {"test"}
    assert ds.attrs["source"] == "$WORKBENCH_DATA/mnist"
    assert "stand_in_for" not in ds.attrs
    # mean of the 10,000 test images, as published with countless training scripts
    assert float(ds.image.mean()) / 255 == pytest.approx(0.1325, abs=1e-4)


def test_mnist_all_puts_the_test_images_after_the_training_images(real_data):
    real_data("mnist")
    ds = datasets.load("mnist")
    assert ds.sizes["sample"] == 70_000
    assert ds.sample.values[[0, 59_999, 60_000, 69_999]].tolist() == [0, 59_999, 60_000, 69_999]
    assert ds.split.sel(sample=59_999) == "train"
    assert ds.label.sel(sample=60_000) == 7
    assert ds.label[:5].values.tolist() == [5, 0, 4, 1, 9]


def test_a_draw_keeps_the_official_index(real_data):
    real_data("mnist")
    whole = datasets.load("mnist", split="test")
    small = datasets.load("mnist", split="test", n=500, seed=3)
    np.testing.assert_array_equal(small.image, whole.image.sel(sample=small.sample))
    expected = np.array(MNIST_TEST) / 20
    assert (np.abs(np.bincount(small.label) - expected) < 1).all()
    both = datasets.load("mnist", n=300)
    assert set(both.split.values) == {"train", "test"}
    assert (both.sample[both.split == "test"] >= 60_000).all()


def test_cifar10_test_images(real_data):
    real_data("cifar10")
    ds = datasets.load("cifar10", split="test")
    assert ds.image.shape == (10_000, 32, 32, 3)
    assert np.bincount(ds.label).tolist() == [1000] * 10
    assert ds["class"].values[[3, 8]].tolist() == ["cat", "ship"]
    assert ds.label[:4].values.tolist() == [3, 8, 8, 0]
    # published mean of the (training) colours is 0.491, 0.482, 0.447
    colours = ds.image.mean(("sample", "y", "x")).values / 255
    np.testing.assert_allclose(colours, [0.494, 0.485, 0.450], atol=0.005)


def test_cifar10_draw(real_data):
    real_data("cifar10")
    ds = datasets.load("cifar10", split="train", n=50)
    assert np.bincount(ds.label).tolist() == [5] * 10
    assert ds.attrs["n_available"] == 50_000


def test_digits():
    ds = datasets.load("digits")
    assert ds.image.shape == (1797, 8, 8, 1)
    assert ds.image.min() == 0
    assert ds.image.max() == 255
    assert (ds.split == "train").sum() == 1198
    test = datasets.load("digits", split="test")
    np.testing.assert_array_equal(test.image, ds.image[1198:])
    assert test.sample.values[[0, -1]].tolist() == [0, 598]
    assert ds.attrs["source"] == "bundled with scikit-learn"


def test_photos_are_ten_distinguishable_photographs():
    ds = datasets.load("photos")
    assert ds.image.shape == (1200, 32, 32, 3)
    assert np.bincount(ds.label).tolist() == [120] * 10
    assert (ds.split == "test").sum() == 400
    assert np.bincount(ds.label[ds.split == "test"]).tolist() == [40] * 10
    xr.testing.assert_identical(ds, datasets.load("photos"))
    # nearest training patch by mean and spread of each colour: chance is 0.1
    stats = np.concatenate([ds.image.mean(("y", "x")), ds.image.std(("y", "x"))], axis=1)
    test = (ds.split == "test").values
    gaps = np.linalg.norm(stats[test][:, None] - stats[~test][None], axis=2)
    right = ds.label.values[~test][gaps.argmin(1)] == ds.label.values[test]
    assert right.mean() > 0.7


@pytest.mark.parametrize(
    ("name", "made_of", "shape"),
    [("mnist", "digits", (599, 28, 28, 1)), ("cifar10", "photos", (400, 32, 32, 3))],
)
def test_stand_in(offline, name, made_of, shape):
    with pytest.warns(datasets.StandInWarning) as seen:
        ds = datasets.load(name, split="test")
    assert seen[0].filename == __file__, "the warning points at the caller"
    for place in ("$WORKBENCH_DATA: not set", "cache: no ", "download: http://127.0.0.1"):
        assert place in str(seen[0].message)
    assert ds.image.shape == shape
    assert ds.attrs["name"] == made_of
    assert ds.attrs["stand_in_for"] == name
    assert ds.sizes["class"] == 10


def test_the_stand_in_for_mnist_is_centred_like_mnist(offline):
    with pytest.warns(datasets.StandInWarning):
        ds = datasets.load("mnist")
    assert ds.sizes["sample"] == 1797
    middle = ds.image[:, 4:24, 4:24]
    assert ds.image.sum() == middle.sum()
    assert (ds.image.max(("y", "x", "channel")) > 100).all()


def test_n_above_the_stand_in_gives_all_of_it_and_says_so(offline):
    with pytest.warns(datasets.StandInWarning, match=r"599 images.*all there are.*2000 asked for"):
        assert datasets.load("mnist", split="test", n=2000).sizes["sample"] == 599
    with pytest.warns(datasets.StandInWarning, match="Loaded 50 images"):
        assert datasets.load("mnist", split="test", n=50).sizes["sample"] == 50


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_fallback_names_every_place(offline, name):
    with pytest.raises(datasets.DataNotFoundError) as seen:
        datasets.load(name, fallback=False)
    message = str(seen.value)
    assert "$WORKBENCH_DATA: not set" in message
    assert str(offline / name) in message
    assert "ConnectionError" in message
    assert isinstance(seen.value, FileNotFoundError)


def test_fashion_mnist_has_no_stand_in(offline):
    with pytest.raises(datasets.DataNotFoundError, match="fashion-mnist"):
        datasets.load("fashion-mnist")


def test_splits_of_names():
    assert all(datasets.splits(name) == ("train", "test") for name in datasets.NAMES)


def test_unknown_name():
    with pytest.raises(datasets.DataNotFoundError, match=r'mean "mnist"\? Names are mnist,'):
        datasets.load("MNSIT")


def test_unknown_split():
    with pytest.raises(datasets.BadDataError, match="train and test"):
        datasets.load("digits", split="val")


def test_options_that_do_not_apply():
    with pytest.raises(TypeError, match=r"size, on_bad cannot be chosen for the named"):
        datasets.load("digits", size=8, on_bad="raise")
    with pytest.raises(TypeError, match="label cannot"):
        datasets.load("mnist", label="label")


def test_a_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch, picture):
    picture(tmp_path / "digits" / "a" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert datasets.load("digits").sizes["sample"] == 1797
    assert datasets.load("./digits").sizes["sample"] == 1


def test_zarr_round_trip(tmp_path, offline):
    with pytest.warns(datasets.StandInWarning):
        ds = datasets.load("mnist", n=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr's notes on its string type
        ds.to_zarr(tmp_path / "ds.zarr")
    xr.testing.assert_identical(ds, xr.load_dataset(tmp_path / "ds.zarr", engine="zarr"))
