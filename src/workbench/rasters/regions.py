"""Tables of regions: points, boxes or geometries become integer boxes of a raster's pixels."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray

from workbench._table_file import read
from workbench.rasters.errors import RegionError
from workbench.rasters.raster import (
    Raster,
    check_file,
    check_references,
    crs_name,
    densified,
    read_header,
    refers_elsewhere,
    reproject,
)
from workbench.rasters.schedule import clipped

Units = Literal["pixels", "map"]
#: Rounding of map coordinates must not add a row or a column: a thousandth of a pixel is none.
_TOLERANCE = 1e-3
#: Columns and rows that no raster has.
FARTHEST = 2**31


def _refuse(table: pd.DataFrame, name: str, off: NDArray[np.bool_], what: str) -> None:
    """Raise ``RegionError`` with a column's first cell that is marked, if one is."""
    if off.any():
        row = int(np.argmax(off))
        cell = table[name].iloc[row]
        cell = cell.item() if isinstance(cell, np.generic) else cell
        raise RegionError(f"{name} of region {table.index[row]!r} is {cell!r}{what}")


def numbers(table: pd.DataFrame, names: list[str]) -> NDArray[np.float64]:
    """Return columns as finite floats; raise ``RegionError`` with the first cell that is none."""
    values = np.empty((len(table), len(names)))
    for column, name in enumerate(names):
        cells = pd.to_numeric(table[name], errors="coerce")
        values[:, column] = cells.to_numpy(float, na_value=np.nan)
        _refuse(table, name, ~np.isfinite(values[:, column]), ", not a number")
    return values


def in_raster(
    x: Any, y: Any, table: Any, header: Raster, crs: Any, *, whole: bool = True
) -> tuple[Any, Any]:
    """Reproject to the raster's CRS; refuse what cannot be."""
    if not header.placed:
        kind = "ground control points" if header.gcps else "rational polynomials (RPC)"
        raise RegionError(
            f"{header.path} is placed on the map by {kind} only, which no affine transform "
            "expresses: give pixel boxes, or warp it first by gdalwarp or rasterio.vrt.WarpedVRT"
        )
    if isinstance(crs, str) and crs == "raster":
        return x, y
    if crs is None:
        raise RegionError(
            'the table has no CRS: give crs="EPSG:...", or crs="raster" if its coordinates are '
            "the raster's own"
        )
    if header.crs is None:
        raise RegionError(
            f'{header.path} has no CRS to reproject to: give crs="raster" if the coordinates are '
            "the raster's own"
        )
    x, y = reproject(x, y, crs, header.crs)
    bad = ~(np.isfinite(x) & np.isfinite(y))
    if bad.any():
        rows = bad.reshape(len(table), -1).any(axis=1) if whole else np.array([True])
        raise RegionError(
            f"region {table.index[int(np.argmax(rows))]!r} cannot be reprojected from "
            f"{crs_name(crs)} to the raster's {crs_name(header.crs)}; are x and y swapped?"
        )
    return x, y


def around(x: Any, y: Any, sides: Any, table: Any, header: Raster, units: Units) -> Any:
    """Boxes around points: the point's own pixel lies at (height // 2, width // 2)."""
    if units not in ("pixels", "map"):
        raise RegionError(f'units={units!r} is neither "pixels" nor "map"')
    if not np.isfinite(sides).all() or (sides <= 0).any():
        bad = sides[(sides <= 0) | ~np.isfinite(sides)][0]
        raise RegionError(f"a region's size must be more than 0, not {bad:g}")
    if units == "map":
        sides = np.maximum(1, np.round(sides / np.array(header.pixel_size())[::-1, None]))
    elif (sides != np.round(sides)).any():
        bad = sides[sides != np.round(sides)][0]
        raise RegionError(f'a size of {bad:g} pixels is not whole; units="map" is for map units')
    columns, rows = header.pixels(x, y)
    height, width = sides
    box = [np.floor(columns) - width // 2, np.floor(rows) - height // 2, width, height]
    return _whole(box, table)


def outward(left: Any, top: Any, right: Any, bottom: Any, table: Any) -> Any:
    """Boxes of all pixels that fractional bounds touch."""
    col, row = np.floor(left + _TOLERANCE), np.floor(top + _TOLERANCE)
    width = np.maximum(1, np.ceil(right - _TOLERANCE) - col)
    height = np.maximum(1, np.ceil(bottom - _TOLERANCE) - row)
    return _whole([col, row, width, height], table)


def _whole(box: list[Any], table: Any) -> NDArray[np.int64]:
    boxes = np.stack(box)
    if (far := (np.abs(boxes) > FARTHEST).any(axis=0)).any():
        raise RegionError(
            f"region {table.index[int(np.argmax(far))]!r} lies {FARTHEST:,} pixels away from the "
            "raster: its coordinates are hardly in the CRS that was given"
        )
    return boxes.astype(np.int64)


Kind = Literal["pixels", "points", "bounds", "geometry"]
BOX = ["col", "row", "width", "height"]
BOUNDS = ["left", "bottom", "right", "top"]
#: The columns that each kind of table is told by, in this order.
KINDS: dict[Kind, list[str]] = {"pixels": BOX, "bounds": BOUNDS, "points": ["x", "y"]}
#: Names of columns that say of themselves that they are degrees of longitude and latitude.
_LONGITUDES = {"lon", "long", "lng", "longitude"}
_LATITUDES = {"lat", "latitude"}
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
    allow_remote: bool = False,
) -> pd.DataFrame:
    """Turn a table of places into integer boxes of a raster's pixels.

    A table may hold pixel boxes (columns ``col``, ``row``, ``width``, ``height``), map boxes
    (``left``, ``bottom``, ``right``, ``top``), centre points (``x``, ``y``; or ``lon``, ``lat``,
    which are EPSG:4326 unless `crs` says otherwise), or be a GeoDataFrame, whose points are centres
    and whose other geometries are taken by their bounding box. Map coordinates pass through the
    inverse of the raster's affine transform, so that rotated and south-up rasters need no care.

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
    allow_remote
        Let a local file name data anywhere; see `plan`.

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
    >>> from workbench.rasters.raster import Band, Raster
    >>> raster = Raster("a.tif", "GTiff", 100, 100, (Band("uint8"),), None,
    ...                 (0.0, 2.0, 0.0, 200.0, 0.0, -2.0), (16, 100))
    >>> towns = pd.DataFrame({"x": [21.0], "y": [179.0], "label": ["town"]})
    >>> regions(towns, raster, size=8, crs="raster").loc[0].to_dict()
    {'col': 6, 'row': 6, 'width': 8, 'height': 8, 'label': 'town'}
    """
    header = read_header(raster, allow_remote=allow_remote)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"the table must be a pandas or geopandas DataFrame, not {type(table)}")
    if table.empty:
        raise RegionError("the table of regions has no rows")
    if kind is None and not {"x", "y"} <= set(table.columns):
        table, crs = _with_degrees_named(table, crs)
    kind = _kind(table, kind)
    used, boxes, polygon, centres = _READERS[kind](table, header, size, units, crs)
    if polygon_mask and polygon is None:
        raise RegionError("polygon_mask=True needs a GeoDataFrame of polygons")
    carried = table.drop(columns=[name for name in (*used, "sample", "id") if name in table])
    if kind == "geometry":
        carried = pd.DataFrame(carried.drop(columns=table.geometry.name, errors="ignore"))
    _check_names(carried, kind)
    result = pd.DataFrame(dict(zip(BOX, boxes, strict=True)), index=_ids(table))
    result = pd.concat([result, carried.set_axis(result.index)], axis=1)
    if polygon_mask:
        result["polygon"] = polygon
    outside = clipped(np.asarray(boxes).T, header.height, header.width)[:, 1] == 0
    if centres is not None and outside.any():
        x, y, crs = centres
        result.attrs["hint"] = _better_place(x[outside], y[outside], crs, header)
    return result


def _with_degrees_named(table: Any, crs: Any) -> tuple[Any, Any]:
    """Take columns ``lon`` and ``lat`` as ``x`` and ``y``, in degrees unless the CRS is given."""
    names = {str(name).lower(): name for name in table.columns}
    x = next((names[name] for name in names if name in _LONGITUDES), None)
    y = next((names[name] for name in names if name in _LATITUDES), None)
    if x is None or y is None:
        return table, crs
    return table.rename(columns={x: "x", y: "y"}), "EPSG:4326" if crs is None else crs


def _better_place(x: Any, y: Any, crs: Any, header: Raster) -> str:
    """What would bring places into the raster that lie outside it: a hint, or nothing."""
    ways = {
        "with x and y swapped": (y, x),
        "with longitudes from -180 to 180 instead of 0 to 360": (np.where(x > 180, x - 360, x), y),
        "with longitudes from 0 to 360": (np.where(x < 0, x + 360, x), y),
    }
    best = ""
    most = 0
    for way, place in ways.items():
        here = place
        if not (isinstance(crs, str) and crs == "raster"):
            here = reproject(*place, crs, header.crs)
        columns, rows = header.pixels(*here)
        inside = (columns >= 0) & (columns < header.width) & (rows >= 0) & (rows < header.height)
        if inside.sum() > most:
            most = int(inside.sum())
            best = f"{way} {most:,} of them would lie in it"
    return best


def check_boxes(table: pd.DataFrame) -> NDArray[np.int64]:
    """Return the four box columns as an array (region, 4); raise ``RegionError`` naming the row."""
    if missing := [name for name in BOX if name not in table.columns]:
        have = ", ".join(map(str, table.columns))
        raise RegionError(f"the table of regions has no column {missing[0]!r}; it has {have}")
    boxes = np.empty((len(table), 4), np.int64)
    for column, name in enumerate(BOX):  # one by one, which for millions takes less memory
        values = numbers(table, [name])[:, 0]
        _refuse(table, name, values != np.round(values), "; pixel boxes are whole numbers")
        if name in ("width", "height"):
            _refuse(table, name, values <= 0, "; it must be 1 or more")
        _refuse(table, name, np.abs(values) > FARTHEST, ", which is beyond any raster")
        boxes[:, column] = values
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
    what = "the table's index" if name is None else f"the column {name!r}"
    remedy = (
        "call table.reset_index(drop=True) first"
        if name is None
        else "correct it, or rename it: without a column 'sample' or 'id' the index names regions"
    )
    if isinstance(ids, pd.MultiIndex):
        ids = pd.Index(["/".join(map(str, parts)) for parts in ids])
    if ids.hasnans:
        row = int(np.argmax(ids.isna()))
        raise RegionError(f"{what} has no id in row {row} (the first is 0); {remedy}")
    if not ids.is_unique:
        twice = ids[ids.duplicated()][0]
        raise RegionError(
            f"ids must be unique, and in {what} {twice!r} occurs twice or more; {remedy}"
        )
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
        raise RegionError(
            "pixel boxes have a width and a height of their own; leave size out, or give it to "
            "plan() to resample to it"
        )
    return BOX, check_boxes(table).T, None, None


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
    centres = values[:, 0], values[:, 1], crs
    return used, around(x, y, sides, table, header, units), None, centres


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
    columns, rows = header.pixels(*in_raster(x, y, table, header, crs))
    boxes = outward(columns.min(1), rows.min(1), columns.max(1), rows.max(1), table)
    return BOUNDS, boxes, None, (x.mean(axis=1), y.mean(axis=1), crs)


def _from_geometry(table: Any, header: Raster, size: Any, units: Any, crs: Any) -> Any:
    shapes = table.geometry
    if (off := (shapes.isna() | shapes.is_empty).to_numpy()).any():
        raise RegionError(f"region {table.index[int(np.argmax(off))]!r} has no geometry")
    crs = shapes.crs if crs is None else crs
    single = (shapes.geom_type == "MultiPoint") & (shapely.get_num_geometries(shapes.array) == 1)
    if single.any():
        shapes = shapes.where(~single, shapely.get_geometry(shapes.array, 0))
    if (shapes.geom_type == "Point").all():
        points = pd.DataFrame({"x": shapes.x, "y": shapes.y}, index=table.index)
        more = [name for name in ("width", "height") if name in table and size is None]
        return _from_points(points.join(table[more]), header, size, units, crs)
    if size is not None:
        raise RegionError("size belongs to points; polygons and lines have their own extent")
    bounds = shapely.bounds(shapes.array)
    polygon = in_pixels(shapes, header, crs)
    left, top, right, bottom = shapely.bounds(polygon).T
    boxes = outward(left, top, right, bottom, table)
    return [], boxes, polygon, ((bounds[:, 0] + bounds[:, 2]) / 2, bounds[:, 1::2].mean(1), crs)


def same_crs(crs: Any, header: Raster) -> bool:
    """Whether map coordinates need no reprojection."""
    if isinstance(crs, str) and crs == "raster":
        return True
    return crs is not None and header.crs is not None and pyproj.CRS(crs) == pyproj.CRS(header.crs)


def in_pixels(shapes: Any, header: Raster, crs: Any) -> NDArray[Any]:
    """Geometries (a GeoSeries) in the raster's pixels; their edges may curve on the way."""
    dense = np.asarray(shapes.array)
    if not same_crs(crs, header):
        bounds = shapely.bounds(dense)
        sides = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
        dense = shapely.segmentize(dense, np.maximum(sides / 20, 1e-12))

    def to_pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = in_raster(points[:, 0], points[:, 1], shapes, header, crs, whole=False)
        return np.stack(header.pixels(x, y), axis=1)

    pixels: NDArray[Any] = shapely.transform(dense, to_pixels)
    return pixels


_READERS: dict[Kind, Any] = {
    "pixels": _from_pixels,
    "points": _from_points,
    "bounds": _from_bounds,
    "geometry": _from_geometry,
}


def read_table(
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    separator: str | None = None,
    encoding: str = "utf-8-sig",
    allow_remote: bool = False,
) -> pd.DataFrame:
    """Read a table of places: CSV or Parquet, or any file of geometries that geopandas reads.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv`` or ``.txt``, also as ``.gz`` or in a ``.zip``; ``.parquet``, which may be
        GeoParquet; ``.gpkg``, ``.geojson``, ``.shp``, or a ``.zip`` with one of them.
    layer
        Of a file with several.
    separator
        Between a text's columns; by default the one of comma, semicolon, tab and bar that its first
        line has most of.
    encoding
        Of a text, such as ``"latin-1"``.
    allow_remote
        Let a local file name data anywhere, as an OGR VRT may.

    Returns
    -------
    pandas.DataFrame
        A GeoDataFrame where there are geometries, which in a text are a column ``wkt`` or
        ``geometry``; :func:`workbench.rasters.regions` takes both.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    RegionError
        It cannot be read as a table.

    Examples
    --------
    >>> read_table("houses.gpkg")  # doctest: +SKIP
    """
    file = Path(path)
    check_file(file, "table")
    if not allow_remote:
        if file.suffix.lower() == ".vrt":
            check_references(file)
        elif file.suffix.lower() != ".kml" and refers_elsewhere(file):
            raise RegionError(f"{file} names other data; give allow_remote=True if you trust it")
    try:
        return read(file, layer, separator, encoding)
    except UnicodeDecodeError as error:
        raise RegionError(f"{file} is not in {encoding}; give encoding=: {error}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise RegionError(f"{file} cannot be read as a table of regions: {error}") from error
