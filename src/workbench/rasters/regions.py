"""Tables of regions: points, boxes or geometries become integer boxes of a raster's pixels."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.errors import RegionError
from workbench.rasters.georeference import Raster, densified, read_header
from workbench.rasters.placing import (
    FARTHEST,
    Units,
    around,
    enclosing,
    first_off,
    in_raster,
    numbers,
    outward,
)

Kind = Literal["pixels", "points", "bounds", "geometry"]
BOX = ["col", "row", "width", "height"]
BOUNDS = ["left", "bottom", "right", "top"]
#: The columns that each kind of table is told by, in this order.
KINDS: dict[Kind, list[str]] = {"pixels": BOX, "bounds": BOUNDS, "points": ["x", "y"]}
#: Names that the image dataset gives to its own variables.
RESERVED = {"image", "valid", "geotransform", "channel", "class", "polygon", "mask"}


def regions(
    table: pd.DataFrame,
    raster: str | os.PathLike[str] | Raster,
    *,
    size: float | tuple[float, float] | None = None,
    units: Units = "pixels",
    crs: Any = None,
    kind: Kind | None = None,
    polygon_mask: bool = False,
) -> pd.DataFrame:
    """Turn a table of places into integer boxes of a raster's pixels.

    A table may hold pixel boxes (columns ``col``, ``row``, ``width``, ``height``), map boxes
    (``left``, ``bottom``, ``right``, ``top``), centre points (``x``, ``y``), or be a GeoDataFrame,
    whose points are centres and whose other geometries are taken by their bounding box. Map
    coordinates pass through the inverse of the raster's affine transform, so that rotated and
    south-up rasters need no care.

    Parameters
    ----------
    table
        One region a row. A column ``sample`` or ``id``, or else the index, names the regions.
    raster
        A path or URL that GDAL reads. Only its header is read.
    size
        Of the boxes around points: one number, or (height, width). By default the table's
        columns ``width`` and ``height``. In map units it is rounded to whole pixels, at least one.
    units
        Of `size`: ``"pixels"``, or ``"map"`` for the units of the raster's CRS.
    crs
        Of the table's map coordinates, where it is no GeoDataFrame with a CRS of its own: an EPSG
        code, WKT, or ``"raster"`` to declare that they are the raster's.
    kind
        ``"pixels"``, ``"bounds"``, ``"points"`` or ``"geometry"``, where the table has the columns
        of several.
    polygon_mask
        Keep the geometries' outlines, so that pixels whose centre lies outside are not `valid`.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``sample``: ``col``, ``row``, ``width``, ``height`` (int64; a box may lie partly
        or wholly outside the raster), every other column of the table, and with `polygon_mask` the
        ``polygon`` in pixel coordinates. A point's own pixel is the box's at (height // 2,
        width // 2); a map box or polygon gets every pixel that it touches.

    Raises
    ------
    RegionError
        The table is empty; columns are missing or of the wrong type; a coordinate is not a
        number; a size is not positive; a CRS is missing; ids repeat; a column's name is taken.

    Examples
    --------
    >>> from workbench.rasters.georeference import Raster
    >>> raster = Raster("a.tif", "GTiff", 100, 100, 3, "uint8", None, None,
    ...                 (0.0, 2.0, 0.0, 200.0, 0.0, -2.0), (16, 100), "pixel", ("", "", ""), False)
    >>> towns = pd.DataFrame({"x": [21.0], "y": [179.0], "label": ["town"]})
    >>> regions(towns, raster, size=8, crs="raster").loc[0].to_dict()
    {'col': 6, 'row': 6, 'width': 8, 'height': 8, 'label': 'town'}
    """
    header = read_header(raster)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"the table must be a pandas or geopandas DataFrame, not {type(table)}")
    if table.empty:
        raise RegionError("the table of regions has no rows")
    found = _kind(table, kind)
    used, boxes, polygon = _READERS[found](table, header, size, units, crs)
    if polygon_mask and polygon is None:
        raise RegionError("polygon_mask=True needs a GeoDataFrame of polygons")
    carried = table.drop(columns=[name for name in (*used, "sample", "id") if name in table])
    if found == "geometry":
        carried = pd.DataFrame(carried.drop(columns=table.geometry.name, errors="ignore"))
    _check_names(carried, found)
    result = pd.DataFrame(dict(zip(BOX, boxes, strict=True)), index=_ids(table))
    result = pd.concat([result, carried.set_axis(result.index)], axis=1)
    if polygon_mask:
        result["polygon"] = polygon
    return result


def check_boxes(table: pd.DataFrame) -> NDArray[np.int64]:
    """Return the four box columns as an array (region, 4); raise ``RegionError`` naming the row."""
    if missing := [name for name in BOX if name not in table.columns]:
        have = ", ".join(map(str, table.columns))
        raise RegionError(f"the table of regions has no column {missing[0]!r}; it has {have}")
    boxes = np.empty((len(table), 4), np.int64)
    for column, name in enumerate(BOX):  # one by one, which for millions takes less memory
        values = numbers(table, [name])
        at = partial(first_off, table, [name], values)
        if (off := values != np.round(values)).any():
            raise RegionError("{} of {} is {}; pixel boxes are whole numbers".format(*at(off)))
        if name in ("width", "height") and (off := values <= 0).any():
            raise RegionError("{} of {} is {:g}; it must be 1 or more".format(*at(off)))
        if (off := np.abs(values) > FARTHEST).any():
            raise RegionError("{} of {} is {:g}, which is beyond any raster".format(*at(off)))
        boxes[:, column] = values[:, 0]
    return boxes


def _kind(table: Any, kind: Kind | None) -> Kind:
    """Tell what the table holds."""
    if kind is not None and kind not in (*KINDS, "geometry"):
        raise RegionError(f"kind={kind!r} is none of {', '.join((*KINDS, 'geometry'))}")
    geometric = hasattr(table, "geom_type") and table.active_geometry_name is not None
    fits: list[Kind] = ["geometry"] if geometric else []
    fits += [name for name, columns in KINDS.items() if set(columns) <= set(table.columns)]
    if kind is None and fits:
        return fits[0]
    if kind is not None and kind in fits:
        return kind
    wanted = {kind: KINDS[kind]} if kind in KINDS else KINDS
    forms = "; or ".join(", ".join(columns) for columns in wanted.values())
    have = ", ".join(map(str, table.columns))
    raise RegionError(
        f"the table has the columns {have}; regions need {forms}"
        + ("; or a GeoDataFrame" if kind in (None, "geometry") else "")
    )


def _ids(table: pd.DataFrame) -> pd.Index:
    name = next((name for name in ("sample", "id") if name in table.columns), None)
    ids = table.index if name is None else pd.Index(table[name])
    if isinstance(ids, pd.MultiIndex):
        ids = pd.Index(["/".join(map(str, parts)) for parts in ids])
    if ids.hasnans:
        raise RegionError(f"row {int(np.argmax(ids.isna()))} (the first is 0) has no id")
    if not ids.is_unique:
        raise RegionError(f"ids must be unique; {ids[ids.duplicated()][0]!r} occurs twice")
    if not pd.api.types.is_integer_dtype(ids.dtype):
        ids = pd.Index(ids.astype(str).to_numpy(object))
    return ids.rename("sample")


def _check_names(carried: pd.DataFrame, kind: Kind) -> None:
    taken = (RESERVED | set(BOX) if kind != "pixels" else RESERVED) & set(carried.columns)
    if taken:
        raise RegionError(
            f"the column {min(taken)!r} would be taken for the regions' own; rename it first"
        )
    if not carried.columns.is_unique:
        raise RegionError("the table has two columns of the same name")


def _from_pixels(table: Any, header: Raster, size: Any, units: Any, crs: Any) -> Any:  # noqa: ARG001
    if size is not None:
        raise RegionError("pixel boxes have a width and a height of their own; leave size out, "
                          "or give it to plan() to resample to it")  # fmt: skip
    return BOX, check_boxes(table).T, None


def _from_points(table: Any, header: Raster, size: Any, units: Any, crs: Any) -> Any:
    values = numbers(table, ["x", "y"])
    used = ["x", "y"]
    if size is None:
        if not {"width", "height"} <= set(table.columns):
            raise RegionError("points need a size, or the columns width and height")
        used += ["width", "height"]
        sides = numbers(table, ["height", "width"]).T
    else:
        sides = np.broadcast_to(np.asarray(size, float).reshape(-1, 1), (2, len(table)))
    x, y = in_raster(values[:, 0], values[:, 1], table, header, crs)
    return used, around(x, y, sides, table, header, units), None


def _from_bounds(table: Any, header: Raster, size: Any, units: Any, crs: Any) -> Any:  # noqa: ARG001
    values = numbers(table, BOUNDS)
    for low, high in ((0, 2), (1, 3)):
        if (off := values[:, low] >= values[:, high]).any():
            row = int(np.argmax(off))
            raise RegionError(
                f"{BOUNDS[low]} of region {table.index[row]!r} is {values[row, low]:g} and "
                f"{BOUNDS[high]} {values[row, high]:g}; the first must be smaller"
            )
    x, y = densified(values)
    return BOUNDS, enclosing(*in_raster(x, y, table, header, crs), table, header), None


def _from_geometry(table: Any, header: Raster, size: Any, units: Any, crs: Any) -> Any:
    shapely = need("shapely", extra="rasters")
    shapes = table.geometry
    if (off := (shapes.isna() | shapes.is_empty).to_numpy()).any():
        raise RegionError(f"region {table.index[int(np.argmax(off))]!r} has no geometry")
    crs = shapes.crs if crs is None else crs
    if (shapes.geom_type == "Point").all():
        points = pd.DataFrame({"x": shapes.x, "y": shapes.y}, index=table.index)
        more = [name for name in ("width", "height") if name in table and size is None]
        return _from_points(points.join(table[more]), header, size, units, crs)
    if size is not None:
        raise RegionError("size belongs to points; polygons and lines have their own extent")
    bounds = shapely.bounds(shapes.array)
    sides = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    dense = shapely.segmentize(np.asarray(shapes.array), np.maximum(sides / 20, 1e-12))

    def to_pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = in_raster(points[:, 0], points[:, 1], table, header, crs, whole=False)
        return np.stack(header.pixels(x, y), axis=1)

    polygon = shapely.transform(dense, to_pixels)
    left, top, right, bottom = shapely.bounds(polygon).T
    boxes = outward(left, top, right, bottom, table)
    return [], boxes, polygon


_READERS: dict[Kind, Callable[..., Any]] = {
    "pixels": _from_pixels,
    "points": _from_points,
    "bounds": _from_bounds,
    "geometry": _from_geometry,
}
