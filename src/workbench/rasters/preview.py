"""A small picture of a raster with the regions drawn over it."""

import os
import platform
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters import chips

if TYPE_CHECKING:
    from workbench.rasters.plan import Plan

#: Without overviews the whole raster must be decoded: not beyond so many bytes.
_MOST_BYTES = 2**29


def preview(plan: "Plan", side: int) -> Figure:
    """Draw a plan's regions over the raster's overview; see `Plan.preview`."""
    from workbench.show.rasters import regions_over

    header = plan.raster
    picture = overview(plan, side)
    labels, names = chips.labels(plan)
    texts = None
    if labels is not None:
        texts = [names[number] if number >= 0 else "no label" for number in labels.tolist()]
    parts = [
        f"n = {len(plan.table):,} regions",
        f"{header.path.rsplit('/', 1)[-1]}, {header.width:,} × {header.height:,} pixels",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    ]
    if picture is None:
        parts.insert(2, "the raster has no overviews to draw quickly; gdaladdo makes them")
    size = (header.height, header.width)
    return regions_over(picture, plan.boxes, size, " · ".join(parts), labels=texts)


def overview(plan: "Plan", side: int) -> NDArray[Any] | None:
    """Read the raster at most `side` pixels wide and high, as grey or RGB of uint8."""
    rasterio = need("rasterio", extra="rasters")
    header = plan.raster
    scale = max(1.0, max(header.height, header.width) / side)
    shape = (max(1, int(header.height / scale)), max(1, int(header.width / scale)))
    bands = plan.bands[:3] if len(plan.bands) >= 3 else plan.bands[:1]
    with rasterio.open(header.path) as source:
        size = header.height * header.width * header.bands * np.dtype(header.dtype).itemsize
        if scale > 2 and not source.overviews(bands[0]) and size > _MOST_BYTES:
            return None
        pixels = source.read(bands, out_shape=(len(bands), *shape), masked=True)
    picture = _stretched(np.moveaxis(pixels, 0, 2))
    return picture[..., 0] if len(bands) == 1 else picture


def _stretched(pixels: Any) -> NDArray[Any]:
    """Bring the 2nd to the 98th percentile of what is no nodata to 0 to 255; uint8 stays."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels.filled(0))
    values = np.asarray(np.abs(pixels.data) if pixels.dtype.kind == "c" else pixels.data, float)
    good = ~np.ma.getmaskarray(pixels) & np.isfinite(values)
    low, high = np.percentile(values[good], (2, 98)) if good.any() else (0.0, 1.0)
    scaled = np.where(good, (values - low) / max(high - low, 1e-12), 0)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
