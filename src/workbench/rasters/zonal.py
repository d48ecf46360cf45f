"""Zonal statistics: what a raster holds in each polygon, every block read once."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench._cover import shares
from workbench.rasters import chips, crop
from workbench.rasters.crop import Cells, Failures, Job
from workbench.rasters.errors import FailedRegionsWarning, RegionError
from workbench.rasters.plan_data import PlanData

Statistic = Literal["count", "sum", "mean", "min", "max", "median", "majority"]
STATISTICS = ("count", "sum", "mean", "min", "max", "median", "majority")
#: Of a pixel: what covers no more does not touch it.
_LEAST = 1e-9


def zonal(
    plan: PlanData, statistics: Sequence[Statistic], threads: int | None, progress: bool
) -> pd.DataFrame:
    """Statistics of each region's polygon; see `Plan.zonal`."""
    if wrong := set(statistics) - set(STATISTICS):
        raise ValueError(f"{min(wrong)!r} is none of {', '.join(STATISTICS)}")
    if "polygon" not in plan.table:
        raise RegionError("there are no polygons: rasters.regions(..., polygon_mask=True)")
    form = plan.chip_format
    if form.resampled or (form.pieces > 1 and {"median", "majority"} & set(statistics)):
        raise RegionError(
            "statistics are those of the raster's own pixels, and median and majority need a "
            "polygon's at once: plan without size=, with more memory="
        )
    found = np.full((len(plan.table), form.pieces, len(plan.bands), len(STATISTICS)), np.nan)
    plan = plan.with_mask()

    def measure(job: Job, cells: Cells) -> Failures:
        form = plan.chip_format
        units = plan.layout.order[plan.layout.members(job.group)]
        canvases = [
            np.empty((h, w, form.channels + form.mask), form.dtype)
            for w, h in job.boxes[:, 2:].tolist()
        ]
        failures = job.fill(cells, canvases)
        inside = job.inside - job.boxes[:, [1, 1, 0, 0]]
        covers = shares(job.polygons or [], job.boxes)
        for i, (pixels, cover) in enumerate(zip(canvases, covers, strict=True)):
            if job.start + i in failures:
                continue
            first, last, left, right = inside[i].tolist()
            pixels, cover = pixels[first:last, left:right], cover[first:last, left:right]
            mask = pixels[..., -1] if form.mask else None
            region, piece = divmod(int(units[i]), form.pieces)
            for channel, band in enumerate(plan.read_bands):
                values = pixels[..., channel]
                there = (cover > _LEAST) & ~band.missing(values, mask)
                found[region, piece, channel] = _measured(values[there], cover[there], statistics)
        return failures

    every = np.arange(plan.layout.groups)
    failures = crop.run(plan, every, measure, threads=threads, progress=progress)
    if failures:
        text = chips.failed_text(chips.failed_table(plan, failures), len(plan.table))
        warnings.warn(text, FailedRegionsWarning, stacklevel=3)
    names = chips.channels(plan)
    columns = {
        name if len(names) == 1 else f"{name}_{band}": _joined(found[:, :, channel], name)
        for channel, band in enumerate(names)
        for name in statistics
    }
    return pd.DataFrame(columns, index=plan.table.index)


def _measured(values: Any, weight: NDArray[np.float64], statistics: Sequence[str]) -> list[float]:
    """All statistics of some pixels, of which shares count; NaN where there is none."""
    count = weight.sum()
    if not len(values):
        return [0.0, 0.0, *[np.nan] * 5]
    total = (values * weight).sum()
    median = majority = np.nan
    if "median" in statistics or "majority" in statistics:
        order = np.argsort(values, kind="stable")
        ordered, weight = values[order], weight[order]
        # a pixel stands at the middle of its share; between two the median lies on a line
        running = np.cumsum(weight)
        median = np.interp(running[-1] / 2, running - weight / 2, ordered.astype(np.float64))
        start = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        # of values that cover as much the greatest, rounding aside
        sums = np.round(np.add.reduceat(weight, start), 9)
        majority = ordered[start[len(sums) - 1 - np.argmax(sums[::-1])]]
    return [count, total, total / count, values.min(), values.max(), median, majority]


def _joined(pieces: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """One statistic of regions, (region, piece, statistic), of which large ones were in pieces."""
    values = pieces[..., STATISTICS.index(name)]
    if values.shape[1] == 1:
        return values[:, 0]
    if name == "mean":
        total, count = _joined(pieces, "sum"), _joined(pieces, "count")
        return np.divide(total, count, out=np.full_like(count, np.nan), where=count > 0)
    joined: NDArray[np.float64] = {"min": np.fmin, "max": np.fmax}.get(name, np.add).reduce(
        values, axis=1
    )
    return joined
