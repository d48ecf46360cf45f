"""A plan as dask tasks: one a group, for any scheduler."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray
from tqdm import tqdm

from workbench._extras import need
from workbench.rasters import chips
from workbench.rasters.crop import Cells, Failures, Job, OnError, make_job
from workbench.rasters.decode import Cell, opened
from workbench.rasters.errors import BlockError
from workbench.rasters.plan_data import PlanData
from workbench.rasters.schedule import Ints

Order = Literal["table", "read"]
Handed = dict[int, Cell]
Work = Callable[[Job, Cells], Any]


def tasks(plan: PlanData, groups: Ints, work: Any) -> Iterator[tuple[int, Any]]:
    """Yield for each group a delayed call of ``work(job, cells)``.

    Cells that several groups need are decoded by a task of their own, so that groups need not
    wait for one another and yet each block is decoded once.
    """
    schedule = plan.schedule(groups)
    handed: dict[int, tuple[Any, Any]] = {}
    for group in groups.tolist():
        job = make_job(plan, schedule, group)
        whole: Any = {}
        if job.share.kept:
            both = delayed(decode_kept, nout=2, pure=False)(job)
            whole, handed[group] = both[0], both[1]
        owners = sorted(set(job.share.handed.values()))
        parts = [handed[owner] for owner in owners]
        yield group, delayed(do, pure=False)(work, job, whole, owners, parts)


def decode_kept(job: Job) -> tuple[Handed, Handed]:
    """Decode what a job shares: whole cells for itself, parts of them for later groups."""
    settings = job.settings
    with opened(settings.raster, settings.bands, mask=settings.form.mask,
                decoder=settings.decoder) as reader:  # fmt: skip
        whole = dict(job.decoded(reader, list(job.share.kept)))
    return whole, {number: job.part(number, cell) for number, cell in whole.items()}


def do(work: Work, job: Job, whole: Handed, owners: list[int], parts: list[Handed]) -> Any:
    """Do one job, given the cells that were decoded for several."""
    settings, given = job.settings, dict(zip(owners, parts, strict=True))
    alone = [number for number in job.share.owned if number not in whole]
    with opened(settings.raster, settings.bands, mask=settings.form.mask,
                decoder=settings.decoder) as reader:  # fmt: skip

        def cells() -> Iterator[tuple[int, Cell]]:
            yield from whole.items()
            yield from job.decoded(reader, alone)
            for number, owner in job.share.handed.items():
                yield number, given[owner][number]

        return work(job, cells())


class Cut:
    """Cuts a group into arrays of its own."""

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error

    def __call__(self, job: Job, cells: Cells) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return pixels and validity."""
        pixels, valid, failures = job.cut(cells)
        if failures and self.on_error == "raise":
            raise next(iter(failures.values()))
        return pixels, valid


def to_xarray(plan: PlanData, order: Order, on_error: OnError) -> xr.Dataset:
    """The image dataset, cut when it is computed; see `Plan.to_xarray`."""
    if order not in ("table", "read"):
        raise ValueError(f'order={order!r} is neither "table" nor "read"')
    layout, form = plan.layout, plan.form
    calls = [call for _, call in tasks(plan, np.arange(layout.groups), Cut(on_error))]
    sizes = [layout.members(group) for group in range(layout.groups)]
    regions = layout.order
    if form.pieces > 1:
        calls, regions = _by_unit(plan, calls), np.arange(len(plan.table))
    elif order == "table" and (np.diff(layout.order) != 1).any():
        calls, regions = _gathered(layout.order, sizes, calls), np.arange(len(plan.table))
    arrays = []
    for which, (depth, dtype) in enumerate(
        ((form.channels + form.mask, form.dtype), (None, "bool"))
    ):
        parts = [
            da.from_delayed(call[which], _shape(plan, unit, member, depth), dtype)  # type: ignore[no-untyped-call]
            for unit, (call, member) in enumerate(zip(calls, sizes, strict=True))
        ]
        if form.pieces > 1:
            steps = range(0, len(parts), form.pieces)
            parts = [_joined(parts[i : i + form.pieces], 1) for i in steps]
        arrays.append(_joined(parts, 0))
    return chips.dataset(plan, regions, *arrays)


def _joined(parts: list[Any], axis: int) -> Any:
    return da.concatenate(parts, axis=axis)  # type: ignore[no-untyped-call]


def _shape(plan: PlanData, unit: int, members: slice, depth: int | None) -> tuple[int, ...]:
    form = plan.form
    rows = min(form.rows, form.height - unit % form.pieces * form.rows)
    shape = (members.stop - members.start, rows, form.width)
    return shape if depth is None else (*shape, depth)


def _by_unit(plan: PlanData, calls: list[Any]) -> list[Any]:
    """Pieces in the order of the table; the last of each region is cut off where it ends."""
    form, back = plan.form, np.argsort(plan.layout.order)
    last = form.height - (form.pieces - 1) * form.rows
    heights = [form.rows] * (form.pieces - 1) + [last]
    return [
        delayed(topped, nout=2, pure=False)(calls[at], heights[unit % form.pieces])
        for unit, at in enumerate(back.tolist())
    ]


def topped(arrays: tuple[NDArray[Any], NDArray[Any]], rows: int) -> tuple[Any, Any]:
    """The first rows of chips and of their validity."""
    return arrays[0][:, :rows], arrays[1][:, :rows]


def _gathered(order: Ints, sizes: list[slice], calls: list[Any]) -> list[Any]:
    """Bring chips into the table's order: chunks as large as the groups, each from some groups."""
    back, size = np.argsort(order), sizes[0].stop
    gathered = []
    for rows in sizes:
        group, within = np.divmod(back[rows], size)
        used = np.unique(group)
        places = [(np.flatnonzero(group == one), within[group == one]) for one in used]
        sources = [calls[one] for one in used.tolist()]
        gathered.append(delayed(gather, nout=2, pure=False)(places, sources))
    return gathered


def gather(
    places: list[tuple[Ints, Ints]], sources: list[tuple[NDArray[Any], NDArray[np.bool_]]]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Take chips out of groups, into one chunk in another order."""
    count = sum(len(target) for target, _ in places)
    pixels, valid = (np.empty((count, *array.shape[1:]), array.dtype) for array in sources[0])
    for (target, within), source in zip(places, sources, strict=True):
        pixels[target], valid[target] = source[0][within], source[1][within]
    return pixels, valid


def on_client(
    plan: PlanData, client: Any, groups: Ints, work: Any, on_error: OnError, progress: bool
) -> Failures:
    """Do a plan's groups on a distributed cluster, one task each; return the failures."""
    distributed = need("distributed", extra="rasters")
    # sent to each worker once, not with each task
    there = client.scatter(work, broadcast=False)
    futures = client.compute([call for _, call in tasks(plan, groups, there)])
    failures: Failures = {}
    try:
        for future in tqdm(distributed.as_completed(futures), total=len(futures), desc="cut",
                           unit="group", disable=not progress):  # fmt: skip
            failures |= future.result()
            if failures and on_error == "raise":
                error: BlockError = next(iter(failures.values()))
                raise error
    finally:
        client.cancel(futures)
    return failures
