"""Regions of large rasters as an image dataset: each block read once, in bounded memory."""

from workbench.rasters.detections import Merged, merge_detections
from workbench.rasters.errors import (
    BlockError,
    FailedRegionsWarning,
    NoOverlapError,
    OutputError,
    RasterError,
    RegionError,
)
from workbench.rasters.example import write_example
from workbench.rasters.neighbors import nearest, pair_blocks, pairs_within
from workbench.rasters.plan import Plan, plan
from workbench.rasters.regions import read_table, regions
from workbench.rasters.write import Written

__all__ = [
    "regions",
    "read_table",
    "plan",
    "Plan",
    "Written",
    "pairs_within",
    "pair_blocks",
    "nearest",
    "merge_detections",
    "Merged",
    "write_example",
    "RasterError",
    "RegionError",
    "NoOverlapError",
    "BlockError",
    "OutputError",
    "FailedRegionsWarning",
]
