"""What reading a plan will take."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.rasters.layout import block_counts

if TYPE_CHECKING:
    from workbench.rasters.plans import Plan

#: Bytes that the order, the schedule and the table's boxes take for each region.
_BYTES_A_REGION = 200


def stats(plan: "Plan") -> pd.Series:
    """Count blocks, decodes and bytes; see `Plan.stats`."""
    grid, schedule, form = plan.layout.grid, plan.schedule(), plan.form
    counts = block_counts(plan.reading.boxes, grid)
    cells = len(np.unique(schedule.cells)) if len(schedule.cells) else 0
    down, across = -(-grid.height // grid.block[0]), -(-grid.width // grid.block[1])
    working = plan.threads() * plan.thread_bytes + schedule.kept_peak
    return pd.Series(
        {
            "regions": len(plan.table),
            "skipped": len(plan.skipped),
            "groups": plan.layout.groups,
            "blocks": len(counts),
            "blocks_in_raster": down * across,
            "naive_decodes": int(counts.sum()),
            "naive_decodes_per_block": float(counts.mean()) if len(counts) else 0.0,
            "decodes_per_block": schedule.decodes / cells if cells else 1.0,
            "bytes_to_decode": len(counts) * grid.block[0] * grid.block[1] * form.pixel_bytes,
            "expected_peak_memory": working + _BYTES_A_REGION * len(plan.table),
            "output_bytes": len(plan.table) * form.chip_bytes,
        },
        name=plan.raster.path,
        dtype=object,
    )
