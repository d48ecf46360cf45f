"""Cut a group's regions out of decoded cells, and do so for all groups on several threads."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import warp
from tqdm import tqdm

from workbench._cover import burned
from workbench.rasters.decode import Cell, Reader, decode_cell, opened
from workbench.rasters.errors import BlockError
from workbench.rasters.plan_data import ChipFormat, PlanData, Settings
from workbench.rasters.schedule import GroupWork, Ints, Schedule, clipped

Box = tuple[float, float, float, float]
Marks = NDArray[np.bool_]
#: Read position and what was wrong, for each region that could not be read.
Failures = dict[int, BlockError]
Cells = Iterable[tuple[int, Cell]]
OnError = Literal["list", "raise"]


def sampled(start: Any, length: Any, size: int) -> Any:
    """The row that each row of a resampled chip is nearest to, as GDAL counts."""
    return np.floor(start + (np.arange(size) + 0.5) * length / size + 1e-10).astype(np.int64)


def resample(
    settings: Settings, box: Ints, within: Box, canvas: NDArray[Any], chip: NDArray[Any]
) -> None:
    """Fill a chip from a region's full pixels.

    `canvas` holds the pixels of `box`, and the region lies `within` it: left, top, width, height.
    Pixels outside the raster and missing ones, by nodata, a mask or alpha, take no part in
    averages: GDAL's warper weighs what is left. A mask is always sampled by the nearest pixel.
    """
    form = settings.chip_format
    high, wide = canvas.shape[:2]
    rows = sampled(within[1], within[3], form.height).clip(0, high - 1)
    columns = sampled(within[0], within[2], form.width).clip(0, wide - 1)
    if form.resampling == "nearest":
        chip[...] = canvas[rows[:, None], columns[None, :]]
        return
    form.blank(chip)
    raster = settings.raster
    first, last, left, right = clipped(box[None], raster.height, raster.width)[0]
    col, row = box[:2]
    inside = canvas[first - row : last - row, left - col : right - col]
    if inside.size:
        corner = rasterio.Affine.translation(float(left - col), float(first - row))
        to_chip = rasterio.Affine.translation(*within[:2]) @ rasterio.Affine.scale(
            within[2] / form.width, within[3] / form.height
        )
        mask = inside[..., form.channels] if form.reads_mask else None
        together: dict[Any, list[int]] = {}
        for channel, number in enumerate(settings.bands):
            missing = raster.bands[number - 1].missing(inside[..., channel], mask)
            if missing.any():
                chip[..., channel] = _warped_with_holes(
                    form, inside[..., channel], missing, form.fill[channel], corner, to_chip
                )
            else:
                together.setdefault(form.fill[channel], []).append(channel)
        for fill, channels in together.items():
            pixels = np.ascontiguousarray(inside[..., channels].transpose(2, 0, 1))
            warped = _warped(form, pixels, None, fill, corner, to_chip)
            chip[..., channels] = warped.transpose(1, 2, 0)
    if form.mask:
        chip[..., form.channels :] = canvas[rows[:, None], columns[None, :], form.channels :]


def _warped_with_holes(
    form: ChipFormat, pixels: NDArray[Any], missing: Marks, fill: Any, corner: Any, to_chip: Any
) -> NDArray[Any]:
    """Warp one band of which some pixels are missing: as floats, in which NaN marks them."""
    dtype = np.dtype(form.dtype)
    wide = np.complex128 if dtype.kind == "c" else np.float64
    holey = np.where(missing, np.nan, pixels.astype(wide))[None]
    warped = _warped(form, holey, np.nan, np.nan, corner, to_chip)[0]
    empty = np.isnan(warped)
    warped[empty] = 0
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        warped = np.floor(warped + 0.5).clip(limits.min, limits.max)
    chip: NDArray[Any] = warped.astype(dtype)
    chip[empty] = fill
    return chip


def _warped(
    form: ChipFormat,
    pixels: NDArray[Any],
    nodata: float | None,
    fill: Any,
    corner: Any,
    to_chip: Any,
) -> NDArray[Any]:
    """Warp pixels (band, row, column); what none of them reaches is the fill."""
    target = np.full((len(pixels), form.height, form.width), fill, pixels.dtype)
    warp.reproject(
        pixels,
        target,
        src_transform=corner,
        dst_transform=to_chip,
        # any CRS serves: both sides have the same, and rasterio asks for one
        src_crs="EPSG:3857",
        dst_crs="EPSG:3857",
        src_nodata=nodata,
        dst_nodata=fill,
        resampling=rasterio.enums.Resampling[form.resampling],
        init_dest_nodata=True,
        num_threads=1,
    )
    return target


@dataclass(frozen=True)
class Job:
    """One group of a plan, with all that its work takes: small enough for another process.

    ``start`` is the read position of its first region; ``boxes`` (column, row, width, height) and
    ``inside`` (rows and columns in the raster) are of its regions, in read order. In an overview
    the regions themselves, ``exact``, are not whole pixels; the boxes are then those around them.
    """

    settings: Settings
    group: int
    start: int
    work: GroupWork
    boxes: Ints
    inside: Ints
    exact: NDArray[Any]
    polygons: list[Any] | None

    def cut(self, cells: Cells) -> tuple[NDArray[Any], Marks, Failures]:
        """Cut the group's regions into arrays of their own: pixels, mask included, and validity."""
        form = self.settings.chip_format
        shape = (len(self.boxes), form.rows, form.width, form.channels + form.mask)
        pixels = np.empty(shape, form.dtype)
        failures = self.fill(cells, list(pixels))
        return pixels, self.validity(failures), failures

    def decode(self, reader: Reader, numbers: Iterable[int]) -> Iterator[tuple[int, Cell]]:
        """Decode some of the cells that are the group's to decode."""
        for number in numbers:
            yield number, decode_cell(reader, self.settings.grid, number, self.work.decoded[number])

    def part(self, number: int, cell: Cell) -> Cell:
        """What later groups need of a cell."""
        return cell.part(self.work.shared[number][0]) if cell.pixels.size else cell

    def fill(self, cells: Cells, chips: list[NDArray[Any]]) -> Failures:
        """Cut the group's regions out of its cells, in any order, each into its array of `chips`.

        A cell is let go when the next is asked for.
        """
        form = self.settings.chip_format
        sides = self.boxes[:, 2:].tolist()
        if form.resampled:
            depth = form.channels + form.reads_mask
            canvases = [np.empty((h, w, depth), form.dtype) for w, h in sides]
            blank = canvases
        else:
            canvases = [chip[:h, :w] for chip, (w, h) in zip(chips, sides, strict=True)]
            whole = self.whole().tolist()
            blank = [chip for chip, full in zip(chips, whole, strict=True) if not full]
        for chip in blank:
            form.blank(chip)
        failures = self._copy(cells, canvases)
        if form.resampled:
            for box, exact, canvas, chip in zip(
                self.boxes, self.exact.tolist(), canvases, chips, strict=True
            ):
                col, row, width, height = exact
                within = col - int(box[0]), row - int(box[1]), width, height
                resample(self.settings, box, within, canvas, chip)
        for position in failures:
            form.blank(chips[position - self.start])
        return failures

    def _copy(self, cells: Cells, canvases: list[NDArray[Any]]) -> Failures:
        """Copy what each region needs of each cell onto its canvas."""
        failures: Failures = {}
        for number, cell in cells:
            mine = self.work.cuts[number] - self.start
            inside = self.inside[mine]
            if cell.bad:
                failures |= _touching(cell, mine + self.start, inside)
            high, wide = cell.pixels.shape[:2]
            corner = np.array([cell.top, cell.top, cell.left, cell.left])
            here = np.clip(inside, corner, corner + np.array([high, high, wide, wide]))
            source = (here - corner).tolist()
            target = (here - self.boxes[mine][:, [1, 1, 0, 0]]).tolist()
            pixels = cell.pixels
            # the one loop over regions; its copies release the interpreter's lock
            for i, (top, bottom, left, right), (first, last, start, stop) in zip(
                mine.tolist(), source, target, strict=True
            ):
                if not failures or i + self.start not in failures:
                    canvases[i][first:last, start:stop] = pixels[top:bottom, left:right]
        return failures

    def whole(self) -> Marks:
        """Which regions fill their chip with pixels of the raster."""
        form = self.settings.chip_format
        if form.resampled or self.polygons is not None:
            return np.zeros(len(self.boxes), np.bool_)
        high = self.inside[:, 1] - self.inside[:, 0] == form.rows
        wide = self.inside[:, 3] - self.inside[:, 2] == form.width
        both: Marks = high & wide
        return both

    def validity(self, failures: Failures) -> Marks:
        """Which pixels lie in the raster, and in their polygon if they have one.

        Where all do, it is one True that stands for all, and read-only.
        """
        form = self.settings.chip_format
        whole = self.whole()
        everywhere = np.broadcast_to(np.True_, (len(whole), form.rows, form.width))
        if whole.all() and not failures:
            return everywhere
        valid = everywhere.copy()
        some = np.flatnonzero(~whole)
        col, row, width, height = self.exact[some].T
        down = _in_raster(self.inside[some, :2], row, height, form.rows, form.resampled)
        across = _in_raster(self.inside[some, 2:], col, width, form.width, form.resampled)
        valid[some] = down[:, :, None] & across[:, None, :]
        for i, polygon in enumerate(self.polygons or ()):
            valid[i] &= _rasterized(polygon, self.exact[i].tolist(), form)
        for position in failures:
            valid[position - self.start] = False
        return valid


def make_job(plan: PlanData, schedule: Schedule, group: int) -> Job:
    """One group's work, complete in itself."""
    members = plan.layout.members(group)
    units = plan.layout.order[members]
    rows = units // plan.chip_format.pieces
    polygons = None
    if "polygon" in plan.table:
        polygons = plan.source.polygons(plan.table["polygon"].iloc[rows])
    boxes = plan.units[units]
    exact = plan.source.exact(rows)
    return Job(
        settings=plan.settings,
        group=group,
        start=members.start,
        work=schedule.work(group),
        boxes=boxes,
        inside=plan.layout.inside(members),
        exact=boxes if exact is None else exact,
        polygons=polygons,
    )


def _touching(cell: Cell, positions: Ints, inside: Ints) -> Failures:
    """Regions that need a block of a cell that could not be decoded."""
    failures: Failures = {}
    for (first, last, left, right), error in cell.bad:
        hit = (inside[:, 0] < last) & (inside[:, 1] > first)
        hit &= (inside[:, 2] < right) & (inside[:, 3] > left)
        failures |= dict.fromkeys(positions[hit].tolist(), error)
    return failures


def _in_raster(span: Ints, start: Any, length: Any, size: int, resampled: bool) -> Marks:
    """Which of a chip's rows (or columns) come from the span of pixels that is in the raster."""
    if resampled:
        at = sampled(start[:, None], length[:, None], size)
    else:
        at = start[:, None] + np.arange(size)[None, :]
    marks: Marks = (at >= span[:, :1]) & (at < span[:, 1:])
    return marks


def _rasterized(polygon: Any, box: list[float], form: ChipFormat) -> Marks:
    """Pixels of a chip whose centre lies in a polygon."""
    high, wide = (form.rows, form.width) if form.resampled else (int(box[3]), int(box[2]))
    marks = np.zeros((form.rows, form.width), np.bool_)
    marks[:high, :wide] = burned([(polygon, 1)], box, (high, wide), "uint8")
    return marks


class CellExchange:
    """Cells that one thread decodes and others wait for; each is let go after its last user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: dict[tuple[int, int], Future[Cell]] = {}
        self._users: dict[tuple[int, int], int] = {}

    def cells(self, job: Job, reader: Reader) -> Cells:
        """The cells of a job: first those that others wait for, last those of others."""
        shared = job.work.shared
        mine = sorted(job.work.decoded, key=lambda number: number not in shared)
        for number, cell in job.decode(reader, mine):
            if number in shared:
                with self._lock:
                    self._users[job.group, number] = shared[number][1]
                self._slot(job.group, number).set_result(job.part(number, cell))
            yield number, cell
        for number, owner in job.work.borrowed.items():
            yield number, self._take(owner, number)

    def _slot(self, group: int, number: int) -> Future[Cell]:
        with self._lock:
            return self._cells.setdefault((group, number), Future())

    def _take(self, group: int, number: int) -> Cell:
        """Wait for a cell of another group."""
        cell = self._slot(group, number).result()
        key = group, number
        with self._lock:
            self._users[key] -= 1
            if not self._users[key]:
                del self._cells[key], self._users[key]
        return cell

    def fail(self, job: Job, error: BaseException) -> None:
        """Tell those who wait for a job's cells that nothing will come."""
        for number in job.work.shared:
            slot = self._slot(job.group, number)
            if not slot.done():
                slot.set_exception(error)


def run(
    plan: PlanData,
    groups: Ints,
    task: Callable[[Job, Cells], Failures],
    *,
    on_error: OnError = "list",
    threads: int | None = None,
    progress: bool = True,
) -> Failures:
    """Cut all regions of some groups, several groups at a time.

    `task` is called in a thread with a job and its cells, and returns the regions that failed.
    """
    if on_error not in ("list", "raise"):
        raise ValueError(f'on_error={on_error!r} is neither "list" nor "raise"')
    schedule = plan.schedule(groups)
    failures: Failures = {}
    exchange = CellExchange()
    with opened(plan.settings) as reader:

        def one(group: int) -> int:
            job = make_job(plan, schedule, group)
            try:
                failed = task(job, exchange.cells(job, reader))
                if failed and on_error == "raise":
                    raise next(iter(failed.values()))
            except BaseException as error:
                exchange.fail(job, error)
                raise
            failures.update(failed)
            return len(job.boxes)

        workers = min(threads or plan.threads(), max(1, len(groups)))
        members = [plan.layout.members(group) for group in groups.tolist()]
        total = sum(regions.stop - regions.start for regions in members)
        _all(one, groups.tolist(), workers, progress, total)
    return failures


def _all(
    one: Callable[[int], int], groups: list[int], workers: int, progress: bool, total: int
) -> None:
    """Work through the groups in order; the first error or Ctrl-C stops what has not begun."""
    # GDAL's options belong to a thread; those of the caller hold in ours
    enter = partial(rasterio.env.defenv, **rasterio.env.getenv())
    with (
        ThreadPoolExecutor(workers, "rasters", initializer=enter) as pool,
        tqdm(total=total, unit="region", disable=not progress, desc="cut") as bar,
    ):
        waiting: set[Future[int]] = {pool.submit(one, group) for group in groups}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    bar.update(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
