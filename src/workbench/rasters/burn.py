"""Labels from vectors: a class mask for each chip."""

from typing import Any

import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from workbench._cover import burned
from workbench.rasters import chips
from workbench.rasters.errors import RegionError
from workbench.rasters.plan_data import PlanData
from workbench.rasters.regions import in_pixels

#: The types that GDAL burns, and their like.
_TYPES = ["uint8", "int16", "int32", "int64"]


def burn(
    plan: PlanData,
    features: Any,
    column: str | None = None,
    *,
    all_touched: bool = False,
    background: int = 0,
    progress: bool = True,
) -> xr.DataArray:
    """Rasterize features over a plan's chips: a mask of values for each. Nothing is read.

    Parameters
    ----------
    plan
        From `plan`.
    features
        A GeoDataFrame with a CRS: polygons, lines or points. Of several over a pixel the last
        counts.
    column
        Its values: whole numbers, which are burned as they are, or names, which are numbered from
        1 in sorted order. By default 1 for each feature.
    all_touched
        Burn every pixel that a feature touches, not only those whose centre lies in it.
    background
        The value of all other pixels.
    progress
        Show a bar.

    Returns
    -------
    xarray.DataArray
        (sample, y, x), in the table's order, of the smallest type of whole numbers that holds the
        values: what ``rasterio.features.rasterize`` gives for the whole raster, cut like the chips.
        ``attrs["classes"]`` are the names by their numbers.

    Raises
    ------
    RegionError
        There is no such column, a value is missing or no whole number, or a geometry is empty.

    Examples
    --------
    >>> burn(plan, fields, "crop", all_touched=True)  # doctest: +SKIP
    """
    values, classes = _values(features, column)
    shapes = features.geometry
    if (off := (shapes.isna() | shapes.is_empty).to_numpy()).any():
        raise RegionError(f"feature {features.index[int(np.argmax(off))]!r} has no geometry")
    both = np.append(values, background)
    dtype = next(
        name
        for name in _TYPES
        if np.can_cast(np.min_scalar_type(both.min()), name)
        and np.can_cast(np.min_scalar_type(both.max()), name)
    )
    form = plan.chip_format
    total = len(plan.table)
    chips.check_room(total, form.height * form.width * np.dtype(dtype).itemsize)
    masks = np.full((total, form.height, form.width), background, dtype)
    pixels = in_pixels(shapes, plan.raster, shapes.crs)
    col, row, width, height = plan.boxes.T
    squares = shapely.box(col, row, col + width, row + height)
    of_chip, of_feature = shapely.STRtree(pixels).query(squares)
    order = np.lexsort((of_feature, of_chip))
    chip_of, start = np.unique(of_chip[order], return_index=True)
    runs = np.split(of_feature[order], start[1:])
    for at, near in zip(
        tqdm(chip_of, "burn", unit="chip", disable=not progress), runs, strict=True
    ):
        box = plan.boxes[at].tolist()
        high, wide = (form.height, form.width) if form.resampled else (box[3], box[2])
        pairs = [(pixels[i], int(values[i])) for i in near]
        masks[at, :high, :wide] = burned(pairs, box, (high, wide), dtype, background, all_touched)
    mask = xr.DataArray(masks, dims=("sample", "y", "x"), name=column or "mask")
    mask = mask.assign_coords(sample=chips.ids(plan.table.index))
    return mask.assign_attrs(classes=classes) if classes else mask


def _values(features: Any, column: str | None) -> tuple[NDArray[np.int64], list[str]]:
    """What to burn for each feature, and the names of its numbers."""
    if not hasattr(features, "geometry"):
        raise TypeError(f"features must be a GeoDataFrame, not {type(features)}")
    if column is None:
        return np.ones(len(features), np.int64), []
    if column not in features:
        have = ", ".join(map(str, features.columns))
        raise RegionError(f"the features have no column {column!r}; they have {have}")
    cells = features[column]
    if (off := cells.isna().to_numpy()).any():
        raise RegionError(f"{column} of feature {features.index[int(np.argmax(off))]!r} is missing")
    if cells.dtype.kind not in "biuf":
        names, numbers = np.unique(cells.astype(str).to_numpy(str), return_inverse=True)
        return numbers.astype(np.int64) + 1, ["", *names.tolist()]
    values = cells.to_numpy()
    if (values != np.round(values)).any():
        raise RegionError(
            f"{column} holds {values[values != np.round(values)][0]}, no whole number"
        )
    return values.astype(np.int64), []
