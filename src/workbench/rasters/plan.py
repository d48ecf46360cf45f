"""What will be read, in which order and how much memory it takes: known from headers alone."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from dask.utils import parse_bytes
from matplotlib.figure import Figure

from workbench.rasters import chips, crop
from workbench.rasters.errors import NoOverlapError, RegionError
from workbench.rasters.form import Form, make_form
from workbench.rasters.georeference import Raster, crs_name, extent, read_header
from workbench.rasters.job import Job, Settings
from workbench.rasters.layout import (
    Ints,
    Layout,
    block_counts,
    clipped,
    make_grid,
    make_layout,
)
from workbench.rasters.lazy import Order, to_xarray
from workbench.rasters.preview import preview
from workbench.rasters.regions import check_boxes
from workbench.rasters.schedule import Schedule
from workbench.rasters.write import Format, Written, write

Edge = Literal["pad", "clip", "skip", "raise"]
EDGES = ("pad", "clip", "skip", "raise")
#: Below this nothing useful can be planned.
_LEAST_MEMORY = 2**24


@dataclass(frozen=True, eq=False)
class Plan:
    """How to cut regions out of a raster; made by `plan`. Nothing has been read but the header.

    Attributes
    ----------
    raster
        The raster's header.
    table
        The regions that will be cut: their boxes, clipped where ``edge="clip"``, and all other
        columns.
    skipped
        The regions that will not: with ``edge="skip"`` those that stick out, with ``"clip"``
        those with no pixel in the raster.
    memory
        The budget in bytes.
    """

    raster: Raster
    table: pd.DataFrame
    skipped: pd.DataFrame
    form: Form
    bands: list[int]
    memory: int
    decoder: str = "auto"
    boxes: Ints = field(repr=False, default_factory=lambda: np.zeros((0, 4), np.int64))

    @property
    def mask(self) -> bool:
        """Whether the raster's own mask is read too."""
        return self.form.mask

    @cached_property
    def units(self) -> Ints:
        """Boxes that are read at a time: the regions', or pieces of them where they are large."""
        form = self.form
        if form.pieces == 1:
            return self.boxes
        units = np.repeat(self.boxes, form.pieces, axis=0)
        first = np.tile(np.arange(form.pieces) * form.rows, len(self.boxes))
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
        grid = make_grid(self.raster, form.pixel_bytes, self.memory)
        largest = int((self.units[:, 2] * self.units[:, 3]).max())
        chip = max(largest, form.rows * form.width) * (form.pixel_bytes + 1)
        if form.pieces > 1:  # a shard is a piece, so that none is written by two
            chip = self.memory
        return make_layout(grid, self.units, chip, form.pixel_bytes, self.memory)

    def job(self, schedule: Schedule, group: int) -> Job:
        """One group's work, complete in itself."""
        members = self.layout.members(group)
        units = self.layout.order[members]
        polygons = None
        if "polygon" in self.table:
            polygons = self.table["polygon"].iloc[units // self.form.pieces].tolist()
        settings = Settings(self.raster, self.bands, self.form, self.layout.grid, self.decoder)
        return Job(settings, group, members.start, schedule.share(group), self.units[units],
                   self.layout.inside[members], polygons)  # fmt: skip

    def schedule(self, groups: Ints | None = None) -> Schedule:
        """Who decodes which cell, if these groups are to be read; all by default."""
        groups = np.arange(self.layout.groups) if groups is None else groups
        return Schedule(self.layout, groups, self.form.pixel_bytes, self.memory)

    def threads(self) -> int:
        """Threads that fit into the memory: each holds a group's chips, encoded ones, and cells."""
        return max(1, min(crop.cores(), int(self.memory / 2 // self._thread_bytes())))

    def _thread_bytes(self) -> int:
        cell = self.layout.grid.cell
        group = self.layout.size * self.form.rows * self.form.width * (self.form.pixel_bytes + 1)
        return 2 * group + 2 * cell[0] * cell[1] * self.form.pixel_bytes

    def stats(self) -> pd.Series:
        """What reading will take.

        Returns
        -------
        pandas.Series
            ``regions`` and ``skipped``; ``groups``; ``blocks`` that some region touches and
            ``blocks_in_raster``; ``naive_decodes``, the decodes when each region is read for
            itself, and ``naive_decodes_per_block``; ``decodes_per_block`` of this plan, 1 unless
            the memory does not suffice; ``bytes_to_decode``; ``expected_peak_memory`` above the
            interpreter's, without the result of `load`; ``output_bytes``, uncompressed.
        """
        grid, schedule = self.layout.grid, self.schedule()
        counts = block_counts(clipped(self.boxes, grid.height, grid.width), grid)
        cells = len(np.unique(schedule.cells)) if len(schedule.cells) else 0
        down, across = -(-grid.height // grid.block[0]), -(-grid.width // grid.block[1])
        per_block = grid.block[0] * grid.block[1] * self.form.pixel_bytes
        working = self.threads() * self._thread_bytes() + schedule.kept_peak
        return pd.Series(
            {
                "regions": len(self.table),
                "skipped": len(self.skipped),
                "groups": self.layout.groups,
                "blocks": len(counts),
                "blocks_in_raster": down * across,
                "naive_decodes": int(counts.sum()),
                "naive_decodes_per_block": float(counts.mean()) if len(counts) else 0.0,
                "decodes_per_block": schedule.decodes / cells if cells else 1.0,
                "bytes_to_decode": len(counts) * per_block,
                "expected_peak_memory": working + 300 * len(self.table),
                "output_bytes": len(self.table) * self.form.chip_bytes,
            },
            name=self.raster.path,
            dtype=object,
        )

    def load(
        self, *, on_error: crop.OnError = "list", threads: int | None = None, progress: bool = True
    ) -> xr.Dataset:
        """Cut all regions into memory.

        Parameters
        ----------
        on_error
            ``"list"``: regions on a block that cannot be decoded come back filled and not valid,
            with a warning, and are listed in ``attrs["failed"]``. ``"raise"`` stops at the first.
        threads
            By default as many as there are processors and memory for.
        progress
            Show a bar.

        Returns
        -------
        xarray.Dataset
            The image dataset in the table's order: ``image`` (sample, y, x, channel) in the
            raster's dtype; ``valid`` (sample, y, x), False outside the raster, the polygon or a
            smaller region; per sample ``row``, ``col``, ``height``, ``width`` (pixels of the
            raster), ``geotransform`` (GDAL's six numbers) and the table's other columns.

        Raises
        ------
        MemoryError
            The result is larger than the memory that is free.
        BlockError
            A block cannot be decoded, with ``on_error="raise"``.
        """
        return chips.load(self, on_error=on_error, threads=threads, progress=progress)

    def to_xarray(self, *, order: Order = "table", on_error: crop.OnError = "list") -> xr.Dataset:
        """The same as `load`, cut when it is computed: a dask task, and a chunk, for each group.

        Parameters
        ----------
        order
            ``"table"``: a chunk of the table's order needs all groups that its regions lie in.
            ``"read"``: each chunk is one group, so that chunk after chunk streams through little
            memory; ``sample`` tells which regions they are.
        on_error
            As in `load`, but without a list: what failed is filled and nowhere `valid`.

        Returns
        -------
        xarray.Dataset
        """
        return to_xarray(self, order, on_error)

    def preview(self, *, side: int = 1000) -> Figure:
        """Draw the regions over the raster.

        Parameters
        ----------
        side
            The picture's longer side in pixels; an overview serves it where the raster has some.

        Returns
        -------
        matplotlib.figure.Figure
            Outlines, coloured by the table's ``label``; above 3,000 regions their density.
        """
        return preview(self, side)

    def write(
        self,
        path: str | os.PathLike[str],
        format: Format = "zarr",  # noqa: A002 - what every writer calls it
        *,
        resume: bool = True,
        on_error: crop.OnError = "list",
        threads: int | None = None,
        client: Any = None,
        progress: bool = True,
    ) -> Written:
        """Write all chips to a folder, in bounded memory.

        A run that was stopped or killed goes on from there when it is started again, reads
        nothing for what is written, and ends with the same bytes.

        Parameters
        ----------
        path
            A folder of this name is made. One that holds anything else is refused.
        format
            ``"zarr"``: a Zarr v3 store that ``xarray.open_zarr`` opens, in read order;
            ``ds.sortby("position")`` restores the table's. ``"geotiff"`` and ``"png"``: a file a
            region at its own size. ``"webdataset"``: tar files.
        resume
            Go on with an earlier run of the same plan; False refuses a folder that holds one.
        on_error
            ``"list"``: regions on a block that cannot be decoded are listed in the result, with a
            warning; in Zarr they are filled and not valid. ``"raise"`` stops at the first.
        threads
            By default as many as there are processors and memory for.
        client
            A ``distributed.Client``, whose workers see the raster and the folder under the same
            paths: one task a group.
        progress
            Show a bar.

        Returns
        -------
        Written
            False as a truth value when some region could not be read.

        Raises
        ------
        OutputError
            The folder holds something else, or the chips of another plan.
        OSError
            Such as a full disk: make room and write again.
        """
        return write(self, path, format, resume=resume, on_error=on_error, threads=threads,
                     client=client, progress=progress)  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """Tells two plans apart: of the raster's header, the boxes, the ids and all options."""
        sha = hashlib.sha256(repr((self.raster, self.form, self.bands, self.memory)).encode())
        sha.update(np.ascontiguousarray(self.boxes).tobytes())
        sha.update(pd.util.hash_pandas_object(self.table.index.to_series()).to_numpy().tobytes())
        return sha.hexdigest()


def plan(
    raster: str | os.PathLike[str] | Raster,
    regions: pd.DataFrame,
    size: int | tuple[int, int] | None = None,
    bands: Sequence[int] | None = None,
    edge: Edge = "pad",
    fill: float | None = None,
    resampling: str = "nearest",
    memory: int | str = "1GiB",
    *,
    mask: bool = False,
    decoder: Literal["auto", "gdal"] = "auto",
) -> Plan:
    """Plan how to cut regions out of a raster. Only headers are read.

    Parameters
    ----------
    raster
        A path or URL that GDAL reads: a file, a VRT, ``/vsicurl/...``, ``s3://...``.
    regions
        Integer boxes of pixels: columns ``col``, ``row``, ``width``, ``height``, ids in the
        index. `regions` makes them of points, map boxes and geometries.
    size
        Of every chip, in pixels: a number, or (height, width). Regions of another size are
        resampled to it. By default each keeps its own; in an array the smaller are padded on the
        right and below up to the largest.
    bands
        Numbers from 1, in the wanted order; by default all.
    edge
        What to do with regions that stick out of the raster: ``"pad"`` them with `fill`,
        ``"clip"`` them, ``"skip"`` them, or ``"raise"``.
    fill
        Pixels outside the raster; by default its nodata, or else 0. They are never `valid`.
    resampling
        One of rasterio's methods: ``"nearest"``, ``"bilinear"``, ``"cubic"``, ``"average"``...
        Always from the full resolution, never from an overview.
    memory
        The budget for everything but the result of `Plan.load`: bytes, or a text such as
        ``"1GiB"``.
    mask
        Read the raster's own mask too (nodata, alpha or a mask band): ``mask`` (sample, y, x) is
        True where there is data.
    decoder
        ``"gdal"`` reads everything through GDAL, ``"auto"`` plain local TIFFs by imagecodecs.

    Returns
    -------
    Plan

    Raises
    ------
    FileNotFoundError, RasterError
        The raster cannot be opened or used.
    RegionError
        The table or an option is not what it should be; with ``edge="raise"`` a region sticks out.
    NoOverlapError
        No region touches the raster.

    Examples
    --------
    >>> from workbench.rasters import plan
    >>> table = pd.DataFrame({"col": [0], "row": [8], "width": [4], "height": [4]})
    >>> plan("big.tif", table, memory="512MiB").load()  # doctest: +SKIP
    """
    header = read_header(raster)
    if edge not in EDGES:
        raise RegionError(f"edge={edge!r} is none of {', '.join(EDGES)}")
    if len(regions) == 0:
        raise RegionError("the table of regions has no rows")
    if not regions.index.is_unique:
        twice = regions.index[regions.index.duplicated()][0]
        raise RegionError(f"ids must be unique; {twice!r} occurs twice")
    budget = parse_bytes(memory)
    if budget < _LEAST_MEMORY:
        raise ValueError(f"memory={memory!r} is too little to work with; give 16MiB or more")
    chosen = _bands(bands, header)
    table, skipped, boxes = _at_edges(header, regions, check_boxes(regions), edge)
    form = make_form(header, boxes, size, len(chosen), fill, resampling, mask, budget)
    return Plan(header, table, skipped, form, chosen, budget, decoder, boxes)


def _bands(bands: Sequence[int] | None, header: Raster) -> list[int]:
    if bands is None:
        return list(range(1, header.bands + 1))
    chosen = [int(band) for band in ([bands] if isinstance(bands, int) else bands)]
    if wrong := [band for band in chosen if not 1 <= band <= header.bands]:
        raise RegionError(
            f"there is no band {wrong[0]}: {header.path} has the bands 1 to {header.bands}"
        )
    if not chosen:
        raise RegionError("bands=[] leaves nothing to read")
    return chosen


def _at_edges(
    header: Raster, table: pd.DataFrame, boxes: Ints, edge: Edge
) -> tuple[pd.DataFrame, pd.DataFrame, Ints]:
    """Apply the rule for regions that stick out: what to cut, what not, and the boxes."""
    inside = clipped(boxes, header.height, header.width)
    touching = inside[:, 1] > 0
    if not touching.any():
        raise NoOverlapError(_apart(header, boxes))
    clip = np.stack([inside[:, 2], inside[:, 0], inside[:, 3] - inside[:, 2],
                     inside[:, 1] - inside[:, 0]], axis=1)  # fmt: skip
    whole = (clip == boxes).all(axis=1)
    if edge == "raise" and not whole.all():
        at = int(np.argmin(whole))
        col, row, width, height = boxes[at].tolist()
        raise RegionError(
            f"region {table.index[at]!r} (columns {col} to {col + width}, rows {row} to "
            f"{row + height}) sticks out of the raster of {header.width} columns and "
            f"{header.height} rows, and so do {int((~whole).sum()) - 1} more; edge= can be "
            '"pad", "clip" or "skip"'
        )
    kept = np.ones(len(table), np.bool_)
    if edge in ("clip", "skip"):
        kept = touching if edge == "clip" else whole
        if not kept.any():
            raise RegionError('every region sticks out of the raster; use edge="pad" or "clip"')
        boxes = (clip if edge == "clip" else boxes)[kept]
    used = table.loc[kept].copy() if not kept.all() else table.copy()
    used[["col", "row", "width", "height"]] = boxes
    return used, table.loc[~kept], boxes


def _apart(header: Raster, boxes: Ints) -> str:
    x0, xc, xr, y0, yc, yr = header.transform
    columns = np.stack([boxes[:, 0], boxes[:, 0] + boxes[:, 2]] * 2)
    rows = np.stack([boxes[:, 1]] * 2 + [boxes[:, 1] + boxes[:, 3]] * 2)
    x, y = x0 + columns * xc + rows * xr, y0 + columns * yc + rows * yr
    crs = crs_name(header.crs) if header.crs else "a CRS that the raster does not name"
    return (
        f"no region touches the raster. In {crs} the raster covers {extent(header.bounds())}; "
        f"the regions cover {extent((x.min(), y.min(), x.max(), y.max()))}"
    )
