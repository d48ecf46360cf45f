"""Write a plan's chips to a folder, group by group, so that a run can stop at any moment."""

import errno
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.rasters import chips, crop
from workbench.rasters.errors import FailedRegionsWarning
from workbench.rasters.job import Cells, Failures, Job
from workbench.rasters.lazy import on_client
from workbench.rasters.manifest import Place
from workbench.rasters.write_files import GeoTiffs, Pngs, Tars
from workbench.rasters.write_zarr import ZarrShards

if TYPE_CHECKING:
    from workbench.rasters.plan import Plan

Format = Literal["zarr", "geotiff", "png", "webdataset"]


class Writer(Protocol):
    """One format: prepares a folder, then writes one group after another."""

    def prepare(self, folder: Path) -> None:
        """Write what is there before the first group."""

    def write(self, group: int, image: NDArray[Any], valid: NDArray[np.bool_]) -> list[str]:
        """Write a group's chips; return each one's path, relative to the folder."""

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
    manifest
        One row a region, in the table's order: ``sample``, ``position`` in the table, ``stored``
        (position on disk), ``path``, the box, the table's other columns, and ``error`` with
        ``block_row`` and ``block_column`` where it could not be read.
    """

    path: Path
    format: str
    manifest: pd.DataFrame

    @property
    def failed(self) -> pd.DataFrame:
        """The regions that could not be read."""
        return self.manifest[self.manifest["error"] != ""]

    def __bool__(self) -> bool:
        """Whether every region was read."""
        return self.failed.empty


def write(
    plan: "Plan",
    path: str | os.PathLike[str],
    form: Format,
    *,
    resume: bool,
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
    if not place.exists(resume):
        skeleton = place.skeleton()
        writer.prepare(skeleton)
        place.begin(skeleton)
    if not place.complete:
        writer.clean()
        try:
            work, groups = Work(writer, place, on_error), place.missing()
            if client is None:
                crop.run(plan, groups, work, on_error=on_error, threads=threads,
                         progress=progress)  # fmt: skip
            else:
                on_client(plan, client, groups, work, on_error, progress)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            left = len(place.missing())
            raise OSError(
                errno.ENOSPC,
                f"the disk is full; {plan.layout.groups - left} of {plan.layout.groups} groups are "
                "written. Make room and write again: it goes on from there",
                str(place.path),
            ) from error
    written = Written(place.path, form, place.finish())
    if not written:
        text = chips.failed_text(written.failed.reset_index(), len(plan.table))
        warnings.warn(text, FailedRegionsWarning, stacklevel=3)
    return written


@dataclass(frozen=True)
class Work:
    """Cuts one group, writes it and records it."""

    writer: Writer
    place: Place
    on_error: crop.OnError

    def __call__(self, job: Job, cells: Cells) -> Failures:
        """Do one group."""
        pixels, valid = job.new()
        failures = job.fill(cells, list(pixels), list(valid))
        if failures and self.on_error == "raise":
            raise next(iter(failures.values()))
        self.place.commit(job.group, failures, self.writer.write(job.group, pixels, valid))
        return failures
