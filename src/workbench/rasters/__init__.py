"""Regions of large rasters as an image dataset: each block read once, in bounded memory."""

# ruff: noqa: E402
from workbench._extras import need

need("rasterio", extra="rasters")

from workbench.datasets.detections import Merged, merge_detections
from workbench.rasters.burn import burn
from workbench.rasters.errors import (
    BlockError,
    FailedRegionsWarning,
    NoOverlapError,
    OutputError,
    RasterError,
    RasterWarning,
    RegionError,
)
from workbench.rasters.example import write_example
from workbench.rasters.feature_table import to_features
from workbench.rasters.grid import grid
from workbench.rasters.mosaic import to_raster
from workbench.rasters.neighbors import pairs_within
from workbench.rasters.plan import Plan, plan
from workbench.rasters.regions import read_table, regions
from workbench.rasters.write import Written

__all__ = [
    "regions",
    "grid",
    "read_table",
    "plan",
    "Plan",
    "Written",
    "burn",
    "to_raster",
    "to_features",
    "pairs_within",
    "merge_detections",
    "Merged",
    "write_example",
    "RasterError",
    "RegionError",
    "NoOverlapError",
    "BlockError",
    "OutputError",
    "FailedRegionsWarning",
    "RasterWarning",
]
