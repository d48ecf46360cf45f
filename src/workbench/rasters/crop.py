"""Cut regions out of decoded cells, group by group, by a thread for each core."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from workbench.rasters.decode import Cell, Reader, decode_cell, opened
from workbench.rasters.errors import BlockError
from workbench.rasters.layout import Ints
from workbench.rasters.schedule import Share

if TYPE_CHECKING:
    from workbench.rasters.plan import Plan

OnError = Literal["list", "raise"]
#: Read position and what was wrong, for each region that could not be read.
Failures = dict[int, BlockError]

#: Cuts a group's regions onto the canvases that it is given.
Cut = Callable[[Callable[[int], NDArray[Any]]], Failures]


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


@dataclass
class Cutter:
    """Cuts one plan's regions; reads through one reader."""

    plan: "Plan"
    reader: Reader

    def cells(self, share: Share, give: Callable[[int, Cell, int], None],
              take: Callable[[int, int], Cell]) -> Iterator[tuple[int, Cell]]:  # fmt: skip
        """Yield the cells of a share, those first that others wait for."""
        for number in sorted(share.owned, key=lambda number: number not in share.kept):
            cell = decode_cell(self.reader, self.plan.layout.grid, number, share.owned[number])
            if number in share.kept:
                box, users = share.kept[number]
                give(number, cell if not cell.pixels.size else cell.part(box), users)
            yield number, cell
        for number, owner in share.handed.items():
            yield number, take(owner, number)

    def cut(self, cells: Iterable[tuple[int, Cell]], share: Share, start: int,
            canvas: Callable[[int], NDArray[Any]]) -> Failures:  # fmt: skip
        """Copy what each region needs of each cell onto its canvas.

        Parameters
        ----------
        start
            Read position of the group's first region.
        canvas
            From a position in the group to where its pixels go, (row, column, band).
        """
        layout, boxes = self.plan.layout, self.plan.unit_boxes
        failures: Failures = {}
        for number, cell in cells:
            positions = share.cuts[number]
            inside, box = layout.inside[positions], boxes[layout.order[positions]]
            if cell.bad:
                failures |= _touching(cell, positions, inside)
            high, wide = cell.pixels.shape[:2]
            rows = np.clip(inside[:, :2], cell.top, cell.top + high)
            columns = np.clip(inside[:, 2:], cell.left, cell.left + wide)
            cuts = np.concatenate(
                [rows - cell.top, columns - cell.left, rows - box[:, 1:2], columns - box[:, :1]], 1
            )
            pixels = cell.pixels
            for at, (a, b, c, d, p, q, r, s) in zip(
                (positions - start).tolist(), cuts.tolist(), strict=True
            ):
                if at + start not in failures:
                    canvas(at)[p:q, r:s] = pixels[a:b, c:d]
        return failures


def _touching(cell: Cell, positions: Ints, inside: Ints) -> Failures:
    found: Failures = {}
    for (first, last, left, right), error in cell.bad:
        hit = (inside[:, 0] < last) & (inside[:, 1] > first)
        hit &= (inside[:, 2] < right) & (inside[:, 3] > left)
        found |= dict.fromkeys(positions[hit].tolist(), error)
    return found


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    plan: "Plan",
    groups: Ints,
    work: Callable[[int, Callable[[Callable[[int], NDArray[Any]]], Failures]], None],
    *,
    on_error: OnError = "list",
    threads: int | None = None,
    progress: bool = True,
) -> Failures:
    """Cut all regions of some groups, several groups at a time.

    Parameters
    ----------
    work
        Called in a thread with a group and a function that cuts the group's regions onto the
        canvases that it is given, and returns the failures.
    on_error
        ``"raise"`` stops at the first block that cannot be decoded.
    """
    if on_error not in ("list", "raise"):
        raise ValueError(f'on_error={on_error!r} is neither "list" nor "raise"')
    schedule = plan.schedule(groups)
    handover, failures = Handover(), Failures()
    with opened(plan.raster, plan.bands, mask=plan.mask, decoder=plan.decoder) as reader:
        cutter = Cutter(plan, reader)

        def one(group: int) -> int:
            share = schedule.share(group)
            members = plan.layout.members(group)

            def cut(canvas: Callable[[int], NDArray[Any]]) -> Failures:
                def give(number: int, cell: Cell, users: int) -> None:
                    handover.give(group, number, cell, users)

                cells = cutter.cells(share, give, handover.take)
                failed = cutter.cut(cells, share, members.start, canvas)
                if failed and on_error == "raise":
                    raise next(iter(failed.values()))
                failures.update(failed)
                return failed

            try:
                work(group, cut)
            except BaseException as error:
                handover.fail(group, share.kept, error)
                raise
            return int(members.stop - members.start)

        workers = min(threads or plan.threads(), max(1, len(groups)))
        _all(one, groups.tolist(), workers, progress, len(plan.layout.order))
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
