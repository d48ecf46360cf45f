"""The folder of runs: what is in it, quickly, and what is removed from it."""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.batch.run_record import RunRecord

if TYPE_CHECKING:
    from workbench.batch.run_record import RunRecord


def results_of(record: RunRecord) -> dict[str, Any]:
    """Return what a run recorded; nothing if it came to nothing."""
    try:
        return dict(json.loads((record.folder / "results.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each single value of nested results with its dotted name.

    Examples
    --------
    >>> list(leaves({"a": {"b": 1, "c": [2, 3]}}))
    [('a.b', 1), ('a.c.0', 2), ('a.c.1', 3)]
    """
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield name, value
        return
    for key, item in items:
        yield from leaves(item, f"{name}.{key}" if name else str(key))


_log = logging.getLogger("workbench.batch")
_INDEX = ".index.json"
_FORM = 1  # of a line of the index; another number makes it be read anew


@dataclass(slots=True)
class Summary:
    """What a list of runs shows of one; times are ISO 8601 in UTC, which sort as text."""

    id: str
    notebook: str
    status: str
    started: str
    seconds: float | None
    peak_memory_bytes: int | None
    peak_cell: int | None
    limit_bytes: int | None
    error: str | None
    cause: str | None
    cell: int | None
    given: dict[str, Any]
    group: str | None
    pid: int
    host: str

    @property
    def when(self) -> datetime:
        """The start as a datetime."""
        return datetime.fromisoformat(self.started)


_FIELDS = [field.name for field in fields(Summary)]


def summaries(out: str | Path = "runs") -> list[Summary]:
    """Return what a list shows of all runs in a folder, newest first.

    A hidden index beside the runs saves reading every record anew; a record that has changed since
    is read again, and without a right to write the index is left out.

    Examples
    --------
    >>> summaries("no-such-folder")
    []
    """
    out = Path(out)
    index = _read_index(out)
    fresh: dict[str, list[Any]] = {}
    found: list[Summary] = []
    for name, stamp in _records(out):
        line = index.get(name)
        if line is None or line[0] != stamp:
            try:
                line = [stamp, _values(_summary(f"{out}/{name}/run.json"))]
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("%s cannot be read: %r", out / name / "run.json", error)
                continue
        fresh[name] = line
        found.append(Summary(*line[1]))
    if fresh != index:
        _write_index(out, fresh)
    for summary in found:
        _see_whether_running(summary)
    return sorted(found, key=lambda summary: (summary.started, summary.id), reverse=True)


def read_runs(out: str | Path = "runs", ids: Iterable[str] | None = None) -> "list[RunRecord]":
    """Return the records of runs in a folder, newest first: all of them, or those with these ids.

    Records that cannot be read are named in a warning of the ``workbench.batch`` logger.

    Examples
    --------
    >>> read_runs("no-such-folder")
    []
    """
    from workbench.batch.run_record import RunRecord

    names = [name for name, _ in _records(Path(out))] if ids is None else list(ids)
    found = []
    for name in names:
        try:
            found.append(RunRecord.load(Path(out) / name))
        except (OSError, ValueError) as error:
            path = Path(out) / name / "run.json"
            _log.warning("%s cannot be read: %s", path, str(error).partition("\n")[0])
    return sorted(found, key=lambda record: (record.started, record.id), reverse=True)


def find_run(out: str | Path, name: str) -> Path:
    """Return the folder of the run whose id starts or ends with a text; ``last`` is the newest.

    Raises
    ------
    LookupError
        No run is called so, or several are.
    """
    out = Path(out)
    if (Path(name) / "run.json").is_file():
        return Path(name)
    if name == "last" and (runs := summaries(out)):
        return out / runs[0].id
    ids = [run for run, _ in _records(out)]
    matching = [run for run in ids if run == name] or [
        run for run in ids if run.startswith(name) or run.endswith(name)
    ]
    if len(matching) != 1:
        many = f": {', '.join(sorted(matching)[:5])}" if matching else ""
        raise LookupError(f"{len(matching) or 'no'} runs in {out} are called {name!r}{many}")
    return out / matching[0]


def prune(out: str | Path, ids: Iterable[str]) -> int:
    """Remove the folders of runs, and return how many bytes that freed.

    The record goes last: what is left of an interrupted removal can be pruned again.
    """
    freed = 0
    for name in ids:
        folder = Path(out) / name
        if not (folder / "run.json").is_file():  # never a folder that is not a run's
            raise LookupError(f"{folder} is not the folder of a run")
        freed += sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())
        for path in folder.iterdir():
            if path.name != "run.json":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(folder)
    return freed


def _records(out: Path) -> list[tuple[str, str]]:
    """Every run's id with what tells one state of its record from another."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(out) as entries:
        for entry in entries:
            with suppress(OSError):
                state = os.stat(f"{entry.path}/run.json")  # noqa: PTH116  a third of the time
                found.append((entry.name, f"{state.st_mtime_ns}-{state.st_size}-{state.st_ino}"))
    return found


def _summary(path: str) -> Summary:
    from pydantic_core import from_json

    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  half the time of a Path's
        text = file.read()
    # Most of a record is the list of packages, which a summary does without: read it past that.
    start = text.find(b'\n "packages": {\n')
    end = text.find(b"\n },", start)
    if 0 < start < end:
        text = text[:start] + text[end + 4 :]
    return summary_of(from_json(text))


def _values(summary: Summary) -> list[Any]:
    return [getattr(summary, field) for field in _FIELDS]


def summary_of(record: Mapping[str, Any]) -> Summary:
    """Return what a list shows of a record, as JSON has it."""
    error, memory = record["error"] or {}, record.get("memory") or {}
    return Summary(
        id=record["id"],
        notebook=record["notebook"],
        status=record["status"],
        started=record["started"],
        seconds=record["seconds"],
        peak_memory_bytes=record["peak_memory_bytes"],
        peak_cell=memory.get("peak_cell"),
        limit_bytes=memory.get("limit_bytes"),
        error=f"{error['type']}: {error['message']}".partition("\n")[0] if error else None,
        cause=error.get("cause"),
        cell=error.get("cell"),
        given=record["given"],
        group=record.get("group"),
        pid=record["pid"],
        host=record["host"],
    )


def _see_whether_running(summary: Summary) -> None:
    """Show a run as killed whose supervisor is gone, as `RunRecord.load` does."""
    if summary.status != "running":
        return
    from workbench.batch.processes import is_alive_since

    if not is_alive_since(summary.pid, summary.host, summary.when.timestamp()):
        summary.status = "killed"
        summary.error = "ParentGone: the process that supervised this run is gone"


def _read_index(out: Path) -> dict[str, Any]:
    try:
        index = json.loads((out / _INDEX).read_bytes())
        return dict(index["runs"]) if index["form"] == _FORM else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_index(out: Path, runs: dict[str, Any]) -> None:
    from workbench.batch.notebook import write_text

    with suppress(OSError):
        write_text(out / _INDEX, json.dumps({"form": _FORM, "runs": runs}))
