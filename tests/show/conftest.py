"""A small dataset and its map, for every test of pictures."""

import numpy as np
import pytest
import xarray as xr
from toys import toys


@pytest.fixture
def ds():
    return toys(60, 8, source="a test")


@pytest.fixture
def xy(ds):
    points = np.random.default_rng(1).normal(size=(60, 2))
    return xr.DataArray(points, dims=("sample", "axis"), attrs={"method": "umap", "seed": 51})
