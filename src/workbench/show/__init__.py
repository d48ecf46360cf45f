"""Pictures: static figures for every notebook, and the FiftyOne App where it is installed."""

from workbench.show.fiftyone_app import app_link, fiftyone_ready, to_fiftyone
from workbench.show.plots import (
    map,  # noqa: A004 - the name that design and users know
    samples,
)
from workbench.show.style import caption

__all__ = ["app_link", "caption", "fiftyone_ready", "map", "samples", "to_fiftyone"]
