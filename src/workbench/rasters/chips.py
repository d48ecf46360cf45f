"""Chips as an image dataset, with what the table and the raster say of each."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import xarray as xr
from numpy.typing import NDArray

from workbench.datasets.class_numbers import single
from workbench.rasters import crop
from workbench.rasters.crop import Cells, Failures, Job
from workbench.rasters.errors import FailedRegionsWarning
from workbench.rasters.plan_data import PlanData
from workbench.rasters.schedule import Ints

_BOX = ("row", "col", "height", "width")
_DIMENSIONS = {"sample", "x", "y", "channel", "class", "coefficient", "position"}
_RESERVED = {"image", "valid", "mask", "geotransform", *_DIMENSIONS}


def load(
    plan: PlanData, *, on_error: crop.OnError, threads: int | None, progress: bool
) -> xr.Dataset:
    """Cut all regions into memory, in the table's order; see `Plan.load`."""
    form = plan.chip_format
    layout = plan.layout
    total = len(plan.table)
    check_room(total, form.chip_bytes)
    shape = (total, form.height, form.width)
    image = np.empty((*shape, form.channels + form.mask), form.dtype)
    # np.ones would write it all now; most tables never touch the raster's edge
    valid: NDArray[np.bool_] = np.broadcast_to(np.True_, shape)
    if not plan.whole:
        valid = np.empty(shape, np.bool_)

    def fill(job: Job, cells: Cells) -> Failures:
        at = [plan.slot(unit) for unit in layout.order[layout.members(job.group)].tolist()]
        failures = job.fill(cells, [image[slot] for slot in at])
        if not plan.whole:
            for slot, good in zip(at, job.validity(failures), strict=True):
                part = valid[slot]
                part[...] = good[: len(part)]
        return failures

    groups = np.arange(layout.groups)
    failures = crop.run(plan, groups, fill, on_error=on_error, threads=threads, progress=progress)
    if failures and plan.whole:
        valid = valid.copy()
        valid[layout.order[list(failures)]] = False
    ds = dataset(plan, np.arange(total), image, valid)
    return report(ds, plan, failures)


def check_room(total: int, chip_bytes: int) -> None:
    """Raise ``MemoryError`` where so many chips do not fit into what is free."""
    free = psutil.virtual_memory().available
    if total * chip_bytes > free:
        raise MemoryError(
            f"{total:,} chips take {total * chip_bytes / 2**30:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free; use to_xarray() or write()"
        )


def dataset(plan: PlanData, regions: Ints, image: Any, valid: Any) -> xr.Dataset:
    """Put chips, and what the table says of them, into the form of an image dataset."""
    form = plan.chip_format
    dims = ("sample", "y", "x")
    data: dict[str, Any] = {"image": ((*dims, "channel"), image[..., : form.channels])}
    data["valid"] = (dims, valid)
    if form.mask:
        data["mask"] = (dims, image[..., form.channels] != 0)
    data["geotransform"] = (("sample", "coefficient"), geotransforms(plan, regions))
    return described(plan, regions).assign(data)


def described(plan: PlanData, regions: Ints) -> xr.Dataset:
    """What the table and the raster say of chips, without their pixels and geotransforms."""
    table = plan.table.iloc[regions]
    data: dict[str, Any] = {name: ("sample", table[name].to_numpy(np.int64)) for name in _BOX}
    coords: dict[str, Any] = {"sample": ids(table.index), "channel": channels(plan)}
    label, classes = labels(plan)
    if label is not None:
        data["label"] = ("sample", label[regions])
        coords["class"] = np.array(classes, np.str_)
    for name in table.columns.difference(["label", "polygon", *_BOX], sort=False):
        data[f"{name}_" if name in _RESERVED else str(name)] = ("sample", _plain(table[name]))
    return xr.Dataset(data, coords, attributes(plan))


def channels(plan: PlanData) -> list[str]:
    """The bands' descriptions where they have any and differ, else their numbers."""
    pairs = zip(plan.read_bands, plan.bands, strict=True)
    names = [band.description or str(number) for band, number in pairs]
    return names if len(set(names)) == len(names) else [str(band) for band in plan.bands]


def labels(plan: PlanData) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Class numbers and names of the table's column ``label``, if it has one."""
    if "label" not in plan.table:
        return None, []
    column = plan.table["label"]
    return single(
        column.astype(object).where(column.notna(), None).tolist(), "the column label", None
    )


def ids(index: pd.Index) -> NDArray[Any]:
    """Ids of the samples: integers or texts."""
    whole = pd.api.types.is_integer_dtype(index.dtype)
    return index.to_numpy(np.int64) if whole else index.astype(str).to_numpy(np.str_)


def _plain(column: "pd.Series[Any]") -> NDArray[Any]:
    """A column as numbers, times or text, which any file format can hold."""
    values = column.to_numpy()
    if values.dtype.kind in "biufcmM":
        return values
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(np.float64, na_value=np.nan)
    return np.array(["" if pd.isna(value) else str(value) for value in column], np.str_)


def geotransforms(plan: PlanData, regions: Ints) -> NDArray[np.float64]:
    """GDAL's six numbers for each chip."""
    x0, x_col, x_row, y0, y_col, y_row = plan.raster.transform
    col, row, width, height = plan.boxes[regions].T
    form = plan.chip_format
    across = width / form.width if form.resampled else np.ones(len(regions))
    down = height / form.height if form.resampled else np.ones(len(regions))
    x = x0 + col * x_col + row * x_row
    y = y0 + col * y_col + row * y_row
    return np.stack([x, x_col * across, x_row * down, y, y_col * across, y_row * down], axis=1)


def attributes(plan: PlanData) -> dict[str, Any]:
    """Where the chips come from, and what their pixels mean."""
    header = plan.raster
    attrs: dict[str, Any] = {
        "name": Path(header.path).stem,
        "source": f"raster {Path(header.path).name}",
        "sha256": hashlib.sha256(plan.fingerprint.encode()).hexdigest(),
        "sha256_of": "the raster's header, the regions and the options",
        "fill": _one_or_all(plan.chip_format.fill),
    }
    bands = plan.read_bands
    for name, plain in (("nodata", None), ("scale", 1), ("offset", 0), ("unit", "")):
        values = [getattr(band, name) for band in bands]
        if any(value != plain for value in values):
            attrs[name] = _one_or_all(values)
    attrs["color"] = [band.color for band in bands]
    if any(band.colors for band in bands):
        attrs["colors"] = [[list(color) for color in band.colors] for band in bands]
    if header.tags or any(band.tags for band in bands):
        attrs["tags"] = dict(header.tags)
        attrs["band_tags"] = [dict(band.tags) for band in bands]
    if header.crs is not None:
        attrs["crs"] = header.crs
    return attrs


def _one_or_all(values: Sequence[Any]) -> Any:
    """One value where all bands have the same, else a list; JSON has no complex numbers."""
    values = [value.real if isinstance(value, complex) else value for value in values]
    same = len({repr(value) for value in values}) == 1
    return values[0] if same else list(values)


def report(ds: xr.Dataset, plan: PlanData, failures: Failures) -> xr.Dataset:
    """Name the regions that failed in the dataset's attributes, and warn."""
    if failures:
        table = failed_table(plan, failures)
        warnings.warn(failed_text(table, len(plan.table)), FailedRegionsWarning, stacklevel=4)
        ds.attrs["failed"] = table["sample"].tolist()
    return ds


def failed_table(plan: PlanData, failures: Failures) -> pd.DataFrame:
    """Id, block and error of each region that could not be read, in the table's order."""
    units = plan.layout.order
    errors = {
        int(units[position]) // plan.chip_format.pieces: error
        for position, error in failures.items()
    }
    rows = sorted(errors.items())
    return pd.DataFrame(
        {
            "sample": [plan.table.index[row] for row, _ in rows],
            "block_row": [error.block[0] for _, error in rows],
            "block_column": [error.block[1] for _, error in rows],
            "error": [error.reason for _, error in rows],
        }
    )


def first_ids(ids: Any) -> str:
    """The first of some ids, for a message."""
    return ", ".join(map(repr, ids[:5].tolist())) + (", ..." if len(ids) > 5 else "")


def failed_text(table: pd.DataFrame, total: int) -> str:
    """Say how many failed, which first, and why."""
    blocks = len(table[["block_row", "block_column"]].drop_duplicates())
    return (
        f"{len(table):,} of {total:,} regions could not be read "
        f"({first_ids(table['sample'])}): {blocks} bad block(s), the first at row "
        f"{table['block_row'][0]}, column {table['block_column'][0]}: {table['error'][0]}"
    )
