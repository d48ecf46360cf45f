"""Which pixels are read for regions: the raster's own, or those of one of its overviews."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.form import pair
from workbench.rasters.georeference import Raster, read_header
from workbench.rasters.layout import Ints


@dataclass(frozen=True)
class Reading:
    """What is read.

    Attributes
    ----------
    raster
        The header of the raster, or of its overview.
    boxes
        (region, 4): column, row, width and height in its pixels, whole.
    regions
        The regions' own boxes, where `raster` is an overview; else None.
    scale
        Pixels of it for one of the raster: across and down.
    """

    raster: Raster
    boxes: Ints
    regions: Ints | None = None
    scale: tuple[float, float] = (1.0, 1.0)

    def exact(self, rows: Ints) -> NDArray[Any] | None:
        """Some regions in the pixels of an overview, in which they are not whole."""
        return None if self.regions is None else self.regions[rows] * (self.scale * 2)

    def polygons(self, shapes: Any) -> list[Any]:
        """Polygons in the pixels of what is read."""
        if self.regions is None:
            return list(shapes)
        shapely = need("shapely", extra="rasters")
        return list(shapely.transform(shapes.to_numpy(object), lambda xy: xy * self.scale))


def make_reading(header: Raster, boxes: Ints, size: int | tuple[int, int] | None) -> Reading:
    """Choose the coarsest overview that is no coarser than the chips of any region.

    Parameters
    ----------
    header
        The raster's.
    boxes
        (region, 4): column, row, width and height.
    size
        Of the chips: a number, or (height, width). None reads the raster itself.
    """
    level = None if size is None else _level(header, boxes, pair(size))
    if level is None:
        return Reading(header, boxes)
    overview = read_header(header.path, level)
    scale = overview.width / header.width, overview.height / header.height
    low = np.floor(boxes[:, :2] * scale).astype(np.int64)
    end = np.ceil((boxes[:, :2] + boxes[:, 2:]) * scale).astype(np.int64)
    return Reading(overview, np.hstack([low, end - low]), boxes, scale)


def _level(header: Raster, boxes: Ints, size: tuple[int, int]) -> int | None:
    least = float(min((boxes[:, 3] / size[0]).min(), (boxes[:, 2] / size[1]).min()))
    fitting = [factor for factor in header.overviews if 1 < factor <= least]
    return header.overviews.index(max(fitting)) if fitting else None
