"""From map coordinates to whole pixels of a raster."""

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.rasters.errors import RegionError
from workbench.rasters.georeference import Raster, crs_name, reproject

Units = Literal["pixels", "map"]
#: Rounding of map coordinates must not add a row or a column: a thousandth of a pixel is none.
_TOLERANCE = 1e-3
#: Columns and rows that no raster has.
FARTHEST = 2**31


def numbers(table: pd.DataFrame, names: list[str]) -> NDArray[np.float64]:
    """Return columns as finite floats; raise ``RegionError`` with the first cell that is none."""
    values = np.empty((len(table), len(names)))
    for column, name in enumerate(names):
        numbers = pd.to_numeric(table[name], errors="coerce")
        values[:, column] = numbers.to_numpy(float, na_value=np.nan)
    if (off := ~np.isfinite(values)).any():
        name, at, _ = first_off(table, names, values, off)
        row = int(np.argmax(off.any(axis=1)))
        cell = table[name].iloc[row]
        cell = cell.item() if isinstance(cell, np.generic) else cell
        raise RegionError(f"{name} of {at} is {cell!r}, not a number")
    return values


def first_off(
    table: pd.DataFrame, names: list[str], values: NDArray[Any], off: NDArray[np.bool_]
) -> tuple[str, str, float]:
    """Column, region and value of the first cell that is marked."""
    row = int(np.argmax(off.any(axis=1)))
    column = int(np.argmax(off[row]))
    return names[column], f"region {table.index[row]!r}", float(values[row, column])


def in_raster(
    x: Any, y: Any, table: Any, header: Raster, crs: Any, *, whole: bool = True
) -> tuple[Any, Any]:
    """Reproject to the raster's CRS; refuse what cannot be."""
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
            f"{crs_name(crs)} to the raster's {crs_name(header.crs)}"
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


def enclosing(x: Any, y: Any, table: Any, header: Raster) -> Any:
    """Boxes around the pixels that groups of map points lie in."""
    columns, rows = header.pixels(x, y)
    return outward(columns.min(1), rows.min(1), columns.max(1), rows.max(1), table)


def outward(left: Any, top: Any, right: Any, bottom: Any, table: Any) -> Any:
    """Boxes of all pixels that fractional bounds touch."""
    col, row = np.floor(left + _TOLERANCE), np.floor(top + _TOLERANCE)
    width = np.maximum(1, np.ceil(right - _TOLERANCE) - col)
    height = np.maximum(1, np.ceil(bottom - _TOLERANCE) - row)
    return _whole([col, row, width, height], table)


def _whole(box: list[Any], table: Any) -> NDArray[np.int64]:
    found = np.stack(box)
    if (far := (np.abs(found) > FARTHEST).any(axis=0)).any():
        raise RegionError(
            f"region {table.index[int(np.argmax(far))]!r} lies {FARTHEST:,} pixels away from the "
            "raster: its coordinates are hardly in the CRS that was given"
        )
    return found.astype(np.int64)
