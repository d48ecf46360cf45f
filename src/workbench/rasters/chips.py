"""What a plan's chips look like: their shape, what surrounds them, and the dataset they make."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import xarray as xr
from numpy.typing import NDArray

from workbench._extras import need
from workbench.datasets.labelling import single
from workbench.rasters import crop
from workbench.rasters.errors import FailedRegionsWarning, RegionError
from workbench.rasters.georeference import Raster
from workbench.rasters.layout import Ints, clipped
from workbench.rasters.resample import resample, sampled

if TYPE_CHECKING:
    from workbench.rasters.plan import Plan

_BOX = ("row", "col", "height", "width")
_RESERVED = {"image", "valid", "mask", "geotransform", "sample", "x", "y", "channel", "class"}


@dataclass(frozen=True)
class Form:
    """Height and width of the array of chips, its channels, dtype and fill."""

    height: int
    width: int
    channels: int
    dtype: str
    fill: Any
    resampled: bool
    resampling: str
    mask: bool
    polygons: bool

    @classmethod
    def of(cls, header: Raster, boxes: Ints, size: int | tuple[int, int] | None, channels: int,
           fill: float | None, resampling: str, mask: bool, polygons: bool) -> "Form":  # fmt: skip
        """Check the options against the raster; raise ``RegionError`` where they do not fit."""
        methods = need("rasterio.enums", extra="rasters").Resampling
        if resampling not in methods.__members__:
            raise RegionError(
                f"resampling={resampling!r} is none of {', '.join(methods.__members__)}"
            )
        sides = (int(boxes[:, 3].max()), int(boxes[:, 2].max())) if size is None else _pair(size)
        resampled = size is not None and bool((boxes[:, [3, 2]] != sides).any())
        return cls(*sides, channels, header.dtype, _fill(fill, header), resampled, resampling,
                   mask, polygons)  # fmt: skip

    @property
    def pixel_bytes(self) -> int:
        """Of one pixel with all its bands, and the mask where it is read too."""
        return (self.channels + self.mask) * np.dtype(self.dtype).itemsize

    @property
    def chip_bytes(self) -> int:
        """Of one chip with its `valid`."""
        return self.height * self.width * (self.pixel_bytes + 1)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int | np.integer) for side in sides):
        raise RegionError(f"size must be whole pixels, or (height, width), not {size!r}")
    if min(sides) < 1:
        raise RegionError(f"size must be 1 or more pixels, not {size!r}")
    return int(sides[0]), int(sides[1])


def _fill(fill: float | None, header: Raster) -> Any:
    value = fill if fill is not None else header.nodata if header.nodata is not None else 0
    dtype = np.dtype(header.dtype)
    with np.errstate(all="ignore"):
        cast = np.asarray(value).astype(dtype)[()]
    if dtype.kind in "iu" and cast != value:
        if fill is None:  # a nodata that the raster's own pixels cannot hold
            return dtype.type(0).item()
        raise RegionError(f"fill={fill!r} does not fit into the raster's {dtype}")
    return cast.item()


def load(
    plan: "Plan", *, on_error: crop.OnError, threads: int | None, progress: bool
) -> xr.Dataset:
    """Cut all regions into memory, in the table's order; see `Plan.load`."""
    form, layout, total = plan.form, plan.layout, len(plan.table)
    free = psutil.virtual_memory().available
    if total * form.chip_bytes > free:
        raise MemoryError(
            f"{total:,} chips take {total * form.chip_bytes / 2**30:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free; use to_xarray() or write()"
        )
    shape = (total, form.height, form.width)
    image = np.empty((*shape, form.channels + form.mask), form.dtype)
    valid = np.empty(shape, np.bool_)

    def work(group: int, cut: crop.Cut) -> None:
        fill_group(plan, group, cut, image, valid, layout.order[layout.members(group)])

    failures = crop.run(plan, np.arange(layout.groups), work, on_error=on_error, threads=threads,
                        progress=progress)  # fmt: skip
    ds = dataset(plan, np.arange(total), image, valid)
    return report(ds, plan, failures)


def fill_group(
    plan: "Plan", group: int, cut: crop.Cut, image: Any, valid: Any, at: Ints
) -> crop.Failures:
    """Cut a group's regions into the rows `at` of two arrays; return those that failed."""
    form, members = plan.form, plan.layout.members(group)
    regions = plan.layout.order[members]
    boxes = plan.boxes[regions]
    valid[at] = good = validity(plan, regions)
    if form.resampled:
        canvases = [np.empty((h, w, image.shape[3]), form.dtype) for w, h in boxes[:, 2:].tolist()]
        for canvas in canvases:
            fill_pixels(canvas, form)
    else:
        for row in at[~good.all(axis=(1, 2))]:
            fill_pixels(image[row], form)
        sides = zip(at.tolist(), boxes[:, 2:].tolist(), strict=True)
        canvases = [image[row, :high, :wide] for row, (wide, high) in sides]
    failures = cut(canvases.__getitem__)
    if form.resampled:
        for canvas, box, row in zip(canvases, boxes, at, strict=True):
            resample(plan, box, canvas, image[row])
    for position in failures:
        row = at[position - members.start]
        fill_pixels(image[row], form)
        valid[row] = False
    return failures


def fill_pixels(chip: NDArray[Any], form: Form) -> None:
    """Set a chip to the fill; the mask's channel to no data."""
    chip[..., : form.channels] = form.fill
    chip[..., form.channels :] = 0


def validity(plan: "Plan", regions: Ints) -> NDArray[np.bool_]:
    """Which pixels of some chips lie in the raster, and in their polygon if they have one."""
    form, boxes = plan.form, plan.boxes[regions]
    inside = clipped(boxes, plan.raster.height, plan.raster.width)
    down = _within(inside[:, :2] - boxes[:, 1:2], boxes[:, 3], form.height, form.resampled)
    across = _within(inside[:, 2:] - boxes[:, :1], boxes[:, 2], form.width, form.resampled)
    valid: NDArray[np.bool_] = down[:, :, None] & across[:, None, :]
    if form.polygons:
        polygons = plan.table["polygon"].iloc[regions]
        for i, (polygon, box) in enumerate(zip(polygons, boxes.tolist(), strict=True)):
            valid[i] &= _rasterized(polygon, box, form)
    return valid


def _within(span: Ints, length: Ints, size: int, resampled: bool) -> NDArray[np.bool_]:
    """Which of a chip's rows (or columns) come from the span of its box that is in the raster."""
    at = np.arange(size)[None, :]
    if resampled:
        at = sampled(length[:, None], size)
    return (at >= span[:, :1]) & (at < span[:, 1:])


def _rasterized(polygon: Any, box: list[int], form: Form) -> NDArray[np.bool_]:
    rasterio = need("rasterio", extra="rasters")
    col, row, width, height = box
    high, wide = (form.height, form.width) if form.resampled else (height, width)
    transform = rasterio.Affine(width / wide, 0, col, 0, height / high, row)
    features = need("rasterio.features", extra="rasters")
    marks = np.zeros((form.height, form.width), np.bool_)
    marks[:high, :wide] = features.geometry_mask([polygon], (high, wide), transform, invert=True)
    return marks


def dataset(plan: "Plan", regions: Ints, image: Any, valid: Any) -> xr.Dataset:
    """Put chips, and what the table says of them, into the form of an image dataset."""
    form, table = plan.form, plan.table.iloc[regions]
    dims = ("sample", "y", "x")
    data: dict[str, Any] = {"image": ((*dims, "channel"), image[..., : form.channels])}
    data["valid"] = (dims, valid)
    if form.mask:
        data["mask"] = (dims, image[..., form.channels] != 0)
    data |= {name: ("sample", table[name].to_numpy(np.int64)) for name in _BOX}
    data["geotransform"] = (("sample", "coefficient"), geotransforms(plan, regions))
    names = [plan.raster.descriptions[band - 1] or str(band) for band in plan.bands]
    coords: dict[str, Any] = {"sample": ids(table.index)}
    coords["channel"] = names if len(set(names)) == len(names) else [str(b) for b in plan.bands]
    label, classes = labels(plan)
    if label is not None:
        data["label"], coords["class"] = ("sample", label[regions]), np.array(classes, np.str_)
    for name in table.columns.difference(["label", "polygon", *_BOX], sort=False):
        data[f"{name}_" if name in _RESERVED else str(name)] = ("sample", _plain(table[name]))
    return xr.Dataset(data, coords, attributes(plan))


def labels(plan: "Plan") -> tuple[NDArray[np.int64] | None, list[str]]:
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


def geotransforms(plan: "Plan", regions: Ints) -> NDArray[np.float64]:
    """GDAL's six numbers for each chip."""
    x0, xc, xr_, y0, yc, yr = plan.raster.transform
    col, row, width, height = plan.boxes[regions].T
    form = plan.form
    across = width / form.width if form.resampled else np.ones(len(regions))
    down = height / form.height if form.resampled else np.ones(len(regions))
    return np.stack([x0 + col * xc + row * xr_, xc * across, xr_ * down,
                     y0 + col * yc + row * yr, yc * across, yr * down], axis=1)  # fmt: skip


def attributes(plan: "Plan") -> dict[str, Any]:
    """Where the chips come from, and what their pixels mean."""
    header = plan.raster
    attrs: dict[str, Any] = {
        "name": Path(header.path).stem,
        "source": f"raster {Path(header.path).name}",
        "sha256": hashlib.sha256(plan.fingerprint.encode()).hexdigest(),
        "sha256_of": "the raster's header, the regions and the options",
        "fill": plan.form.fill,
    }
    if header.nodata is not None:
        attrs["nodata"] = header.nodata
    if header.crs is not None:
        attrs["crs"] = header.crs
    return attrs


def report(ds: xr.Dataset, plan: "Plan", failures: crop.Failures) -> xr.Dataset:
    """Name the regions that failed in the dataset's attributes, and warn."""
    if failures:
        table = failed_table(plan, failures)
        warnings.warn(failed_text(table, len(plan.table)), FailedRegionsWarning, stacklevel=4)
        ds.attrs["failed"] = table["sample"].tolist()
    return ds


def failed_table(plan: "Plan", failures: crop.Failures) -> pd.DataFrame:
    """Id, block and error of each region that could not be read, in the table's order."""
    order = plan.layout.order
    rows = sorted((int(order[position]), error) for position, error in failures.items())
    return pd.DataFrame(
        {
            "sample": [plan.table.index[row] for row, _ in rows],
            "block_row": [error.block[0] for _, error in rows],
            "block_column": [error.block[1] for _, error in rows],
            "error": [error.reason for _, error in rows],
        }
    )


def failed_text(table: pd.DataFrame, total: int) -> str:
    """Say how many failed, which first, and why."""
    first = ", ".join(map(repr, table["sample"][:5].tolist()))
    blocks = len(table[["block_row", "block_column"]].drop_duplicates())
    return (
        f"{len(table):,} of {total:,} regions could not be read ({first}"
        f"{', ...' if len(table) > 5 else ''}): {blocks} bad block(s), the first at row "
        f"{table['block_row'][0]}, column {table['block_column'][0]}: {table['error'][0]}"
    )
