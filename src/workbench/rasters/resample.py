"""Bring a region's pixels to the size of a chip."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.form import Form
from workbench.rasters.georeference import Raster
from workbench.rasters.layout import Ints, clipped

Box = tuple[float, float, float, float]


def sampled(start: Any, length: Any, size: int) -> Any:
    """The row that each row of a resampled chip is nearest to, as GDAL counts.

    Examples
    --------
    >>> sampled(0, 8, 4).tolist(), sampled(10, 2, 4).tolist()
    ([1, 3, 5, 7], [10, 10, 11, 11])
    """
    return np.floor(start + (np.arange(size) + 0.5) * length / size + 1e-10).astype(np.int64)


def resample(
    form: Form, raster: Raster, box: Ints, within: Box, canvas: NDArray[Any], chip: NDArray[Any]
) -> None:
    """Fill a chip from a region's full pixels.

    `canvas` holds the pixels of `box`, and the region lies `within` it: left, top, width, height.
    Pixels outside the raster, and nodata, take no part in averages: GDAL's warper weighs what is
    left. A mask is always sampled by the nearest pixel.
    """
    high, wide = canvas.shape[:2]
    rows = sampled(within[1], within[3], form.height).clip(0, high - 1)
    columns = sampled(within[0], within[2], form.width).clip(0, wide - 1)
    if form.resampling == "nearest":
        chip[...] = canvas[rows[:, None], columns[None, :]]
        return
    first, last, left, right = clipped(box[None], raster.height, raster.width)[0]
    col, row = box[:2]
    inside = canvas[first - row : last - row, left - col : right - col, : form.channels]
    chip[..., : form.channels] = form.fill
    if inside.size:
        offset = (float(left - col) - within[0], float(first - row) - within[1])
        scale = (within[2] / form.width, within[3] / form.height)
        warped = _warped(form, raster.nodata, inside, offset, scale)
        chip[..., : form.channels] = warped.transpose(1, 2, 0)
    if form.mask:
        chip[..., form.channels :] = canvas[rows[:, None], columns[None, :], form.channels :]


def _warped(
    form: Form,
    nodata: float | None,
    inside: NDArray[Any],
    offset: tuple[float, float],
    scale: tuple[float, float],
) -> NDArray[Any]:
    """Warp pixels whose first lies at `offset` (column, row) of the region."""
    warp = need("rasterio.warp", extra="rasters")
    rasterio = need("rasterio", extra="rasters")
    target = np.full((form.channels, form.height, form.width), form.fill, form.dtype)
    warp.reproject(
        np.ascontiguousarray(inside.transpose(2, 0, 1)),
        target,
        src_transform=rasterio.Affine.translation(*offset),
        dst_transform=rasterio.Affine.scale(*scale),
        # any CRS serves: both sides have the same, and rasterio asks for one
        src_crs="EPSG:3857",
        dst_crs="EPSG:3857",
        src_nodata=nodata,
        dst_nodata=form.fill,
        resampling=rasterio.enums.Resampling[form.resampling],
        init_dest_nodata=True,
        num_threads=1,
    )
    return target
