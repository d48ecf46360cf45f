"""A small picture of a raster with the regions drawn over it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from workbench.rasters import chips
from workbench.rasters.plan_data import PlanData
from workbench.rasters.raster import Raster, open_raster

#: The share of the memory budget, and the most bytes, that are decoded for a picture.
_SHARE, _MOST_BYTES = 4, 2**29
_UNREAD = 200
Span = tuple[int, int]


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
    step = _step(header, min(_MOST_BYTES, plan.memory // _SHARE))
    with open_raster(header) as source:
        if step == 1 or (scale > 2 and source.overviews(bands[0])):
            pixels, share = source.read(bands, out_shape=(len(bands), *shape), masked=True), 1.0
        elif step == 0:
            return None, 0.0
        else:
            pixels = np.ma.array(np.zeros((len(bands), *shape), plan.chip_format.dtype), mask=True)
            share = _read_some(source, header, bands, step, pixels)
    unread = np.ma.getmaskarray(pixels).all(axis=0) if share < 1 else np.zeros(shape, np.bool_)
    picture = _stretched(np.moveaxis(pixels, 0, 2))
    picture[unread] = _UNREAD
    return (picture[..., 0] if len(bands) == 1 else picture), share


def _step(header: Raster, most: int) -> int:
    """Read each so-manieth block, down and across, to decode no more bytes; 0: not even one."""
    pixel = sum(band.itemsize for band in header.bands)
    block = header.block[0] * header.block[1] * pixel
    if block > most:
        return 0
    down, across = (len(_starts(header, axis)) for axis in (0, 1))
    step = 1
    while -(-down // step) * -(-across // step) * block > most:
        step += 1
    return step


def _starts(header: Raster, axis: int, step: int = 1) -> range:
    return range(0, (header.height, header.width)[axis], header.block[axis] * step)


def _read_some(source: Any, header: Raster, bands: list[int], step: int, pixels: Any) -> float:
    """Read some blocks, each into its place in the picture; return their share of all."""
    read = 0
    for rows, top in _places(header, 0, step, pixels.shape[1]):
        for columns, left in _places(header, 1, step, pixels.shape[2]):
            shape = (len(bands), top[1] - top[0], left[1] - left[0])
            pixels[:, slice(*top), slice(*left)] = source.read(
                bands, window=(rows, columns), out_shape=shape, masked=True
            )
            read += 1
    return read / (len(_starts(header, 0)) * len(_starts(header, 1)))


def _places(header: Raster, axis: int, step: int, length: int) -> Iterator[tuple[Span, Span]]:
    """Pixels of each block that is read, along an axis, and those of the picture for it."""
    whole = (header.height, header.width)[axis]
    for start in _starts(header, axis, step):
        stop = min(start + header.block[axis], whole)
        first = min(start * length // whole, length - 1)
        yield (start, stop), (first, max(first + 1, stop * length // whole))


def _stretched(pixels: Any) -> NDArray[Any]:
    """Bring the 2nd to the 98th percentile of what is no nodata to 0 to 255; uint8 stays."""
    if pixels.dtype == np.uint8:
        return np.array(pixels.filled(0))
    values = np.asarray(np.abs(pixels.data) if pixels.dtype.kind == "c" else pixels.data, float)
    good = ~np.ma.getmaskarray(pixels) & np.isfinite(values)
    low, high = np.percentile(values[good], (2, 98)) if good.any() else (0.0, 1.0)
    scaled = np.where(good, (values - low) / max(high - low, 1e-12), 0)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
