"""Boxes, polygons and points: one ragged table beside an image dataset, checked in one place."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench.datasets.errors import BadDataError, BadImageError, SkippedWarning
from workbench.datasets.images import Mode, content, decode, header_size

CORNERS = ["x_min", "y_min", "x_max", "y_max"]
COLUMNS = ["sample", *CORNERS, "label", "score", "source", "points"]


def as_table(
    boxes: pd.DataFrame | Iterable[Mapping[str, Any]] = (), ds: xr.Dataset | None = None
) -> pd.DataFrame:
    """Table of boxes with every column in its type; raise where a row contradicts itself.

    Parameters
    ----------
    boxes
        A DataFrame or rows. Each needs ``sample`` and the corners, or ``points`` in their place.
    ds
        The image dataset; with it every ``sample`` must be one of its ids.

    Returns
    -------
    pandas.DataFrame
        One row an object: ``sample``; ``x_min``, ``y_min``, ``x_max``, ``y_max`` float64, pixels
        of the full-size upright image, half-open; ``label``, the class's name, "" for none;
        ``score`` float64, NaN for none; ``source`` text; ``points`` None for a box, float64
        (n, 2) of x, y for a polygon of n corners, (1, 2) for a point. Other columns come after.

    Raises
    ------
    BadDataError
        A column is missing, a corner is no finite number, a box ends before it begins, or a
        sample is not in `ds`.

    Examples
    --------
    >>> as_table([{"sample": 7, "x_min": 1, "y_min": 2, "x_max": 4, "y_max": 6, "label": "cat"}])
       sample  x_min  y_min  x_max  y_max label  score source points
    0       7    1.0    2.0    4.0    6.0   cat    NaN          None
    """
    frame = boxes if isinstance(boxes, pd.DataFrame) else pd.DataFrame(list(boxes))
    table = frame.reset_index(drop=True)
    if table.empty:
        table = table.reindex(columns=[*COLUMNS, *table.columns.difference(COLUMNS)])
    missing = {"sample", *CORNERS} - set(table)
    if missing and ("points" not in table or "sample" in missing):
        raise BadDataError(
            f"a table of boxes has the columns {', '.join(COLUMNS)}; "
            f"{', '.join(sorted(missing))} missing among {', '.join(map(str, table))}"
        )
    for name in [*CORNERS, "score"]:
        values = table[name] if name in table else pd.Series(np.nan, table.index)
        table[name] = pd.to_numeric(values, errors="coerce").astype(np.float64)
    table["points"] = _points(table)
    bare = table["points"].notna() & table[CORNERS].isna().all(axis=1)
    if bare.any():
        table.loc[bare, CORNERS] = np.array([bounds(own) for own in table.loc[bare, "points"]])
    for name in ("label", "source"):
        texts = table[name].tolist() if name in table else [""] * len(table)
        table[name] = np.array(["" if pd.isna(text) else str(text) for text in texts], object)
    if ds is not None and table.empty:
        table["sample"] = ds["sample"].values[:0]
    _check(table, ds)
    return table[[*COLUMNS, *(name for name in table if name not in COLUMNS)]]


def bounds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smallest box around points (n, 2): x_min, y_min, x_max, y_max."""
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def image_sizes(ds: xr.Dataset) -> NDArray[np.int64]:
    """Height and width of every full-size upright image, int64 (sample, 2).

    From ``height`` and ``width`` (sample,) where the dataset has them, else from the headers of
    the files in ``path``, else from ``image``, which then is at full size.

    Raises
    ------
    BadImageError
        The header of a file cannot be read.

    Examples
    --------
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), np.zeros((2, 3, 5, 1)))})
    >>> image_sizes(ds).tolist()
    [[3, 5], [3, 5]]
    """
    if "height" in ds and "width" in ds:
        return np.stack([ds["height"].values, ds["width"].values], axis=1).astype(np.int64)
    own = (ds.sizes["y"], ds.sizes["x"])
    if "path" not in ds:
        return np.tile(np.array(own, np.int64), (ds.sizes["sample"], 1))
    sizes = []
    for path in map(str, ds["path"].values):
        size = header_size(path) if path else own
        if size is None:
            raise BadImageError(path, "not there, or not an image in a format that Pillow reads")
        sizes.append(size)
    return np.array(sizes, np.int64).reshape(-1, 2)


def image_of(ds: xr.Dataset, at: int, longest: int | None = None) -> NDArray[Any]:
    """The upright image at a position, (y, x, channel), from its file where it has one.

    An image from a file is scaled down to at most `longest` pixels a side; None leaves its size.

    Raises
    ------
    BadImageError
        The file cannot be read.
    """
    one = ds.isel(sample=[at])
    path = str(one["path"].values[0]) if "path" in ds else ""
    if not path:
        return np.asarray(one["image"].transpose("sample", "y", "x", "channel").values[0])
    size = None
    if longest is not None:
        own = image_sizes(one)[0]
        height, width = np.ceil(own * min(1, longest / own.max()) - 1e-6).astype(int).tolist()
        size = height, width
    mode: Mode = "L" if ds.sizes["channel"] == 1 else "RGB"
    return decode(content(path, path), path, size, "stretch", mode)


def clip(boxes: pd.DataFrame, ds: xr.Dataset, where: str = "the table") -> pd.DataFrame:
    """Boxes cut off at the edges of their images, without empty ones; a warning counts both.

    Parameters
    ----------
    boxes
        As :func:`as_table` takes them. A polygon's corners outside move to the nearest edge.
    ds
        The image dataset.
    where
        What the warning calls the boxes.

    Returns
    -------
    pandas.DataFrame
        A point's box is a point; all others have a width and a height of more than 0.
    """
    table = as_table(boxes, ds)
    at = pd.Index(ds["sample"].values).get_indexer(table["sample"])
    limit = np.tile(image_sizes(ds)[at, ::-1], 2).astype(np.float64)
    before = table[CORNERS].to_numpy()
    after = np.clip(before, 0, limit)
    is_point = np.array([own is not None and len(own) == 1 for own in table["points"]], dtype=bool)
    empty = (after[:, 2:] <= after[:, :2]).any(axis=1) & ~is_point
    empty |= is_point & (before != after).any(axis=1)
    out = (before != after).any(axis=1) & ~empty
    if out.any() or empty.any():
        warnings.warn(
            f"{where}: of {len(table)} boxes {out.sum()} stuck out of their image and were "
            f"clipped, {empty.sum()} were empty or outside and were skipped; the first is of "
            f"sample {str(table['sample'][int(np.argmax(out | empty))])!r}",
            SkippedWarning,
            stacklevel=2,
        )
    table[CORNERS] = after
    table["points"] = _objects(
        own if own is None else np.clip(own, 0, edge[:2])
        for own, edge in zip(table["points"], limit, strict=True)
    )
    kept: pd.DataFrame = table.loc[~empty].reset_index(drop=True)
    return kept


def with_boxes(ds: xr.Dataset, boxes: pd.DataFrame) -> xr.Dataset:
    """A dataset that carries its table of boxes along the dimension ``box``."""
    return ds.assign({f"box_{name}": ("box", boxes[name].to_numpy()) for name in boxes})


def boxes_of(batch: xr.Dataset) -> pd.DataFrame:
    """The table of boxes that a batch of a stream carries."""
    names = [str(name) for name in batch.data_vars if batch[name].dims == ("box",)]
    return as_table(pd.DataFrame({name.removeprefix("box_"): batch[name].values for name in names}))


def _points(table: pd.DataFrame) -> NDArray[np.object_]:
    """The column of points as arrays; a table without it has boxes only."""
    given = table["points"] if "points" in table else [None] * len(table)
    return _objects(_point_array(row, value) for row, value in enumerate(given))


def _point_array(row: int, value: Any) -> NDArray[np.float64] | None:
    if value is None or np.ndim(value) == 0:  # NaN, as pandas fills it in
        return None
    try:
        points = np.asarray(value, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        points = np.full((1, 2), np.nan)
    if len(points) in (0, 2) or not np.isfinite(points).all():
        raise BadDataError(
            f"row {row} of the boxes: points must be None, (1, 2) for a point or (n, 2) with n of "
            f"3 or more for a polygon, all finite; found {str(value)[:60]}"
        )
    return points


def _objects(values: Iterable[Any]) -> NDArray[np.object_]:
    """An array of objects, which np.array would join to one array where their shapes agree."""
    return np.fromiter(values, dtype=object)


def _check(table: pd.DataFrame, ds: xr.Dataset | None) -> None:
    corners = table[CORNERS].to_numpy()
    bad = {
        "corners that are no finite numbers": ~np.isfinite(corners).all(axis=1),
        "boxes that end before they begin": (corners[:, 2:] < corners[:, :2]).any(axis=1),
    }
    if ds is not None:
        known = table["sample"].isin(ds["sample"].values).to_numpy(dtype=bool)
        bad["samples that are not in the dataset"] = ~known
    for what, rows in bad.items():
        if rows.any():
            first = int(np.argmax(rows))
            shown = ", ".join(map(str, table.loc[first, ["sample", *CORNERS]]))
            raise BadDataError(
                f"{rows.sum()} of {len(table)} rows have {what}, the first is row {first}: {shown}"
            )
