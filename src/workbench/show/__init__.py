"""Pictures: static figures, an interactive map, and the FiftyOne App where it is installed."""

from workbench.show.boxes import merged_boxes
from workbench.show.cams import cams
from workbench.show.distributions import distributions, joints
from workbench.show.fiftyone_app import app_link, fiftyone_ready
from workbench.show.fiftyone_read import from_fiftyone
from workbench.show.fiftyone_write import to_fiftyone
from workbench.show.interactive import Scatter, scatter
from workbench.show.label_figures import errors_left
from workbench.show.maps import (
    map,  # noqa: A004 - the name that design and users know
    map_grid,
    map_labels,
)
from workbench.show.plots import curve, pairs, samples
from workbench.show.rasters import regions_over
from workbench.show.receptive import receptive_field
from workbench.show.style import caption
from workbench.show.timings import durations, growth, memory

__all__ = [
    "samples", "pairs", "map", "map_grid", "map_labels", "curve", "errors_left", "caption",
    "distributions", "joints",
    "regions_over", "merged_boxes", "durations", "growth", "memory",
    "cams", "receptive_field",
    "scatter", "Scatter",
    "to_fiftyone", "from_fiftyone", "fiftyone_ready", "app_link",
]  # fmt: skip
