"""A small made-up dataset."""

import numpy as np
import xarray as xr


def toys(n: int, side: int = 6, **attrs: str) -> xr.Dataset:
    """`n` images of noise, ids from 100, their classes ant, bee and cow in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, side, side, 1), dtype=np.uint8)
    return xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"), pixels),
            "label": ("sample", np.arange(n) % 3),
        },
        coords={"sample": np.arange(100, 100 + n), "class": ["ant", "bee", "cow"]},
        attrs={"name": "toys", **attrs},
    )
