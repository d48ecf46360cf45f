"""Features of every kind: pixels, components, codes, activations."""

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from workbench.embeddings import features


def images(values):
    return xr.Dataset({"image": (("sample", "y", "x", "channel"), values)})


def test_integers_are_scaled_by_their_type_and_floats_are_kept():
    assert features(images(np.full((2, 3, 3, 1), 255, np.uint8))).values.max() == 1.0
    assert features(images(np.full((2, 3, 3, 1), 65535, np.uint16))).values.max() == 1.0
    assert features(images(np.full((2, 3, 3, 1), 7.5, np.float32))).values.max() == 7.5


def test_layout_is_row_by_row_whatever_the_order_of_dims():
    values = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    ds = images(values)
    expected = values.reshape(2, -1) / np.float32(255)
    np.testing.assert_array_equal(features(ds), expected)
    turned = ds.transpose("channel", "x", "sample", "y")
    np.testing.assert_array_equal(features(turned), expected)
    assert features(ds).dtype == np.float32


def test_grey_averages_channels():
    values = np.zeros((1, 1, 1, 3), np.uint8)
    values[..., 0] = 255
    np.testing.assert_allclose(features(images(values), grey=True), [[1 / 3]])


def test_dask_and_numpy_agree():
    values = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    lazy = images(da.from_array(values, chunks=(3, 4, 4, 3)))
    np.testing.assert_array_equal(features(lazy), features(images(values)))


def test_errors_name_what_is_wrong():
    with pytest.raises(KeyError, match="no variable 'image'"):
        features(xr.Dataset({"picture": ("sample", [1])}))
    with pytest.raises(ValueError, match="kind='deep'"):
        features(images(np.zeros((1, 1, 1, 1), np.uint8)), kind="deep")
    with pytest.raises(ValueError, match="no image"):
        features(images(np.zeros((0, 1, 1, 1), np.uint8)))
    with pytest.raises(TypeError, match="image dataset, not a ndarray"):
        features(np.zeros((2, 2)))
    with pytest.raises(TypeError, match="colour"):
        features(images(np.zeros((1, 1, 1, 1), np.uint8)), colour=True)


def test_unscaled_pixels_are_left_as_they_are():
    assert features(images(np.full((1, 2, 2, 1), 200, np.uint8)), scaled=False).values.max() == 200


@pytest.fixture(scope="module")
def digits():
    values = load_digits().images[:300].astype(np.uint8) * 15
    return images(values[..., None]).assign_coords(sample=[f"d{i}" for i in range(300)])


def lazy(ds):
    return ds.chunk({"sample": 70})


class TestPca:
    def test_is_scikit_learns(self, digits):
        found = features(digits, "pca", components=5)
        expected = PCA(5, random_state=0).fit_transform(features(digits))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert found.attrs["components"] == 5
        assert found.sample.values[2] == "d2"

    def test_a_share_of_the_variance(self, digits):
        found = features(digits, "pca", components=0.9)
        assert found.attrs["variance_kept"] >= 0.9
        fewer = features(digits, "pca", components=found.sizes["feature"] - 1)
        assert fewer.attrs["variance_kept"] < 0.9

    def test_dask_streams_to_nearly_the_same_plane(self, digits):
        whole = features(digits, "pca", components=3).values
        streamed = features(lazy(digits), "pca", components=3).values
        overlap = np.abs(np.corrcoef(whole.T, streamed.T)[:3, 3:]).diagonal()
        assert (overlap > 0.99).all()

    @pytest.mark.parametrize("components", [0, 65, 2.5, -1])
    def test_impossible_numbers_are_refused(self, digits, components):
        with pytest.raises(ValueError, match="from 1 to 64"):
            features(digits, "pca", components=components)

    def test_a_share_of_lazy_images_is_refused_with_a_way_out(self, digits):
        with pytest.raises(ValueError, match=r"ds.load\(\)"):
            features(lazy(digits), "pca", components=0.9)


class TestAutoencoder:
    def test_learns_repeats_and_tells_its_loss(self, digits):
        first = features(digits, "autoencoder", latent=6, epochs=6, progress=False)
        again = features(digits, "autoencoder", latent=6, epochs=6, progress=False)
        assert first.shape == (300, 6)
        assert first.dtype == np.float32
        np.testing.assert_allclose(first, again, atol=1e-4)
        assert len(first.attrs["loss"]) == 6
        assert first.attrs["loss"][-1] < 0.8 * first.attrs["loss"][0]
        assert not np.allclose(first, features(digits, "autoencoder", latent=6, epochs=6, seed=1))

    def test_dask_and_numpy_agree(self, digits):
        eager = features(digits, "autoencoder", latent=4, epochs=1)
        np.testing.assert_allclose(
            eager, features(lazy(digits), "autoencoder", latent=4, epochs=1), atol=1e-4
        )

    def test_any_size_of_image_and_one_alone(self):
        odd = images(np.random.default_rng(0).integers(0, 256, (1, 5, 7, 3), dtype=np.uint8))
        assert features(odd, "autoencoder", latent=2, epochs=1).shape == (1, 2)

    def test_leaves_torchs_dice_alone(self, digits):
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        features(digits, "autoencoder", latent=2, epochs=1)
        assert torch.rand(1) == expected

    def test_bad_numbers_and_pixels_are_refused(self, digits):
        with pytest.raises(ValueError, match="latent=0"):
            features(digits, "autoencoder", latent=0)
        broken = np.zeros((3, 4, 4, 1), np.float32)
        broken[1] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            features(images(broken), "autoencoder", epochs=1)


class TestNetwork:
    def test_penultimate_activations_of_any_module(self, digits):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        )
        found = features(digits, "network", model=model, progress=False)
        with torch.no_grad():
            expected = model[:3](torch.from_numpy(features(digits).values.reshape(-1, 1, 8, 8)))
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
        assert found.attrs["layer"] == "before 3"
        assert found.attrs["model"] == "Sequential"
        np.testing.assert_allclose(
            found, features(lazy(digits), "network", model=model, progress=False), atol=1e-5
        )


@pytest.mark.parametrize(("name", "channels"), [("cifar10", 3), ("mnist", 1)])
def test_the_shipped_network_that_fits_is_the_default(name, channels):
    values = np.random.default_rng(0).integers(0, 256, (3, 28, 28, channels), dtype=np.uint8)
    ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), values)})
    found = features(ds, "network", progress=False)
    assert found.attrs["model"] == name
    np.testing.assert_allclose(found, features(ds, "network", model=name, progress=False))
