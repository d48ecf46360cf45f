"""How a plan's work is divided: into units that are read, groups, and threads.

What a plan's chips look like: their size, channels, dtype and fill.

Which pixels are read for regions: the raster's own, or those of one of its overviews.
"""

import hashlib
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.errors import RegionError
from workbench.rasters.raster import Raster, read_header
from workbench.rasters.schedule import Ints, Layout, Schedule, make_grid, make_layout, rows_of_piece


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Form:
    """Height and width of the array of chips, its channels, dtype and fill.

    ``rows`` are the rows of a chip that are read at a time: all, unless it is very large.
    """

    height: int
    width: int
    rows: int
    channels: int
    dtype: str
    fill: Any
    resampled: bool
    resampling: str
    mask: bool

    @property
    def pixel_bytes(self) -> int:
        """Of one pixel with all its bands, and the mask where it is read too."""
        return (self.channels + self.mask) * np.dtype(self.dtype).itemsize

    @property
    def chip_bytes(self) -> int:
        """Of one chip with its `valid`."""
        return self.height * self.width * (self.pixel_bytes + 1)

    @property
    def pieces(self) -> int:
        """Pieces of a chip that are read one by one."""
        return -(-self.height // self.rows)

    def blank(self, chip: NDArray[Any]) -> None:
        """Set a chip to the fill, its mask to no data."""
        chip[..., : self.channels] = self.fill
        chip[..., self.channels :] = 0


def make_form(
    header: Raster,
    boxes: Ints,
    read: Ints,
    size: int | tuple[int, int] | None,
    channels: int,
    fill: float | None,
    resampling: str,
    mask: bool,
    memory: int,
) -> Form:
    """Check the options against the raster; raise ``RegionError`` where they do not fit.

    `boxes` are the regions', `read` those that are read for them, of an overview perhaps.
    """
    methods = need("rasterio.enums", extra="rasters").Resampling.__members__
    if resampling not in methods:
        raise RegionError(f"resampling={resampling!r} is none of {', '.join(methods)}")
    largest = (int(boxes[:, 3].max()), int(boxes[:, 2].max()))
    height, width = largest if size is None else pair(size)
    resampled = size is not None and bool((boxes[:, [3, 2]] != (height, width)).any())
    pixel = (channels + mask) * np.dtype(header.dtype).itemsize + 1
    rows = rows_of_piece(height, width * pixel, memory)
    if resampled:
        needed = int((read[:, 2] * read[:, 3]).max()) * pixel
        if rows < height or rows_of_piece(1, needed, memory // 2) < 1:
            raise RegionError(
                f"resampling needs a whole region, {needed / 2**20:,.0f} MiB, in memory at once; "
                f"give more than memory={memory / 2**20:,.0f}MiB, or cut without size="
            )
        rows = height
    return Form(height, width, rows, channels, header.dtype, _fill(fill, header), resampled,
                resampling, mask)  # fmt: skip


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a size in pixels; raise ``RegionError`` where it is none."""
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
            return 0
        raise RegionError(f"fill={fill!r} does not fit into the raster's {dtype}")
    return cast.item()


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


@dataclass(frozen=True, eq=False)
class PlanData:
    """Everything that a plan knows; see `Plan` for its attributes."""

    raster: Raster
    table: pd.DataFrame
    skipped: pd.DataFrame
    form: Form
    bands: list[int]
    memory: int
    decoder: str
    boxes: Ints = field(repr=False)
    reading: Reading = field(repr=False)

    @property
    def mask(self) -> bool:
        """Whether the raster's own mask is read too."""
        return self.form.mask

    @cached_property
    def whole(self) -> bool:
        """Whether every region fills its chip with pixels of the raster."""
        form, raster, box = self.form, self.raster, self.boxes.T
        same = form.pieces == 1 and not form.resampled and "polygon" not in self.table
        return same and bool(
            (box[2] == form.width).all()
            and (box[3] == form.height).all()
            and (box[:2] >= 0).all()
            and (box[0] + box[2] <= raster.width).all()
            and (box[1] + box[3] <= raster.height).all()
        )

    @cached_property
    def units(self) -> Ints:
        """Boxes that are read at a time: the regions', or pieces of them where they are large."""
        form, boxes = self.form, self.reading.boxes
        if form.pieces == 1:
            return boxes
        units = np.repeat(boxes, form.pieces, axis=0)
        first = np.tile(np.arange(form.pieces) * form.rows, len(boxes))
        height = np.clip(units[:, 3] - first, 0, form.rows)
        units[:, 1] += first
        units[:, 3] = height
        return units

    def slot(self, unit: int) -> Any:
        """Where in the array of all chips a unit's pixels go."""
        form = self.form
        if form.pieces == 1:
            return unit
        first = unit % form.pieces * form.rows
        return unit // form.pieces, slice(first, first + form.rows)

    @cached_property
    def layout(self) -> Layout:
        """Units in the order in which they are read."""
        form = self.form
        grid = make_grid(self.reading.raster, form.pixel_bytes, self.memory)
        largest = int((self.units[:, 2] * self.units[:, 3]).max())
        chip = max(largest, form.rows * form.width) * (form.pixel_bytes + 1)
        if form.pieces > 1:  # a shard is a piece, so that none is written by two
            chip = self.memory
        return make_layout(grid, self.units, chip, form.pixel_bytes, self.memory)

    def schedule(self, groups: Ints | None = None) -> Schedule:
        """Who decodes which cell, if these groups are to be read; all by default."""
        groups = np.arange(self.layout.groups) if groups is None else groups
        return Schedule(self.layout, groups, self.form.pixel_bytes, self.memory)

    def threads(self) -> int:
        """Threads that fit into the memory: each holds a group's chips, encoded ones, and cells."""
        return max(1, min(cores(), int(self.memory / 2 // self.thread_bytes)))

    @property
    def thread_bytes(self) -> int:
        """What a thread takes at most."""
        cell, size = self.layout.grid.cell, self.layout.size
        group = size * self.form.rows * self.form.width * (self.form.pixel_bytes + 1)
        return 2 * group + 2 * cell[0] * cell[1] * self.form.pixel_bytes

    @property
    def fingerprint(self) -> str:
        """Tells two plans apart: of the raster's header, the boxes, the ids and all options.

        The raster's size in bytes and its time, `Raster.state`, are no part of it.
        """
        header = replace(self.reading.raster, state=None)
        sha = hashlib.sha256(repr((header, self.form, self.bands, self.memory)).encode())
        sha.update(np.ascontiguousarray(self.boxes).tobytes())
        sha.update(pd.util.hash_pandas_object(self.table.index.to_series()).to_numpy().tobytes())
        return sha.hexdigest()
