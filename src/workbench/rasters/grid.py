"""A regular table of regions over a raster."""

import os
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from workbench.rasters.errors import NoOverlapError, RegionError
from workbench.rasters.plan_data import pair
from workbench.rasters.raster import Raster, read_header
from workbench.rasters.regions import BOX, in_pixels


def grid(
    raster: str | os.PathLike[str] | Raster,
    size: int | tuple[int, int],
    overlap: int | tuple[int, int] = 0,
    *,
    area: Any = None,
    allow_remote: bool = False,
) -> pd.DataFrame:
    """Tile a raster: a regular table of regions that cover it. Only its header is read.

    Parameters
    ----------
    raster
        A path or URL that GDAL reads.
    size
        Of every region, in pixels: a number, or (height, width).
    overlap
        Pixels, or (down, across), that neighbours have in common.
    area
        Only the regions that reach into it: a GeoDataFrame or GeoSeries in any CRS, or, in the
        raster's, a shapely geometry or map bounds (left, bottom, right, top).
    allow_remote
        Let a local file name data anywhere; see `plan`.

    Returns
    -------
    pandas.DataFrame
        ``col``, ``row``, ``width``, ``height`` int64, row by row; indexed by ``sample``, the number
        in the whole grid. The last of a row or column may stick out of the raster.

    Raises
    ------
    RegionError
        `size` or `overlap` is no number of pixels, or the overlap is not less than the size.
    NoOverlapError
        No region reaches into `area`.

    Examples
    --------
    >>> from workbench.rasters.raster import Band, Raster
    >>> raster = Raster("a.tif", "GTiff", 100, 60, (Band("uint8"),), None,
    ...                 (0.0, 2.0, 0.0, 200.0, 0.0, -2.0), (16, 100))
    >>> grid(raster, 50, overlap=10)[["col", "row"]].to_numpy().tolist()
    [[0, 0], [40, 0], [80, 0], [0, 40], [40, 40], [80, 40]]
    """
    header = read_header(raster, allow_remote=allow_remote)
    high, wide = pair(size)
    down, across = (overlap, overlap) if isinstance(overlap, int | np.integer) else overlap
    if not (0 <= down < high and 0 <= across < wide):
        raise RegionError(f"overlap={overlap!r} must be 0 or more, and less than size={size!r}")
    # no region that lies wholly within its neighbour's overlap
    row, col = np.meshgrid(
        np.arange(0, max(1, header.height - down), high - down),
        np.arange(0, max(1, header.width - across), wide - across),
        indexing="ij",
    )
    boxes = np.stack([col.ravel(), row.ravel(), *np.full((2, col.size), [[wide], [high]])])
    table = pd.DataFrame(dict(zip(BOX, boxes, strict=True))).rename_axis("sample")
    if area is None:
        return table
    reaches = _reaching(table, _in_pixels(area, header))
    if not reaches.any():
        raise NoOverlapError(f"no region of {header.path} reaches into the area")
    return table[reaches]


def _in_pixels(area: Any, header: Raster) -> Any:
    """The area as one geometry in the raster's pixels."""
    import geopandas

    crs: Any = "raster"
    if isinstance(area, geopandas.GeoDataFrame | geopandas.GeoSeries):
        area, crs = area.geometry, area.crs
    else:
        area = geopandas.GeoSeries(
            [area if isinstance(area, shapely.Geometry) else shapely.box(*area)]
        )
    return shapely.union_all(in_pixels(area, header, crs))


def _reaching(table: pd.DataFrame, area: Any) -> NDArray[np.bool_]:
    shapely.prepare(area)
    col, row, wide, high = (table[name].to_numpy() for name in BOX)
    squares = shapely.box(col, row, col + wide, row + high)
    marks: NDArray[np.bool_] = shapely.intersects(area, squares)
    marks[marks] = ~shapely.touches(area, squares[marks])
    return marks
