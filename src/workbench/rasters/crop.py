"""Cut regions out of decoded cells, group by group, by a thread for each core.

Bring a region's pixels to the size of a chip.

One group's work, with all that it takes: small enough to send to another process.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from workbench._extras import need
from workbench.rasters.decode import Cell, Reader, decode_cell, opened
from workbench.rasters.errors import BlockError
from workbench.rasters.plan_data import Form, PlanData
from workbench.rasters.raster import Raster
from workbench.rasters.schedule import Grid, Ints, Schedule, Share, clipped

Box = tuple[float, float, float, float]


def sampled(start: Any, length: Any, size: int) -> Any:
    """The row that each row of a resampled chip is nearest to, as GDAL counts.

    Examples
    --------
    >>> sampled(0, 8, 4).tolist(), sampled(10, 2, 4).tolist()
    ([1, 3, 5, 7], [10, 10, 11, 11])
    """
    return np.floor(start + (np.arange(size) + 0.5) * length / size + 1e-10).astype(np.int64)


def resample(
    form: Form, raster: Raster, box: Ints, within: Box, canvas: NDArray[Any], chip: NDArray[Any]
) -> None:
    """Fill a chip from a region's full pixels.

    `canvas` holds the pixels of `box`, and the region lies `within` it: left, top, width, height.
    Pixels outside the raster, and nodata, take no part in averages: GDAL's warper weighs what is
    left. A mask is always sampled by the nearest pixel.
    """
    high, wide = canvas.shape[:2]
    rows = sampled(within[1], within[3], form.height).clip(0, high - 1)
    columns = sampled(within[0], within[2], form.width).clip(0, wide - 1)
    if form.resampling == "nearest":
        chip[...] = canvas[rows[:, None], columns[None, :]]
        return
    first, last, left, right = clipped(box[None], raster.height, raster.width)[0]
    col, row = box[:2]
    inside = canvas[first - row : last - row, left - col : right - col, : form.channels]
    chip[..., : form.channels] = form.fill
    if inside.size:
        offset = (float(left - col) - within[0], float(first - row) - within[1])
        scale = (within[2] / form.width, within[3] / form.height)
        warped = _warped(form, raster.nodata, inside, offset, scale)
        chip[..., : form.channels] = warped.transpose(1, 2, 0)
    if form.mask:
        chip[..., form.channels :] = canvas[rows[:, None], columns[None, :], form.channels :]


def _warped(
    form: Form,
    nodata: float | None,
    inside: NDArray[Any],
    offset: tuple[float, float],
    scale: tuple[float, float],
) -> NDArray[Any]:
    """Warp pixels whose first lies at `offset` (column, row) of the region."""
    warp = need("rasterio.warp", extra="rasters")
    rasterio = need("rasterio", extra="rasters")
    target = np.full((form.channels, form.height, form.width), form.fill, form.dtype)
    warp.reproject(
        np.ascontiguousarray(inside.transpose(2, 0, 1)),
        target,
        src_transform=rasterio.Affine.translation(*offset),
        dst_transform=rasterio.Affine.scale(*scale),
        # any CRS serves: both sides have the same, and rasterio asks for one
        src_crs="EPSG:3857",
        dst_crs="EPSG:3857",
        src_nodata=nodata,
        dst_nodata=form.fill,
        resampling=rasterio.enums.Resampling[form.resampling],
        init_dest_nodata=True,
        num_threads=1,
    )
    return target


#: Read position and what was wrong, for each region that could not be read.
Failures = dict[int, BlockError]
Cells = Iterable[tuple[int, Cell]]


@dataclass(frozen=True)
class Settings:
    """What all groups of a plan have in common."""

    raster: Raster
    bands: list[int]
    form: Form
    grid: Grid
    decoder: str


@dataclass(frozen=True)
class Job:
    """One group of a plan.

    ``start`` is the read position of its first region; ``boxes`` (column, row, width, height) and
    ``inside`` (rows and columns in the raster) are of its regions, in read order. In an overview
    the regions themselves, ``exact``, are not whole pixels; the boxes are then those around them.
    """

    settings: Settings
    group: int
    start: int
    share: Share
    boxes: Ints
    inside: Ints
    exact: NDArray[Any]
    polygons: list[Any] | None

    def cut(self, cells: Cells) -> tuple[NDArray[Any], NDArray[np.bool_], Failures]:
        """Cut the group's regions into arrays of their own: pixels, mask included, and validity."""
        form = self.settings.form
        shape = (len(self.boxes), form.rows, form.width, form.channels + form.mask)
        pixels = np.empty(shape, form.dtype)
        failures = self.fill(cells, list(pixels))
        return pixels, self.validity(failures), failures

    def decoded(self, reader: Reader, numbers: Iterable[int]) -> Iterator[tuple[int, Cell]]:
        """Decode some of the cells that are the group's to decode."""
        for number in numbers:
            yield number, decode_cell(reader, self.settings.grid, number, self.share.owned[number])

    def part(self, number: int, cell: Cell) -> Cell:
        """What later groups need of a cell."""
        return cell.part(self.share.kept[number][0]) if cell.pixels.size else cell

    def fill(self, cells: Cells, chips: list[NDArray[Any]]) -> Failures:
        """Cut the group's regions.

        Parameters
        ----------
        cells
            Every cell of the share, in any order; each is let go when the next is asked for.
        chips
            For each region the array (row, column, band) to fill.
        """
        form, whole = self.settings.form, self.whole()
        if form.resampled:
            depth = chips[0].shape[2]
            canvases = [np.empty((h, w, depth), form.dtype) for w, h in self.boxes[:, 2:].tolist()]
            blank = canvases
        else:
            sides = self.boxes[:, 2:].tolist()
            canvases = [chip[:h, :w] for chip, (w, h) in zip(chips, sides, strict=True)]
            blank = [chip for chip, full in zip(chips, whole.tolist(), strict=True) if not full]
        for chip in blank:
            form.blank(chip)
        failures = self._cut(cells, canvases)
        if form.resampled:
            for i, chip in enumerate(chips):
                resample(form, self.settings.raster, self.boxes[i], self._within(i), canvases[i],
                         chip)  # fmt: skip
        for position in failures:
            form.blank(chips[position - self.start])
        return failures

    def _within(self, i: int) -> Box:
        """A region within the box that is read for it: left, top, width and height."""
        col, row, width, height = self.exact[i].tolist()
        return col - int(self.boxes[i, 0]), row - int(self.boxes[i, 1]), width, height

    def _cut(self, cells: Cells, canvases: list[NDArray[Any]]) -> Failures:
        """Copy what each region needs of each cell onto its canvas."""
        failures: Failures = {}
        for number, cell in cells:
            mine = self.share.cuts[number] - self.start
            inside, box = self.inside[mine], self.boxes[mine]
            if cell.bad:
                failures |= _touching(cell, mine + self.start, inside)
            high, wide = cell.pixels.shape[:2]
            corner = np.array([cell.top, cell.top, cell.left, cell.left])
            end = corner + np.array([high, high, wide, wide])
            here = np.maximum(np.minimum(inside, end), corner)
            cuts = np.hstack([here - corner, here - box[:, [1, 1, 0, 0]]])
            pixels = cell.pixels
            # the one loop over regions; its copies release the interpreter's lock
            for i, (a, b, c, d, p, q, r, s) in zip(mine.tolist(), cuts.tolist(), strict=True):
                if not failures or i + self.start not in failures:
                    canvases[i][p:q, r:s] = pixels[a:b, c:d]
        return failures

    def whole(self) -> NDArray[np.bool_]:
        """Which regions fill their chip with pixels of the raster."""
        form, inside = self.settings.form, self.inside
        if form.resampled or self.polygons is not None:
            return np.zeros(len(self.boxes), np.bool_)
        whole: NDArray[np.bool_] = (inside[:, 1] - inside[:, 0] == form.rows) & (
            inside[:, 3] - inside[:, 2] == form.width
        )
        return whole

    def validity(self, failures: Failures) -> NDArray[np.bool_]:
        """Which pixels lie in the raster, and in their polygon if they have one.

        Where all do, it is one True that stands for all, and read-only.
        """
        form, whole = self.settings.form, self.whole()
        everywhere = np.broadcast_to(np.True_, (len(whole), form.rows, form.width))
        if whole.all() and not failures:
            return everywhere
        valid, some = everywhere.copy(), np.flatnonzero(~whole)
        exact, inside = self.exact[some], self.inside[some]
        down = _inside(inside[:, :2], exact[:, 1], exact[:, 3], form.rows, form.resampled)
        across = _inside(inside[:, 2:], exact[:, 0], exact[:, 2], form.width, form.resampled)
        valid[some] = down[:, :, None] & across[:, None, :]
        for i, polygon in enumerate(self.polygons or ()):
            valid[i] &= _rasterized(polygon, self.exact[i].tolist(), form)
        for position in failures:
            valid[position - self.start] = False
        return valid


def make_job(plan: PlanData, schedule: Schedule, group: int) -> Job:
    """One group's work, complete in itplan."""
    members = plan.layout.members(group)
    units = plan.layout.order[members]
    rows = units // plan.form.pieces
    polygons = None
    if "polygon" in plan.table:
        polygons = plan.reading.polygons(plan.table["polygon"].iloc[rows])
    boxes, exact = plan.units[units], plan.reading.exact(rows)
    settings = Settings(plan.reading.raster, plan.bands, plan.form, plan.layout.grid,
                        plan.decoder)  # fmt: skip
    return Job(settings, group, members.start, schedule.share(group), boxes,
               plan.layout.inside(members), boxes if exact is None else exact,
               polygons)  # fmt: skip


def _touching(cell: Cell, positions: Ints, inside: Ints) -> Failures:
    found: Failures = {}
    for (first, last, left, right), error in cell.bad:
        hit = (inside[:, 0] < last) & (inside[:, 1] > first)
        hit &= (inside[:, 2] < right) & (inside[:, 3] > left)
        found |= dict.fromkeys(positions[hit].tolist(), error)
    return found


def _inside(span: Ints, start: Any, length: Any, size: int, resampled: bool) -> NDArray[np.bool_]:
    """Which of a chip's rows (or columns) come from the span of pixels that is in the raster."""
    if resampled:
        at = sampled(start[:, None], length[:, None], size)
    else:
        at = start[:, None] + np.arange(size)[None, :]
    marks: NDArray[np.bool_] = (at >= span[:, :1]) & (at < span[:, 1:])
    return marks


def _rasterized(polygon: Any, box: list[float], form: Form) -> NDArray[np.bool_]:
    """Pixels of a chip whose centre lies in a polygon."""
    rasterio = need("rasterio", extra="rasters")
    features = need("rasterio.features", extra="rasters")
    col, row, width, height = box
    high, wide = (form.rows, form.width) if form.resampled else (int(height), int(width))
    transform = rasterio.Affine(width / wide, 0, col, 0, height / high, row)
    marks = np.zeros((form.rows, form.width), np.bool_)
    marks[:high, :wide] = features.geometry_mask([polygon], (high, wide), transform, invert=True)
    return marks


def local(job: Job, reader: Reader, give: Callable[[int, Cell, int], None],
          take: Callable[[int, int], Cell]) -> Cells:  # fmt: skip
    """The cells of a job among threads: first those that others wait for, last those of others."""
    share = job.share
    mine = sorted(share.owned, key=lambda number: number not in share.kept)
    for number, cell in job.decoded(reader, mine):
        if number in share.kept:
            give(number, job.part(number, cell), share.kept[number][1])
        yield number, cell
    for number, owner in share.handed.items():
        yield number, take(owner, number)


OnError = Literal["list", "raise"]


class Handover:
    """Cells that one thread decodes and others wait for; each is let go after its last user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: dict[tuple[int, int], Future[Cell]] = {}
        self._users: dict[tuple[int, int], int] = {}

    def _slot(self, key: tuple[int, int]) -> Future[Cell]:
        with self._lock:
            return self._cells.setdefault(key, Future())

    def give(self, group: int, number: int, cell: Cell, users: int) -> None:
        """Hand a cell on to as many groups."""
        with self._lock:
            self._users[group, number] = users
        self._slot((group, number)).set_result(cell)

    def fail(self, group: int, numbers: Iterable[int], error: BaseException) -> None:
        """Tell those who wait that nothing will come."""
        for number in numbers:
            slot = self._slot((group, number))
            if not slot.done():
                slot.set_exception(error)

    def take(self, group: int, number: int) -> Cell:
        """Wait for a cell of another group."""
        key = group, number
        cell = self._slot(key).result()
        with self._lock:
            self._users[key] -= 1
            if not self._users[key]:
                del self._cells[key], self._users[key]
        return cell


def run(
    plan: PlanData,
    groups: Ints,
    work: Callable[[Job, Cells], Failures],
    *,
    on_error: OnError = "list",
    threads: int | None = None,
    progress: bool = True,
) -> Failures:
    """Cut all regions of some groups, several groups at a time.

    Parameters
    ----------
    work
        Called in a thread with a job and its cells; returns the regions that failed.
    on_error
        ``"raise"`` stops at the first block that cannot be decoded.
    """
    if on_error not in ("list", "raise"):
        raise ValueError(f'on_error={on_error!r} is neither "list" nor "raise"')
    schedule, failures = plan.schedule(groups), Failures()
    with opened(plan.reading.raster, plan.bands, mask=plan.mask, decoder=plan.decoder) as reader:
        handover = Handover()

        def one(group: int) -> int:
            job = make_job(plan, schedule, group)
            give = partial(handover.give, group)
            try:
                failed = work(job, local(job, reader, give, handover.take))
                if failed and on_error == "raise":
                    raise next(iter(failed.values()))
            except BaseException as error:
                handover.fail(group, job.share.kept, error)
                raise
            failures.update(failed)
            return len(job.boxes)

        workers = min(threads or plan.threads(), max(1, len(groups)))
        total = sum(plan.layout.members(group).stop - plan.layout.members(group).start
                    for group in groups.tolist())  # fmt: skip
        _all(one, groups.tolist(), workers, progress, total)
    return failures


def _all(one: Callable[[int], int], groups: list[int], workers: int, progress: bool, total: int
         ) -> None:  # fmt: skip
    """Work through the groups in order; the first error or Ctrl-C stops what has not begun."""
    with (
        ThreadPoolExecutor(workers, "rasters") as pool,
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
