"""A plan as dask tasks: one a group, for any scheduler."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray
from tqdm import tqdm

from workbench.rasters import chips
from workbench.rasters.crop import Cells, Failures, Job, OnError, make_job
from workbench.rasters.decode import Cell, opened
from workbench.rasters.errors import BlockError
from workbench.rasters.plan_data import PlanData
from workbench.rasters.schedule import Ints

Shared = dict[int, Cell]
Task = Callable[[Job, Cells], Any]


def delayed_groups(plan: PlanData, groups: Ints, task: Any) -> Iterator[Any]:
    """Yield for each group a delayed call of ``task(job, cells)``.

    Cells that several groups need are decoded by a task of their own, so that groups need not
    wait for one another and yet each block is decoded once.
    """
    schedule = plan.schedule(groups)
    kept = KeptParts(plan.memory // 4)
    parts: dict[int, Any] = {}
    for group in groups.tolist():
        job = make_job(plan, schedule, group)
        whole: Any = {}
        if job.work.shared:
            whole, parts[group] = delayed(decode_shared, nout=2, pure=False)(job, kept)
        owners = sorted(set(job.work.borrowed.values()))
        borrowed = [parts[owner] for owner in owners]
        yield delayed(run_task, pure=False)(task, job, whole, owners, borrowed)


class KeptParts:
    """What groups shared, kept from one computation to the next: chunk after chunk, each once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._parts: dict[int, Shared] = {}

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return KeptParts, (self._limit,)  # another process starts its own

    def get(self, group: int) -> Shared | None:
        """What a group shared, if it is still here."""
        with self._lock:
            return self._parts.get(group)

    def keep(self, group: int, parts: Shared) -> None:
        """Keep what a group shared; the oldest go where it is too much."""
        with self._lock:
            self._parts[group] = parts
            size = sum(
                cell.pixels.nbytes for part in self._parts.values() for cell in part.values()
            )
            while size > self._limit:
                oldest = self._parts.pop(next(iter(self._parts)))
                size -= sum(cell.pixels.nbytes for cell in oldest.values())


def decode_shared(job: Job, kept: KeptParts) -> tuple[Shared, Shared]:
    """Decode what a job shares: whole cells for itself, parts of them for later groups."""
    parts = kept.get(job.group)
    if parts is not None:
        return {}, parts
    with opened(job.settings) as reader:
        whole = dict(job.decode(reader, list(job.work.shared)))
    parts = {number: job.part(number, cell) for number, cell in whole.items()}
    kept.keep(job.group, parts)
    return whole, parts


def run_task(task: Task, job: Job, whole: Shared, owners: list[int], borrowed: list[Shared]) -> Any:
    """Do a task for one job, given the cells that were decoded for several."""
    by_owner = dict(zip(owners, borrowed, strict=True))
    alone = [number for number in job.work.decoded if number not in whole]
    with opened(job.settings) as reader:

        def cells() -> Iterator[tuple[int, Cell]]:
            yield from whole.items()
            yield from job.decode(reader, alone)
            for number, owner in job.work.borrowed.items():
                yield number, by_owner[owner][number]

        return task(job, cells())


class CutGroup:
    """The task that cuts a group into arrays of its own."""

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error

    def __call__(self, job: Job, cells: Cells) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return pixels and validity."""
        pixels, valid, failures = job.cut(cells)
        if failures and self.on_error == "raise":
            raise next(iter(failures.values()))
        return pixels, valid


def to_xarray(plan: PlanData, on_error: OnError) -> xr.Dataset:
    """The image dataset, cut when it is computed; see `Plan.to_xarray`."""
    layout = plan.layout
    calls = list(delayed_groups(plan, np.arange(layout.groups), CutGroup(on_error)))
    sizes = [layout.members(group) for group in range(layout.groups)]
    regions = layout.order
    if plan.chip_format.pieces > 1:
        calls = _in_table_order(plan, calls)
        regions = np.arange(len(plan.table))
    image = _array(plan, calls, sizes, 0)
    valid = _array(plan, calls, sizes, 1)
    return chips.dataset(plan, regions, image, valid)


def _array(plan: PlanData, calls: list[Any], sizes: list[slice], which: int) -> Any:
    """One dask array of the first (pixels) or second (validity) result of all calls."""
    form = plan.chip_format
    depth, dtype = [((form.channels + form.mask,), form.dtype), ((), "bool")][which]
    parts: list[Any] = []
    for number, (call, members) in enumerate(zip(calls, sizes, strict=True)):
        rows = min(form.rows, form.height - number % form.pieces * form.rows)
        shape = (members.stop - members.start, rows, form.width, *depth)
        parts.append(da.from_delayed(call[which], shape, dtype))  # type: ignore[no-untyped-call]
    if form.pieces > 1:
        steps = range(0, len(parts), form.pieces)
        parts = [da.concatenate(parts[i : i + form.pieces], axis=1) for i in steps]  # type: ignore[no-untyped-call]
    return da.concatenate(parts, axis=0)  # type: ignore[no-untyped-call]


def _in_table_order(plan: PlanData, calls: list[Any]) -> list[Any]:
    """Pieces in the order of the table; the last of each region is cut off where it ends."""
    form = plan.chip_format
    last = form.height - (form.pieces - 1) * form.rows
    heights = [form.rows] * (form.pieces - 1) + [last]
    return [
        delayed(topped, nout=2, pure=False)(calls[at], heights[unit % form.pieces])
        for unit, at in enumerate(np.argsort(plan.layout.order).tolist())
    ]


def topped(arrays: tuple[NDArray[Any], NDArray[Any]], rows: int) -> tuple[Any, Any]:
    """The first rows of chips and of their validity."""
    return arrays[0][:, :rows], arrays[1][:, :rows]


def on_client(
    plan: PlanData, client: Any, groups: Ints, task: Any, on_error: OnError, progress: bool
) -> Failures:
    """Do a plan's groups on a distributed cluster, one dask task each; return the failures."""
    import distributed

    # in the graph once, so that it can be sent again where the worker that has it is lost
    there = delayed(task, pure=False, traverse=False)
    futures = client.compute(list(delayed_groups(plan, groups, there)))
    failures: Failures = {}
    done = distributed.as_completed(futures)  # type: ignore[no-untyped-call]
    try:
        for future in tqdm(
            done, total=len(futures), desc="cut", unit="group", disable=not progress
        ):
            failures |= future.result()
            if failures and on_error == "raise":
                error: BlockError = next(iter(failures.values()))
                raise error
    except (distributed.scheduler.KilledWorker, distributed.CancelledError) as error:
        raise RuntimeError(
            f"the cluster lost workers while it cut ({error!r:.300}): killed, or out of memory? "
            "What is written stays: write again with the same path, and it goes on from there"
        ) from error
    finally:
        client.cancel(futures)
    return failures
