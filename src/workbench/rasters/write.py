"""Write a plan's chips to a folder, group by group, so that a run can stop at any moment.

``plan.json`` tells that the folder is ours and of which plan; it is there before anything else.
``manifest/00007.parquet`` appears, whole, once group 7 is written. When all are, their rows become
``manifest.parquet`` in the table's order and the parts go. So whatever is listed is there, and a
run that was killed at any moment finds out what is left to do.
"""

import errno
import json
import os
import shutil
import tarfile
import warnings
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import pyarrow
from numpy.typing import NDArray
from pyarrow import compute, parquet

from workbench._chips import MANIFEST, PLAN
from workbench._owner import owned
from workbench.rasters import chips, crop
from workbench.rasters.crop import Cells, Failures, Job
from workbench.rasters.dask_tasks import on_client
from workbench.rasters.errors import FailedRegionsWarning, OutputError
from workbench.rasters.formats import (
    GeoTiffWriter,
    PngWriter,
    WebDatasetWriter,
    ZarrWriter,
    unique_partial,
)
from workbench.rasters.plan_data import PlanData
from workbench.rasters.schedule import Ints

#: What a run finds out about each region.
FACTS = ["path", "error", "block_row", "block_column"]
_OWN = {"sample", "position", "stored", "geotransform", *FACTS}
#: Rows to put together at a time.
_ROWS = 2**16


def write_manifest(plan: PlanData, parts: Sequence[Path], target: Path) -> None:
    """Join what all groups' parts say with the plan's table, some rows at a time, in its order."""
    table = _storable(plan)
    paths, failed = _facts(parts)
    stored = np.arange(len(table))
    if plan.chip_format.pieces == 1:
        stored[plan.layout.order] = np.arange(len(table))

    def rows(start: int) -> pd.DataFrame:
        part = table.iloc[start : start + _ROWS].reset_index()
        position = np.arange(start, start + len(part))
        known = failed.reindex(position)
        part.insert(1, "position", position)
        part.insert(2, "stored", stored[position])
        part.insert(3, "path", paths.take(stored[position]).to_pylist())
        part["geotransform"] = list(chips.geotransforms(plan, position))
        part["error"] = known["error"].fillna("").to_numpy()
        for name in ("block_row", "block_column"):
            part[name] = known[name].fillna(-1).to_numpy(np.int64)
        return part

    schema = _schema(table, rows(0))
    with parquet.ParquetWriter(target, schema) as writer:
        for start in range(0, len(table), _ROWS):
            writer.write_table(pyarrow.Table.from_pandas(rows(start), schema, preserve_index=False))


def _schema(table: pd.DataFrame, first: pd.DataFrame) -> Any:
    """The types of all rows: the first ones alone may have nothing in a column."""
    schema = pyarrow.Schema.from_pandas(first, preserve_index=False)
    for field in pyarrow.Schema.from_pandas(table.reset_index(), preserve_index=False):
        schema = schema.set(schema.get_field_index(field.name), field)
    return schema


def _storable(plan: PlanData) -> pd.DataFrame:
    """The plan's table in types that Parquet has, beside our own columns."""
    table = pd.DataFrame(plan.table.drop(columns="polygon", errors="ignore"))
    names = {name: f"{name}_" if name in _OWN else str(name) for name in table.columns}
    table = table.rename(columns=names).rename_axis("sample")
    for name in table.columns[[str(dtype) in ("object", "geometry") for dtype in table.dtypes]]:
        values = table[name].astype(object)
        try:
            pyarrow.array(values, from_pandas=True)
        except (pyarrow.ArrowException, TypeError):
            table[name] = values.map(str, na_action="ignore").astype(object)
    return table


def _facts(parts: Sequence[Path]) -> tuple[Any, pd.DataFrame]:
    """Paths in read order, and what failed, by its position in the table."""
    paths, failed = [], []
    for part in parts:
        rows = parquet.read_table(part)
        paths += rows["path"].chunks
        failed.append(rows.filter(compute.not_equal(rows["error"], "")).to_pandas())
    # of a region in pieces any that failed
    first = pd.concat(failed, ignore_index=True).drop_duplicates("position")
    return pyarrow.chunked_array(paths).combine_chunks(), first.set_index("position")


PARTS = "manifest"


#: What must agree for a run to go on where another one stopped.
_AGREEING = [
    "format",
    "raster_state",
    "regions",
    "bands",
    "size",
    "resampling",
    "fill",
    "fingerprint",
]


class OutputFolder:
    """An output folder of one plan in one format."""

    def __init__(self, plan: PlanData, path: str | os.PathLike[str], form: str) -> None:
        self.plan = plan
        self.format = form
        self.path = Path(path).expanduser().absolute()

    @property
    def description(self) -> dict[str, Any]:
        """What the folder holds."""
        plan = self.plan
        return {
            "made_by": "workbench.rasters",
            "format": self.format,
            "raster": plan.raster.path,
            "raster_size": [plan.raster.height, plan.raster.width],
            "raster_state": plan.raster.state_digest,
            "attributes": chips.attributes(plan),
            "channels": chips.channels(plan),
            "classes": chips.labels(plan)[1],
            "regions": len(plan.table),
            "memory": plan.layout_memory or plan.memory,
            "rows": plan.chip_format.rows,
            "bands": plan.bands,
            "size": [plan.chip_format.height, plan.chip_format.width],
            "resampling": plan.chip_format.resampling,
            "fill": repr(plan.chip_format.fill),
            "fingerprint": plan.fingerprint,
        }

    def exists(self, resume: bool, retry_failed: bool) -> bool:
        """Say whether an earlier run began here; refuse a folder that is not ours to go on with."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        if not self.path.is_dir() or not (self.path / PLAN).is_file():
            raise OutputError(f"{self.path} is there and not of our making; give another path")
        if not resume:
            raise OutputError(f"{self.path} holds chips already; delete it or give another path")
        there = json.loads((self.path / PLAN).read_text())
        mine = json.loads(json.dumps(self.description))
        differing = [key for key in _AGREEING if there.get(key) != mine[key]]
        if differing and not (differing == ["raster_state"] and retry_failed):
            raise OutputError(_refusal(self.path, differing[0], there, mine))
        # the groups stay as they were begun, whatever the memory is now
        self.plan = replace(
            self.plan,
            layout_memory=there["memory"],
            chip_format=replace(self.plan.chip_format, rows=there["rows"]),
        )
        return True

    def reopen(self) -> None:
        """Count the groups in which regions failed as missing, and the raster as it is now as ours.

        At any moment the folder is either as it was, or one that a run goes on with.
        """
        if self.complete:
            rows = pd.read_parquet(self.path / MANIFEST, columns=["position", *FACTS])
            if not (rows["error"] != "").any():
                return
            self._split(rows)
        failed = [part for part in self._parts() if (pd.read_parquet(part)["error"] != "").any()]
        self._describe(self.path)
        (self.path / MANIFEST).unlink(missing_ok=True)
        for part in failed:
            part.unlink()

    def _split(self, rows: pd.DataFrame) -> None:
        """Make the parts again of a whole manifest."""
        partial = self.path / f".{PARTS}.partial"
        for folder in (partial, self.path / PARTS):
            shutil.rmtree(folder, ignore_errors=True)
        partial.mkdir()
        for group in range(self.plan.layout.groups):
            regions = self._regions(group)
            part = rows.iloc[regions].reset_index(drop=True)
            part.to_parquet(partial / f"{group:06d}.parquet", index=False)
        partial.replace(self.path / PARTS)

    def begin(self, skeleton: Path) -> None:
        """Make a prepared folder, at once, the output folder."""
        (skeleton / PARTS).mkdir()
        self._describe(skeleton)
        if self.path.exists():
            self.path.rmdir()
        skeleton.replace(self.path)

    def skeleton(self) -> Path:
        """An empty folder beside the output, in which to prepare it."""
        path = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    @property
    def complete(self) -> bool:
        """Whether everything is written."""
        return (self.path / MANIFEST).is_file()

    def missing(self) -> Ints:
        """The groups that are still to be written, ascending."""
        done = {int(part.stem) for part in self._parts()}
        return np.array([g for g in range(self.plan.layout.groups) if g not in done], np.int64)

    def commit(self, group: int, failures: Failures, paths: list[str]) -> None:
        """Record that a group is written. From now on it is never read again."""
        start = self.plan.layout.members(group).start
        errors = [failures.get(start + i) for i in range(len(paths))]
        rows = pd.DataFrame(
            {
                "position": self._regions(group),
                "path": paths,
                "error": [error.reason if error else "" for error in errors],
                "block_row": [error.block[0] if error else -1 for error in errors],
                "block_column": [error.block[1] if error else -1 for error in errors],
            }
        )
        target = self.path / PARTS / f"{group:06d}.parquet"
        partial = unique_partial(target)
        rows.to_parquet(partial, index=False)
        partial.replace(target)

    def finish(self) -> Path:
        """Join the parts to the manifest, if that is not done; return its path."""
        target = self.path / MANIFEST
        if not self.complete:
            partial = unique_partial(target)
            write_manifest(self.plan, self._parts(), partial)
            partial.replace(target)
        shutil.rmtree(self.path / PARTS, ignore_errors=True)
        return target

    def _parts(self) -> list[Path]:
        return sorted((self.path / PARTS).glob("[0-9]*.parquet"))

    def _regions(self, group: int) -> Ints:
        """Rows of the table that a group's units belong to."""
        layout = self.plan.layout
        return layout.order[layout.members(group)] // self.plan.chip_format.pieces

    def _describe(self, folder: Path) -> None:
        partial = folder / f".{PLAN}.partial"
        partial.write_text(json.dumps(self.description, indent=1) + "\n")
        partial.replace(folder / PLAN)


def _refusal(path: Path, key: str, there: dict[str, Any], mine: dict[str, Any]) -> str:
    what = f"its {key.replace('_', ' ')} is {there.get(key)!r}, now it is {mine[key]!r}"
    if key == "fingerprint":
        what = "the regions or options differ"
    if key == "raster_state":
        what = "the raster's files have changed since"
    advice = "give another path"
    if key == "raster_state":
        advice += ", or retry_failed=True if the raster was only repaired"
    return f"{path} was written by another plan: {what}; {advice}"


Format = Literal["zarr", "geotiff", "png", "webdataset"]


class Writer(Protocol):
    """One format: prepares a folder, then writes one group after another."""

    def prepare(self, folder: Path) -> None:
        """Write what is there before the first group."""

    def write(
        self, group: int, image: NDArray[Any], valid: NDArray[np.bool_], failed: Set[int]
    ) -> list[str]:
        """Write a group's chips, of which `failed` hold fill only; return each one's path."""

    def clean(self) -> None:
        """Remove what a killed run left half-written."""


_WRITERS: dict[str, Any] = {
    "zarr": ZarrWriter,
    "geotiff": GeoTiffWriter,
    "png": PngWriter,
    "webdataset": WebDatasetWriter,
}


@dataclass(frozen=True)
class Written:
    """What `Plan.write` wrote: where (``path``) and in which ``format``; a tar's ``folder``."""

    folder: Path
    format: str
    path: Path

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """One row a region, in the table's order, read from ``manifest.parquet``.

        ``sample``, ``position`` in the table, ``stored`` (position on disk), ``path``, the box, the
        table's other columns, and ``error`` with ``block_row`` and ``block_column`` where it could
        not be read.
        """
        return pd.read_parquet(self.folder / MANIFEST)

    @cached_property
    def failed(self) -> pd.DataFrame:
        """The regions that could not be read: their rows of the manifest."""
        return pd.read_parquet(self.folder / MANIFEST, filters=[("error", "!=", "")])

    def __bool__(self) -> bool:
        """Whether every region was read."""
        return self.failed.empty


def write(
    plan: PlanData,
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
    if "://" in os.fspath(path):
        raise OutputError(
            f"{path} is an address; chips are written to a folder of this machine or of its "
            "network. Write there, then copy the folder by the storage's own tool"
        )
    plan = plan.with_mask() if form == "geotiff" else plan
    target = Path(path).expanduser().absolute()
    options: dict[str, Any] = {"resume": resume, "retry_failed": retry_failed}
    options |= {"on_error": on_error, "threads": threads, "client": client, "progress": progress}
    if target.suffix != ".tar":
        return write_groups(OutputFolder(plan, target, form), _WRITERS[form], **options)
    folder = OutputFolder(plan, parts_of(target), "webdataset")
    return write_groups(folder, WebDatasetWriter, target, _join_tars, **options)


def parts_of(target: Path) -> Path:
    """The folder in which the parts of one file are made, and in which its manifest stays."""
    return target.with_name(f"{target.name}.parts")


def write_groups(
    folder: OutputFolder,
    make_writer: Callable[[PlanData, Path], Writer],
    target: Path | None = None,
    join: Callable[[PlanData, list[Path], Path], None] | None = None,
    *,
    resume: bool,
    retry_failed: bool = False,
    on_error: crop.OnError,
    threads: int | None,
    client: Any = None,
    progress: bool,
) -> Written:
    """Write what is missing of a folder; then `join` its parts to the one file `target`."""
    try:
        with owned(folder.path, OutputError):
            began = folder.exists(resume, retry_failed)
            writer = make_writer(folder.plan, folder.path)
            if not began:
                if target is not None and target.exists():
                    raise OutputError(f"{target} is there and not of our making; delete it first")
                skeleton = folder.skeleton()
                writer.prepare(skeleton)
                folder.begin(skeleton)
            elif retry_failed:
                folder.reopen()
            if not folder.complete:
                if target is not None:
                    target.unlink(missing_ok=True)
                folder.plan.source.raster.check_unchanged()
                writer.clean()
                task = WriteGroup(writer, folder, on_error)
                groups = folder.missing()
                if client is not None:
                    on_client(folder.plan, client, groups, task, on_error, progress)
                else:
                    options: dict[str, Any] = {"threads": threads, "progress": progress}
                    crop.run(folder.plan, groups, task, on_error=on_error, **options)
                writer.clean()  # of workers that were lost
            folder.finish()
            written = Written(folder.path, folder.format, target or folder.path)
            if target is not None and join is not None:
                _join(folder, target, join, keep=not written)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(folder) from error
        raise
    if not written:
        text = chips.failed_text(written.failed, len(folder.plan.table))
        warnings.warn(text, FailedRegionsWarning, stacklevel=4)
    return written


def _join(folder: OutputFolder, target: Path, join: Any, keep: bool) -> None:
    """Make one file of a folder's parts, and then, unless some failed, remove them."""
    parts = sorted(folder.path.glob("[0-9]*.*"))
    if not target.exists():
        if not parts:
            raise OutputError(f"{target} is gone: delete {folder.path} too, to write it again")
        join(folder.plan, parts, target)
    for part in [] if keep else parts:
        part.unlink()


def _join_tars(plan: PlanData, parts: list[Path], target: Path) -> None:  # noqa: ARG001
    partial = unique_partial(target)
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as whole:
        for part in parts:
            with tarfile.open(part) as tar:
                for member in tar:
                    whole.addfile(member, tar.extractfile(member))
    partial.replace(target)


def _full(folder: OutputFolder) -> OSError:
    groups = folder.plan.layout.groups
    return OSError(
        errno.ENOSPC,
        f"the disk is full; {groups - len(folder.missing())} of {groups} groups are written. "
        "Make room and write again: it goes on from there",
        str(folder.path),
    )


@dataclass(frozen=True)
class WriteGroup:
    """The task that cuts one group, writes it and records it."""

    writer: Writer
    folder: OutputFolder
    on_error: crop.OnError

    def __call__(self, job: Job, cells: Cells) -> Failures:
        """Do one group."""
        pixels, valid, failures = job.cut(cells)
        if failures and self.on_error == "raise":
            raise next(iter(failures.values()))
        failed = {position - job.start for position in failures}
        paths = self.writer.write(job.group, pixels, valid, failed)
        self.folder.commit(job.group, failures, paths)
        return failures
