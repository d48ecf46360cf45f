"""Everything that a plan knows: the chips' format, what is read for them, units and groups."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from rasterio.enums import Resampling

from workbench._machine import processors
from workbench.rasters.errors import RegionError
from workbench.rasters.raster import Band, Raster, read_header
from workbench.rasters.schedule import (
    Grid,
    Ints,
    Layout,
    Schedule,
    make_grid,
    make_layout,
    rows_of_piece,
)


@dataclass(frozen=True)
class ChipFormat:
    """Height and width of the array of chips, its channels, dtype and fill.

    ``rows`` are the rows of a chip that are read at a time: all, unless it is very large. ``fill``
    has a value for each channel. ``mask``: the raster's mask comes as a last channel of the chips;
    ``reads_mask``: it is read, perhaps only to keep missing pixels out of averages.
    """

    height: int
    width: int
    rows: int
    channels: int
    dtype: str
    fill: tuple[Any, ...]
    resampled: bool
    resampling: str
    mask: bool
    reads_mask: bool

    @property
    def pixel_bytes(self) -> int:
        """Of one pixel with all its bands, and the mask where it is read too."""
        return (self.channels + self.reads_mask) * np.dtype(self.dtype).itemsize

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


def make_chip_format(
    source: "ReadSource",
    boxes: Ints,
    bands: list[int],
    size: int | tuple[int, int] | None,
    fill: float | None,
    resampling: str,
    mask: bool,
    memory: int,
) -> ChipFormat:
    """Check the options against the raster; raise ``RegionError`` where they do not fit.

    `boxes` are the regions' in the raster's pixels; those of `source` are read for them.
    """
    if resampling not in Resampling.__members__:
        raise RegionError(
            f"resampling={resampling!r} is none of {', '.join(Resampling.__members__)}"
        )
    largest = int(boxes[:, 3].max()), int(boxes[:, 2].max())
    height, width = largest if size is None else pair(size)
    source.raster.dtype(bands)
    dtype = source.raster.bands[bands[0] - 1].dtype
    resampled = size is not None and bool((boxes[:, [3, 2]] != (height, width)).any())
    masked = any(source.raster.stored[band - 1].masked_by == "mask" for band in bands)
    changes = bool(source.raster.unscaled) or (resampled and resampling != "nearest")
    reads_mask = mask or (changes and masked)
    pixel = (len(bands) + reads_mask) * np.dtype(dtype).itemsize + 1
    rows = rows_of_piece(height, width * pixel, memory)
    if resampled:
        needed = int((source.boxes[:, 2] * source.boxes[:, 3]).max()) * pixel
        if rows < height or rows_of_piece(1, needed, memory // 2) < 1:
            raise RegionError(
                f"resampling needs a whole region, {needed / 2**20:,.0f} MiB, in memory at once; "
                f"give more than memory={memory / 2**20:,.0f}MiB, or cut without size="
            )
        rows = height
    return ChipFormat(
        height=height,
        width=width,
        rows=rows,
        channels=len(bands),
        dtype=dtype,
        fill=tuple(_fill(fill, source.raster.bands[band - 1], dtype) for band in bands),
        resampled=resampled,
        resampling=resampling,
        mask=mask,
        reads_mask=reads_mask,
    )


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a size in pixels; raise ``RegionError`` where it is none."""
    sides = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int | np.integer) for side in sides):
        raise RegionError(f"size must be whole pixels, or (height, width), not {size!r}")
    if min(sides) < 1:
        raise RegionError(f"size must be 1 or more pixels, not {size!r}")
    return int(sides[0]), int(sides[1])


def _fill(fill: float | None, band: Band, dtype: str) -> Any:
    """The value for missing pixels of a band, in the chips' type."""
    value = fill if fill is not None else band.nodata if band.nodata is not None else 0
    with np.errstate(all="ignore"):
        cast = np.asarray(value).astype(dtype)[()]
    if np.dtype(dtype).kind in "iu" and cast != value:
        if fill is None:  # a nodata that the raster's own pixels cannot hold
            return 0
        raise RegionError(f"fill={fill!r} does not fit into the raster's {dtype}")
    return cast.item()


@dataclass(frozen=True)
class ReadSource:
    """What is read: the raster, or one of its overviews."""

    raster: Raster
    #: (region, 4): column, row, width and height in its pixels, whole.
    boxes: Ints
    #: The regions' own boxes, where `raster` is an overview.
    regions: Ints | None = None
    #: Pixels of it for one of the raster: across and down.
    scale: tuple[float, float] = (1.0, 1.0)

    def exact(self, rows: Ints) -> NDArray[Any] | None:
        """Some regions in the pixels of an overview, in which they are not whole."""
        return None if self.regions is None else self.regions[rows] * (self.scale * 2)

    def polygons(self, shapes: Any) -> list[Any]:
        """Polygons in the pixels of what is read."""
        if self.regions is None:
            return list(shapes)
        return list(shapely.transform(shapes.to_numpy(object), lambda xy: xy * self.scale))


def make_read_source(header: Raster, boxes: Ints, size: int | tuple[int, int] | None) -> ReadSource:
    """Choose the coarsest overview that is no coarser than the chips (of `size`) of any region."""
    if size is None:
        return ReadSource(header, boxes)
    height, width = pair(size)
    least = float(min((boxes[:, 3] / height).min(), (boxes[:, 2] / width).min()))
    fitting = [factor for factor in header.overviews if 1 < factor <= least]
    if not fitting:
        return ReadSource(header, boxes)
    overview = read_header(header, header.overviews.index(max(fitting)))
    overview = overview.scaled() if header.unscaled else overview
    scale = overview.width / header.width, overview.height / header.height
    low = np.floor(boxes[:, :2] * scale).astype(np.int64)
    end = np.ceil((boxes[:, :2] + boxes[:, 2:]) * scale).astype(np.int64)
    return ReadSource(overview, np.hstack([low, end - low]), boxes, scale)


@dataclass(frozen=True)
class Settings:
    """What all groups of a plan have in common: small enough to go with each to a worker."""

    raster: Raster
    bands: list[int]
    chip_format: ChipFormat
    grid: Grid
    decoder: str


@dataclass(frozen=True, eq=False)
class PlanData:
    """Everything that a plan knows; see `Plan` for its attributes."""

    raster: Raster
    table: pd.DataFrame
    skipped: pd.DataFrame
    chip_format: ChipFormat
    bands: list[int]
    memory: int
    decoder: str
    boxes: Ints = field(repr=False)
    source: ReadSource = field(repr=False)
    #: the memory that groups were made for, where an earlier run had another budget
    layout_memory: int = 0

    @cached_property
    def settings(self) -> Settings:
        """What all groups have in common."""
        grid = self.layout.grid
        return Settings(self.source.raster, self.bands, self.chip_format, grid, self.decoder)

    @cached_property
    def read_bands(self) -> list[Band]:
        """What the raster says of the bands that are read."""
        return [self.raster.bands[band - 1] for band in self.bands]

    def without_data(self, pixels: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[np.bool_]:
        """Which pixels (..., band) hold no data in any band."""
        bands = enumerate(self.read_bands)
        gone = [band.missing(pixels[..., channel], mask) for channel, band in bands]
        return np.logical_and.reduce(gone)  # type: ignore[no-any-return]

    def with_mask(self) -> "PlanData":
        """The same plan, and the raster's mask with it where it has one."""
        if not any(self.raster.stored[band - 1].masked_by == "mask" for band in self.bands):
            return self
        return replace(self, chip_format=replace(self.chip_format, mask=True, reads_mask=True))

    @cached_property
    def whole(self) -> bool:
        """Whether every region fills its chip with pixels of the raster."""
        form = self.chip_format
        raster = self.raster
        box = self.boxes.T
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
        form = self.chip_format
        boxes = self.source.boxes
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
        form = self.chip_format
        if form.pieces == 1:
            return unit
        first = unit % form.pieces * form.rows
        return unit // form.pieces, slice(first, first + form.rows)

    @cached_property
    def layout(self) -> Layout:
        """Units in the order in which they are read."""
        form = self.chip_format
        memory = self.layout_memory or self.memory
        grid = make_grid(self.source.raster, form.pixel_bytes, memory)
        largest = int((self.units[:, 2] * self.units[:, 3]).max())
        chip = max(largest, form.rows * form.width) * (form.pixel_bytes + 1)
        if form.pieces > 1:  # a shard is a piece, so that none is written by two
            chip = memory
        return make_layout(grid, self.units, chip, form.pixel_bytes, memory)

    def schedule(self, groups: Ints | None = None) -> Schedule:
        """Who decodes which cell, if these groups are to be read; all by default."""
        groups = np.arange(self.layout.groups) if groups is None else groups
        return Schedule(self.layout, groups, self.chip_format.pixel_bytes, self.memory)

    def threads(self) -> int:
        """Threads that fit into the memory: each holds a group's chips, encoded ones, and cells."""
        return max(1, min(processors(), int(self.memory / 2 // self.thread_bytes)))

    @property
    def thread_bytes(self) -> int:
        """What a thread takes at most."""
        form = self.chip_format
        cell = self.layout.grid.cell
        group = self.layout.size * form.rows * form.width * (form.pixel_bytes + 1)
        return 2 * group + 2 * cell[0] * cell[1] * form.pixel_bytes

    @property
    def fingerprint(self) -> str:
        """Tells two plans apart: of the raster's header, the boxes, the ids and all options.

        Where the raster lies, its files' sizes and times, and the memory are no part of it.
        """
        form = replace(self.chip_format, rows=0)
        sha = hashlib.sha256(repr((self.source.raster.identity, form, self.bands)).encode())
        sha.update(np.ascontiguousarray(self.boxes).tobytes())
        sha.update(pd.util.hash_pandas_object(self.table.index.to_series()).to_numpy().tobytes())
        return sha.hexdigest()
