"""Turn the images of a dataset into one vector each."""

from typing import Literal

import numpy as np
import xarray as xr

Kind = Literal["pixels"]


def features(ds: xr.Dataset, kind: Kind = "pixels", *, grey: bool = False) -> xr.DataArray:
    """One feature vector for each image.

    Parameters
    ----------
    ds
        An image dataset: ``image`` (sample, y, x, channel), NumPy or dask.
    kind
        ``"pixels"``: all pixels of the image in one row; integer types are scaled to [0, 1] by
        the largest value of their type, floating-point images are taken as they are.
    grey
        Average the channels first.

    Returns
    -------
    xarray.DataArray
        float32 (sample, feature), with ``kind`` in ``attrs``.

    Raises
    ------
    KeyError
        ``ds`` has no ``image``.
    ValueError
        ``kind`` is not known, or there is no image.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"),
    ...                  np.full((2, 2, 2, 1), 255, np.uint8))})
    >>> features(ds).values
    array([[1., 1., 1., 1.],
           [1., 1., 1., 1.]], dtype=float32)
    """
    if "image" not in ds:
        raise KeyError(f"the dataset has no variable 'image'; it has {sorted(map(str, ds))}")
    if kind != "pixels":
        raise ValueError(f"kind={kind!r} is not known; it can be 'pixels'")
    image = ds["image"].transpose("sample", "y", "x", "channel")
    if image.sizes["sample"] == 0:
        raise ValueError("the dataset holds no image: 'sample' has length 0")
    pixels = _unit_scale(image)
    if grey:
        pixels = pixels.mean("channel", keepdims=True)
    # One reshape keeps dask arrays chunked along sample; stacking would build an index.
    flat = pixels.data.reshape(image.sizes["sample"], -1).astype(np.float32)
    coords = {"sample": ds["sample"]} if "sample" in ds.coords else {}
    return xr.DataArray(
        np.asarray(flat),
        dims=("sample", "feature"),
        coords=coords,
        name="features",
        attrs={"kind": "grey pixels" if grey else "pixels"},
    )


def _unit_scale(image: xr.DataArray) -> xr.DataArray:
    """Scale integer pixels to [0, 1] by the range of their type."""
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return image.astype(np.float32)
