"""An image dataset to draw on."""

import numpy as np
import pytest
import xarray as xr


@pytest.fixture
def ds():
    """Four images of 80 x 100 pixels without labels."""
    image = np.random.default_rng(0).integers(0, 255, (4, 80, 100, 3), np.uint8)
    return xr.Dataset(
        {"image": (("sample", "y", "x", "channel"), image)},
        coords={"sample": ["a", "b", "c", "d"]},
        attrs={"name": "scenes"},
    )
