"""Write a plan's chips to a folder, group by group, so that a run can stop at any moment."""

import errno
import os
import warnings
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.rasters import chips, crop
from workbench.rasters.errors import FailedRegionsWarning
from workbench.rasters.job import Cells, Failures, Job
from workbench.rasters.lazy import on_client
from workbench.rasters.manifest import MANIFEST, Place
from workbench.rasters.write_files import GeoTiffs, Pngs, Tars
from workbench.rasters.write_zarr import ZarrShards

if TYPE_CHECKING:
    from workbench.rasters.plans import Plan

Format = Literal["zarr", "geotiff", "png", "webdataset"]


class Writer(Protocol):
    """One format: prepares a folder, then writes one group after another."""

    def prepare(self, folder: Path) -> None:
        """Write what is there before the first group."""

    def write(
        self, group: int, image: NDArray[Any], valid: NDArray[np.bool_], failed: Set[int]
    ) -> list[str]:
        """Write a group's chips; return each one's path, relative to the folder.

        `failed` are the numbers of those that hold nothing but fill.
        """

    def clean(self) -> None:
        """Remove what a killed run left half-written."""


_WRITERS: dict[str, Any] = {
    "zarr": ZarrShards,
    "geotiff": GeoTiffs,
    "png": Pngs,
    "webdataset": Tars,
}


@dataclass(frozen=True)
class Written:
    """What `Plan.write` wrote.

    Attributes
    ----------
    path, format
        Where and how.
    """

    path: Path
    format: str

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """One row a region, in the table's order, read from ``manifest.parquet``.

        ``sample``, ``position`` in the table, ``stored`` (position on disk), ``path``, the box, the
        table's other columns, and ``error`` with ``block_row`` and ``block_column`` where it could
        not be read.
        """
        return pd.read_parquet(self.path / MANIFEST)

    @cached_property
    def failed(self) -> pd.DataFrame:
        """The regions that could not be read: their rows of the manifest."""
        return pd.read_parquet(self.path / MANIFEST, filters=[("error", "!=", "")])

    def __bool__(self) -> bool:
        """Whether every region was read."""
        return self.failed.empty


def write(
    plan: "Plan",
    path: str | os.PathLike[str],
    form: Format,
    *,
    resume: bool,
    retry_failed: bool,
    on_error: crop.OnError,
    threads: int | None,
    client: Any,
    progress: bool,
) -> Written:
    """Write all chips; see `Plan.write`."""
    if form not in _WRITERS:
        raise ValueError(f"format={form!r} is none of {', '.join(_WRITERS)}")
    place = Place(plan, path, form)
    writer: Writer = _WRITERS[form](plan, place.path)
    try:
        if not place.exists(resume, retry_failed):
            skeleton = place.skeleton()
            writer.prepare(skeleton)
            place.begin(skeleton)
        elif retry_failed:
            place.reopen()
        if not place.complete:
            writer.clean()
            work, groups = Work(writer, place, on_error), place.missing()
            if client is not None:
                on_client(plan, client, groups, work, on_error, progress)
            else:
                crop.run(plan, groups, work, on_error=on_error, threads=threads, progress=progress)
        place.finish()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(place) from error
        raise
    written = Written(place.path, form)
    if not written:
        text = chips.failed_text(written.failed, len(plan.table))
        warnings.warn(text, FailedRegionsWarning, stacklevel=3)
    return written


def _full(place: Place) -> OSError:
    groups = place.plan.layout.groups
    return OSError(
        errno.ENOSPC,
        f"the disk is full; {groups - len(place.missing())} of {groups} groups are written. "
        "Make room and write again: it goes on from there",
        str(place.path),
    )


@dataclass(frozen=True)
class Work:
    """Cuts one group, writes it and records it."""

    writer: Writer
    place: Place
    on_error: crop.OnError

    def __call__(self, job: Job, cells: Cells) -> Failures:
        """Do one group."""
        pixels, valid, failures = job.cut(cells)
        if failures and self.on_error == "raise":
            raise next(iter(failures.values()))
        failed = {position - job.start for position in failures}
        paths = self.writer.write(job.group, pixels, valid, failed)
        self.place.commit(job.group, failures, paths)
        return failures
