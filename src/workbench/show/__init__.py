"""Pictures: static figures, an interactive map, and the FiftyOne App where it is installed."""

from workbench.show.box_figures import boxes
from workbench.show.control import beats, control, control_curve
from workbench.show.explanations import cams, receptive_field
from workbench.show.fiftyone_boxes import boxes_from_fiftyone, boxes_to_fiftyone
from workbench.show.fiftyone_bridge import app_link, fiftyone_ready, from_fiftyone, to_fiftyone
from workbench.show.flaw_figures import flaws
from workbench.show.label_figures import cartography, distributions, errors_left, joints
from workbench.show.maps import (
    map,  # noqa: A004 - the name that design and users know
    map_grid,
    map_labels,
)
from workbench.show.raster_figures import regions_over
from workbench.show.samples import curve, pairs, rates, samples
from workbench.show.scatter import Scatter, scatter
from workbench.show.style import caption

__all__ = [
    "samples",
    "pairs",
    "flaws",
    "map",
    "map_grid",
    "map_labels",
    "curve",
    "rates",
    "control",
    "control_curve",
    "beats",
    "errors_left",
    "caption",
    "distributions",
    "joints",
    "cartography",
    "regions_over",
    "boxes",
    "cams",
    "receptive_field",
    "scatter",
    "Scatter",
    "to_fiftyone",
    "from_fiftyone",
    "boxes_to_fiftyone",
    "boxes_from_fiftyone",
    "fiftyone_ready",
    "app_link",
]
