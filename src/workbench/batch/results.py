"""Results, files and claims: what a notebook says came out, and how a run collects it."""

import hashlib
import json
import math
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from html import escape
from os import PathLike
from pathlib import Path
from threading import Event
from typing import Any, Literal

from workbench._unattended import in_batch, run_folder

Hashed = Literal["contents", "listing"]
#: Folders up to this many bytes are hashed by what is in their files.
MOST_CONTENTS = 256 * 2**20
_CHUNK = 2**20


class HashingStoppedError(OSError):
    """Hashing was broken off."""


def size_and_sha256(
    path: Path, hashed: Hashed = "contents", stop: Event | None = None
) -> tuple[int, str]:
    """Return the size in bytes and the SHA-256 of a file, or of all that a folder holds.

    A folder's hash is that of the lines ``<hash>  <path>`` of its files, sorted by path, as
    ``sha256sum`` writes them; by listing, of ``<size> <time of change>  <path>``. An OSError says
    that something cannot be read, is neither a file nor a folder, or that `stop` was set.
    """
    state = path.stat()
    if stat.S_ISDIR(state.st_mode):
        total, lines = 0, []
        for name, file in sorted(_files(path, stop)):
            if hashed == "contents":
                size, said = size_and_sha256(path / name, stop=stop)
            else:
                size, said = file.st_size, f"{file.st_size} {file.st_mtime_ns}"
            total += size
            lines.append(f"{said}  {name}\n")
        text = "".join(lines).encode(errors="surrogateescape")
        return total, hashlib.sha256(text).hexdigest()
    if not stat.S_ISREG(state.st_mode):  # a pipe or a device might never end
        raise OSError(0, "neither a file nor a folder", str(path))
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
            _go_on(stop)
    return state.st_size, digest.hexdigest()


def file_state(path: Path, contents: bool = False, stop: Event | None = None) -> dict[str, Any]:
    """Return size, hash and how it was hashed: large folders by listing, unless `contents`."""
    hashed: Hashed = "contents"
    if path.is_dir() and not contents:
        size, digest = size_and_sha256(path, "listing", stop)
        if size > MOST_CONTENTS:
            return {"size": size, "sha256": digest, "hashed": "listing"}
    size, digest = size_and_sha256(path, hashed, stop)
    return {"size": size, "sha256": digest, "hashed": hashed}


def _files(folder: Path, stop: Event | None) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files below a folder, by their path in it."""
    for place, _, names in os.walk(folder):
        _go_on(stop)
        for name in names:
            path = Path(place, name)
            try:
                state = path.stat()
            except OSError:  # a link to nothing
                continue
            if stat.S_ISREG(state.st_mode):
                yield path.relative_to(folder).as_posix(), state


def _go_on(stop: Event | None) -> None:
    if stop and stop.is_set():
        raise HashingStoppedError(0, "there was no time to hash it")


MIME = "application/vnd.workbench.result+json"
FILE_MIME = "application/vnd.workbench.file+json"
MAX_BYTES = 64 * 1024
_MAX_ITEMS = 20_000


def record(name: str, value: Any, *, data: str | None = None) -> None:
    """Keep a result of this notebook, which a batch run collects into ``results.json``.

    In IPython it is displayed as ``name = value``. A name that is recorded twice keeps the last.

    Parameters
    ----------
    value
        A number, string, bool, None, date, a NumPy or xarray scalar or small array, a pandas
        table, or lists and dicts of these. NaN and the infinities, which JSON lacks, are kept as
        the strings ``"nan"``, ``"inf"`` and ``"-inf"``; a table as ``{"columns": [...],
        "data": [...]}`` with None where a cell is missing, so that ``pandas.DataFrame(**value)``
        restores it.
    data
        The data that it is about, where these are not the ones that the notebook was run on:
        a report shows it under their name.

    Raises
    ------
    TypeError
        The value is of another kind.
    ValueError
        The name is empty, or the value takes more than 64 KiB as JSON.

    Examples
    --------
    >>> record("accuracy", 0.97)
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a result needs a name, got {name!r}")
    _keep(name, to_plain(value, name), {"text/plain": f"{name} = {value}"}, data)


def output(path: str | PathLike[str], name: str | None = None) -> Path:
    """Register a file or folder that this notebook has written as something to work with.

    A batch run notes its size and SHA-256, links to it in the report, and hands it to the stages
    of a pipeline that ask for it by `name`, by default the file's own. What lies outside the run's
    folder is copied into it. Returns the path as given.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It lies outside the run's folder, where there is another of that name.

    Examples
    --------
    >>> output(".", "this folder")
    PosixPath('.')
    """
    path = Path(path)
    name = name or path.name
    if not path.exists():
        raise FileNotFoundError(f"result {name!r} is to be the file {path}, which does not exist")
    folder, kept = run_folder(), path.resolve()
    if in_batch() and not kept.is_relative_to(folder):
        copy = folder / path.name
        if copy.exists():
            raise ValueError(f"result {name!r}: there is another {path.name} in the run's folder")
        shutil.copytree(kept, copy) if kept.is_dir() else shutil.copy2(kept, copy)
        kept = copy
    _declare("output", name, kept, os.path.relpath(kept, folder))
    return path


def input_file(path: str | PathLike[str]) -> Path:
    """Declare a file or folder that this notebook reads, and return its path.

    A batch run notes its size and SHA-256. Files that are named by a parameter are noted anyway.

    Raises
    ------
    FileNotFoundError
        There is no such file.

    Examples
    --------
    >>> input_file(".")
    PosixPath('.')
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"the input {path} does not exist")
    _declare("input", path.name, path, os.path.relpath(path, run_folder()))
    return path


def _declare(role: str, name: str, path: Path, relative: str) -> None:
    """Display where a file is, seen from the run's folder, and what is in it."""
    if _in_ipython():
        from IPython.display import display

        file = {"role": role, "name": name, "path": relative, **file_state(path)}
        shown = f"{role} {name}: {relative}, {file['size']:,} bytes"
        display({FILE_MIME: file, "text/plain": shown}, raw=True)  # type: ignore[no-untyped-call]


def _keep(name: str, plain: Any, shown: Mapping[str, str], data: str | None) -> None:
    """Display a result that is plain already, as `shown` (MIME type to text) says."""
    # As text: a notebook file sorts the keys of what it holds, and the order is part of a result.
    text = json.dumps(plain)
    if len(text) > MAX_BYTES:
        raise ValueError(
            f"result {name!r} takes {len(text):,} bytes as JSON, more than {MAX_BYTES:,}: "
            "record a summary, and write large data to a file that `output` registers"
        )
    if _in_ipython():
        from IPython.display import display

        bundle = {MIME: {"name": name, "json": text, "data": data}, **shown}
        display(bundle, raw=True)  # type: ignore[no-untyped-call]


def collect(cells: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results recorded in the outputs of an executed notebook's cells, by name."""
    return {result["name"]: json.loads(result["json"]) for result in _of_kind(cells, MIME)}


def collect_data(cells: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the data that results are about, by the results' names, where they say so."""
    named = {result["name"]: result.get("data") for result in _of_kind(cells, MIME)}
    return {name: data for name, data in named.items() if data}


def collect_files(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the files declared in the outputs of an executed notebook's cells."""
    return list(_of_kind(cells, FILE_MIME))


def _of_kind(cells: Iterable[Mapping[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    for cell in cells:
        for shown in cell.get("outputs", []):
            if found := shown.get("data", {}).get(kind):
                yield found


def to_plain(value: Any, name: str) -> Any:
    """Return a value as JSON has it; `name` is for the error."""
    value = _unwrap(value, name)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [to_plain(item, name) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, name) for key, item in value.items()}
    raise TypeError(
        f"result {name!r} is a {type(value).__name__}: a result is a number, string, bool, None, "
        "small array or table, or a list or dict of these"
    )


def _unwrap(value: Any, name: str) -> Any:
    """Turn arrays, NumPy scalars and tables into Python's own types."""
    pandas = sys.modules.get("pandas")  # a table can only come from a pandas that is loaded
    if pandas and isinstance(value, pandas.Series):
        value = value.to_frame()
    if (size := getattr(value, "size", 0)) and not callable(size) and size > _MAX_ITEMS:
        raise ValueError(f"result {name!r} has {size:,} items, more than {_MAX_ITEMS:,}")
    if pandas and isinstance(value, pandas.DataFrame):
        if not isinstance(value.index, pandas.RangeIndex):
            value = value.reset_index()
        cells = value.astype(object).where(value.notna(), None).to_numpy().tolist()
        return {"columns": [str(name) for name in value.columns], "data": cells}
    if hasattr(value, "dtype") and hasattr(value, "ndim"):
        return value.item() if value.ndim == 0 else getattr(value, "values", value).tolist()
    return value


def _in_ipython() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


CLAIMS = "claims"
BROKEN = "DOES NOT HOLD"


def check(
    claims: Mapping[str, bool | None], *, strict: bool = True, data: str | None = None
) -> None:
    """Say which claims of a notebook hold, record it, and fail if one does not.

    Parameters
    ----------
    claims
        Claim in words to whether it holds; None if it is about other data than were loaded.
    strict
        Raise if a claim does not hold. With False, for data on which nothing is promised, the
        table says so and the run goes on.
    data
        What the claims are about, where that is not what the notebook was run on.

    Raises
    ------
    AssertionError
        A claim does not hold; all that do not are named.

    Examples
    --------
    >>> check({"two and two are four": 2 + 2 == 4, "about another dataset": None})
    """
    verdicts = {
        claim: "not about these data" if holds is None else "holds" if holds else BROKEN
        for claim, holds in claims.items()
    }
    rows = [f"<tr><td>{escape(c)}</td><td>{verdict}</td></tr>" for c, verdict in verdicts.items()]
    head = f"<tr><th>claim</th><th>on {escape(data or 'these data')}</th></tr>"
    text = "\n".join(f"{verdict}: {claim}" for claim, verdict in verdicts.items())
    table = f"<table>{head}{''.join(rows)}</table>"
    name = f"{CLAIMS} on {data}" if data else CLAIMS
    _keep(name, verdicts, {"text/plain": text, "text/html": table}, data)
    failed = [claim for claim, holds in claims.items() if holds is not None and not holds]
    if strict and failed:
        raise AssertionError("does not hold: " + "; ".join(failed))
