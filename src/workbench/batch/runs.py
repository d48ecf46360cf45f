"""The folder of runs: what is in it, what it recorded, and what is removed from it."""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.batch.run_record import RunRecord

_log = logging.getLogger("workbench.batch")


def results_of(record: RunRecord) -> dict[str, Any]:
    """Return what a run recorded; nothing if it came to nothing."""
    path = record.file("results.json")
    try:
        return dict(json.loads(path.read_bytes())) if path else {}
    except (OSError, ValueError):
        return {}


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each single value of nested results with its dotted name.

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


def read_runs(out: str | Path = "runs", ids: Iterable[str] | None = None) -> list[RunRecord]:
    """Return the records of runs in a folder, newest first: all of them, or those with these ids.

    Records that cannot be read are named in a warning of the ``workbench.batch`` logger.

    Examples
    --------
    >>> read_runs("no-such-folder")
    []
    """
    out = Path(out)
    found = []
    for name in _names(out) if ids is None else ids:
        try:
            found.append(RunRecord.load(out / name))
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            _log.warning("%s cannot be read: %s", out / name / "run.json", reason)
    return sorted(found, key=lambda record: (record.started, record.id), reverse=True)


def find_run(out: str | Path, name: str) -> Path:
    """Return the folder of the run whose id starts or ends with a text; ``last`` is the newest.

    A LookupError says that no run is called so, or several are.
    """
    out = Path(out)
    if (Path(name) / "run.json").is_file():
        return Path(name)
    if name == "last" and (records := read_runs(out)):
        return records[0].folder
    names = _names(out)
    matching = [run for run in names if run == name] or [
        run for run in names if run.startswith(name) or run.endswith(name)
    ]
    if len(matching) != 1:
        many = f": {', '.join(sorted(matching)[:5])}" if matching else ""
        raise LookupError(f"{len(matching) or 'no'} runs in {out} are called {name!r}{many}")
    return out / matching[0]


def prune(out: str | Path, names: Iterable[str]) -> int:
    """Remove the folders of runs, by the folders' names, and return how many bytes that freed.

    The record goes last: what is left of an interrupted removal can be pruned again. A
    LookupError names what is no run's folder in `out`; those before it are gone.
    """
    freed, known = 0, {*_names(Path(out))}
    for name in names:
        folder = Path(out) / name
        if name not in known:
            raise LookupError(f"{folder} is not the folder of a run")
        freed += sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())
        for path in folder.iterdir():
            if path.name != "run.json":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(folder)
    return freed


def _names(out: Path) -> list[str]:
    """Return the names of the folders that hold a record; links are no runs of this folder."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(out) as entries:
        return [
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and Path(entry.path, "run.json").is_file()
        ]
    return []
