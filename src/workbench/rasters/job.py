"""One group's work, with all that it takes: small enough to send to another process."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.decode import Cell, decode_cell
from workbench.rasters.errors import BlockError
from workbench.rasters.form import Form
from workbench.rasters.georeference import Raster
from workbench.rasters.layout import Grid, Ints
from workbench.rasters.resample import Box, resample, sampled
from workbench.rasters.schedule import Share
from workbench.rasters.tiff import Reader

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
