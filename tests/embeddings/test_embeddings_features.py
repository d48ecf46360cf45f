"""Pixel features."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

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
