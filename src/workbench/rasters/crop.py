"""Cut regions out of decoded cells, group by group, by a thread for each core."""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Literal

from tqdm import tqdm

from workbench.rasters.decode import Cell
from workbench.rasters.job import Cells, Failures, Job, local
from workbench.rasters.layout import Ints
from workbench.rasters.readers import opened

if TYPE_CHECKING:
    from workbench.rasters.plans import Plan

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


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    plan: "Plan",
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
            job = plan.job(schedule, group)
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
