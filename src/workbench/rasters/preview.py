"""A small picture of a raster with the regions drawn over it."""

from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from workbench.rasters import chips
from workbench.rasters.plan_data import PlanData
from workbench.rasters.raster import open_raster

#: The share of the memory budget, and the most bytes, that are decoded for a picture.
_SHARE, _MOST_BYTES = 4, 2**29
_UNREAD = 200


def preview(plan: PlanData, side: int) -> Figure:
    """Draw a plan's regions over a small picture of the raster; see `Plan.preview`."""
    from workbench.show.raster_figures import regions_over
    from workbench.show.style import caption

    header = plan.raster
    labels, names = chips.labels(plan)
    texts = None
    if labels is not None:
        texts = [names[number] if number >= 0 else "no label" for number in labels.tolist()]
    picture, share = small(plan, side)
    facts: dict[str, Any] = {"size": f"{header.width:,} × {header.height:,} pixels"}
    if share < 1:
        facts["blocks_read"] = f"{share:.2g} of all: gdaladdo makes overviews, to see the rest"
    ds = xr.Dataset(coords={"sample": chips.ids(plan.table.index)}, attrs=chips.attributes(plan))
    text = caption(ds, **facts)
    return regions_over(picture, plan.boxes, (header.height, header.width), text, labels=texts)


def small(plan: PlanData, side: int) -> tuple[NDArray[Any] | None, float]:
    """Read the raster at most `side` pixels wide and high, as grey or RGB of uint8.

    Returns
    -------
    tuple
        The picture, None where a single block is more than may be decoded; and the share of the
        blocks that was read, 1 where that is all or where an overview serves.
    """
    header = plan.raster
    bands = plan.bands[: 3 if len(plan.bands) >= 3 else 1]
    scale = max(1.0, max(header.height, header.width) / side)
    shape = (max(1, int(header.height / scale)), max(1, int(header.width / scale)))
    high, wide = header.block
    block_bytes = high * wide * sum(band.itemsize for band in header.bands)
    most = min(_MOST_BYTES, plan.memory // _SHARE)
    if block_bytes > most:
        return None, 0.0
    rows, columns = range(0, header.height, high), range(0, header.width, wide)
    step = 1
    while len(rows[::step]) * len(columns[::step]) * block_bytes > most:
        step += 1
    with open_raster(header) as source:
        if step == 1 or (scale > 2 and source.overviews(bands[0])):
            pixels, share = source.read(bands, out_shape=(len(bands), *shape), masked=True), 1.0
        else:
            # blocks here and there, each into its place in the picture
            pixels = np.ma.array(np.zeros((len(bands), *shape), plan.chip_format.dtype), mask=True)
            share = len(rows[::step]) * len(columns[::step]) / (len(rows) * len(columns))
            for top, left in product(rows[::step], columns[::step]):
                y, down = _place(top, high, header.height, shape[0])
                x, across = _place(left, wide, header.width, shape[1])
                there = len(bands), y.stop - y.start, x.stop - x.start
                pixels[:, y, x] = source.read(
                    bands, window=(down, across), out_shape=there, masked=True
                )
    unread = np.ma.getmaskarray(pixels).all(axis=0) if share < 1 else np.zeros(shape, np.bool_)
    picture = _stretched(np.moveaxis(pixels, 0, 2))
    picture[unread] = _UNREAD
    return (picture[..., 0] if len(bands) == 1 else picture), share


def _place(start: int, block: int, whole: int, length: int) -> tuple[slice, tuple[int, int]]:
    """Along one axis, where in a picture of `length` a block lies, and its pixels."""
    stop = min(start + block, whole)
    first = min(start * length // whole, length - 1)
    return slice(first, max(first + 1, stop * length // whole)), (start, stop)


def _stretched(pixels: Any) -> NDArray[Any]:
    """Bring the 2nd to the 98th percentile of what is no nodata to 0 to 255; uint8 stays."""
    if pixels.dtype == np.uint8:
        return np.array(pixels.filled(0))
    values = np.asarray(np.abs(pixels.data) if pixels.dtype.kind == "c" else pixels.data, float)
    good = ~np.ma.getmaskarray(pixels) & np.isfinite(values)
    low, high = np.percentile(values[good], (2, 98)) if good.any() else (0.0, 1.0)
    scaled = np.where(good, (values - low) / max(high - low, 1e-12), 0)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
