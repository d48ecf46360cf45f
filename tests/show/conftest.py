"""A small dataset and its map, for every test of pictures."""

import numpy as np
import pytest
import xarray as xr


@pytest.fixture
def ds():
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"),
                      rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)),
            "label": ("sample", np.arange(60) % 3),
        },
        coords={"sample": np.arange(100, 160), "class": ["ant", "bee", "cow"]},
        attrs={"name": "toys", "source": "a test"},
    )  # fmt: skip


@pytest.fixture
def xy(ds):
    points = np.random.default_rng(1).normal(size=(60, 2))
    return xr.DataArray(points, dims=("sample", "axis"), attrs={"method": "umap", "seed": 51})
