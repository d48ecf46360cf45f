"""Results and files that a notebook records, and how they are collected from its outputs.

Files and folders by what is in them: their size and SHA-256.

What a notebook claims, and whether it holds on the data that it was given.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from workbench._unattended import in_batch


def measure(path: Path) -> tuple[int, str]:
    """Return the size in bytes and the SHA-256 of a file, or of all that a folder holds.

    A folder's hash is that of the lines ``<hash>  <path>`` of its files, sorted by path, as
    ``sha256sum`` writes them. Links are followed.

    Raises
    ------
    OSError
        Something cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a").write_bytes(b"abc")
    ...     measure(Path(folder, "a"))[1][:8], measure(Path(folder))[0]
    ('ba7816bf', 3)
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
    total, lines = 0, []
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        size, digest = measure(file_path)
        total += size
        lines.append(f"{digest}  {file_path.relative_to(path).as_posix()}\n")
    return total, hashlib.sha256("".join(lines).encode()).hexdigest()


MIME = "application/vnd.workbench.result+json"
FILE_MIME = "application/vnd.workbench.file+json"
MAX_BYTES = 64 * 1024
_MAX_ITEMS = 20_000


def record(name: str, value: Any) -> None:
    """Keep a result of this notebook.

    In IPython the value is displayed as ``name = value`` together with a machine-readable form,
    which a batch run collects into ``results.json``. Anywhere else nothing is shown. A name that
    is recorded twice keeps the last value.

    Parameters
    ----------
    name
        What the result is called.
    value
        A number, string, bool, None, date, a NumPy or xarray scalar or small array, a pandas
        table, or lists and dicts of these. NaN and the infinities, which JSON lacks, are kept as
        the strings ``"nan"``, ``"inf"`` and ``"-inf"``; a table as ``{"columns": [...],
        "data": [...]}`` with None where a cell is missing, so that ``pandas.DataFrame(**value)``
        restores it.

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
    keep(name, to_plain(value, name), {"text/plain": f"{name} = {value}"})


def record_file(name: str, path: str | PathLike[str]) -> Path:
    """Declare a file or folder that this notebook has written as one of its results.

    A batch run notes its size and SHA-256, by which later runs that read it are traced back, and
    a pipeline hands it to the stages that ask for it by name.

    Parameters
    ----------
    name
        What the result is called.
    path
        A file or folder in the run's folder, which is the working directory of a batch run.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        In a batch run: it lies outside the run's folder.

    Examples
    --------
    >>> record_file("this folder", ".")
    PosixPath('.')
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"result {name!r} is to be the file {path}, which does not exist")
    if in_batch() and not path.resolve().is_relative_to(Path.cwd()):
        raise ValueError(f"result {name!r} is outside the run's folder: write {path.name} here")
    _declare("output", name, path)
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
    _declare("input", path.name, path)
    return path


def _declare(role: str, name: str, path: Path) -> None:
    if _in_ipython():
        from IPython.display import display

        size, digest = measure(path)
        relative = os.path.relpath(path)
        file = {"role": role, "name": name, "path": relative, "size": size, "sha256": digest}
        shown = f"{role} {name}: {relative}, {size:,} bytes"
        display({FILE_MIME: file, "text/plain": shown}, raw=True)  # type: ignore[no-untyped-call]


def keep(name: str, plain: Any, shown: Mapping[str, str]) -> None:
    """Display a result that is plain already, as `shown` (MIME type to text) says."""
    size = len(json.dumps(plain))
    if size > MAX_BYTES:
        raise ValueError(
            f"result {name!r} takes {size:,} bytes as JSON, more than {MAX_BYTES:,}: "
            "record a summary, and write large data to a file in the run's folder"
        )
    if _in_ipython():
        from IPython.display import display

        bundle = {MIME: {"name": name, "value": plain}, **shown}
        display(bundle, raw=True)  # type: ignore[no-untyped-call]


def collect(cells: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results recorded in the outputs of an executed notebook's cells, by name."""
    found: dict[str, Any] = {}
    for cell in cells:
        for output in cell.get("outputs", []):
            result = output.get("data", {}).get(MIME)
            if result:
                found[result["name"]] = result["value"]
    return found


def collect_files(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the files declared in the outputs of an executed notebook's cells."""
    outputs = (output for cell in cells for output in cell.get("outputs", []))
    return [file for o in outputs if (file := o.get("data", {}).get(FILE_MIME))]


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


BROKEN = "DOES NOT HOLD"


def check(claims: Mapping[str, bool | None], *, strict: bool = True) -> None:
    """Say which claims of a notebook hold, record it, and fail if one does not.

    Parameters
    ----------
    claims
        Claim in words to whether it holds. None: it is about other data than were loaded, and
        is shown as such.
    strict
        Raise if a claim does not hold. With False, for data on which nothing is promised, the
        table says so and the run goes on.

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
    head = "<tr><th>claim</th><th>on these data</th></tr>"
    text = "\n".join(f"{verdict}: {claim}" for claim, verdict in verdicts.items())
    keep(
        "claims",
        verdicts,
        {"text/plain": text, "text/html": f"<table>{head}{''.join(rows)}</table>"},
    )
    failed = [claim for claim, holds in claims.items() if holds is not None and not holds]
    if strict and failed:
        raise AssertionError("does not hold: " + "; ".join(failed))
