"""How much of each region is data."""

import numpy as np
from numpy.typing import NDArray

from workbench.rasters import crop
from workbench.rasters.crop import Cells, Failures, Job
from workbench.rasters.plan_data import PlanData
from workbench.rasters.schedule import clipped


def data_share(plan: PlanData) -> NDArray[np.float64]:
    """Share of each region's pixels that lie in the raster and its polygon, and hold data.

    As in GDAL's mask, a pixel holds data if any of the bands does. Pixels are read only where some
    may be missing: the bands have nodata, a mask or NaN, or regions polygons.
    """
    own = dict(enumerate(plan.read_bands))
    bands = {at: band for at, band in own.items() if band.color != "alpha"} or own
    sides = plan.boxes[:, 2] * plan.boxes[:, 3]
    if "polygon" not in plan.table and not any(
        band.masked_by or np.dtype(band.dtype).kind in "fc" for band in bands.values()
    ):
        first, last, left, right = clipped(plan.boxes, plan.raster.height, plan.raster.width).T
        inside: NDArray[np.float64] = (last - first) * (right - left) / sides
        return inside
    plan = plan.with_mask()
    form = plan.chip_format
    held = np.zeros((len(plan.table), form.pieces), np.int64)

    def count(job: Job, cells: Cells) -> Failures:
        pixels, valid, failures = job.cut(cells)
        mask = pixels[..., form.channels] if form.mask else None
        data = np.zeros(valid.shape, np.bool_)
        for channel, band in bands.items():
            data |= ~band.missing(pixels[..., channel], mask)
        units = plan.layout.order[plan.layout.members(job.group)]
        held.reshape(-1)[units] = (data & valid).sum(axis=(1, 2))
        return failures

    crop.run(plan, np.arange(plan.layout.groups), count)
    whole = form.height * form.width if form.resampled else sides
    return np.asarray(held.sum(axis=1) / whole)
