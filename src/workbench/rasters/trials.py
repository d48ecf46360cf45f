"""Write a plan's chips in a process of its own: watch its memory, or kill it half-way."""

import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil

from workbench.rasters.manifest import MANIFEST, PARTS
from workbench.rasters.plans import Plan

_CHILD = """
import pickle, sys
from pathlib import Path
import imagecodecs, pyarrow.parquet, rasterio, zarr
plan = pickle.loads(Path(sys.argv[1]).read_bytes())
print("ready", flush=True)
plan.write(sys.argv[2], progress=False)
"""
_PAUSE = 0.005


class Trial(NamedTuple):
    """How a process that wrote a plan's chips went.

    Attributes
    ----------
    memory
        ``seconds`` since the interpreter and its libraries were ready, and ``bytes`` of resident
        memory above what it had then.
    exit
        Its exit code; minus the number of the signal that killed it.
    groups
        How many of the plan's groups were written when it ended.
    """

    memory: pd.DataFrame
    exit: int
    groups: int


def write_apart(plan: Plan, path: str | os.PathLike[str], *, kill_at: float | None = None) -> Trial:
    """Write a plan's chips to Zarr in a new process.

    Parameters
    ----------
    plan
        What to write.
    path
        As in `Plan.write`.
    kill_at
        Kill the process (SIGKILL, which it cannot see coming) once this share of the groups is
        written; None lets it end.

    Raises
    ------
    RuntimeError
        The process failed of itself; the text is what it said.
    """
    goal = np.inf if kill_at is None else max(1, round(kill_at * plan.layout.groups))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.pickle"
        file.write_bytes(pickle.dumps(plan))
        command = [sys.executable, "-c", _CHILD, str(file), os.fspath(path)]
        with (
            (Path(folder) / "errors").open("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as child,
        ):
            assert child.stdout is not None  # noqa: S101 - for the type checker
            child.stdout.readline()
            memory, killed = _watched(child, Path(path), goal)
            errors.seek(0)
            if child.returncode and not killed:
                raise RuntimeError(f"the process failed:\n{errors.read()}")
    return Trial(memory, int(child.returncode), groups_written(plan, path))


def _watched(
    child: "subprocess.Popen[bytes]", path: Path, goal: float
) -> tuple[pd.DataFrame, bool]:
    process, started, killed = psutil.Process(child.pid), time.perf_counter(), False
    rows: list[tuple[float, int]] = []
    while child.poll() is None:
        try:
            rows.append((time.perf_counter() - started, process.memory_info().rss))
        except psutil.NoSuchProcess:
            break
        if not killed and len(list((path / PARTS).glob("[0-9]*.parquet"))) >= goal:
            child.kill()
            killed = True
        time.sleep(_PAUSE)
    child.wait()
    table = pd.DataFrame(rows, columns=["seconds", "bytes"])
    table = table[table["bytes"] > 0]  # a process that has ended, and was not waited for, has none
    return table.assign(bytes=table["bytes"] - table["bytes"].iloc[:1].sum()), killed


def groups_written(plan: Plan, path: str | os.PathLike[str]) -> int:
    """How many of a plan's groups are written to a folder."""
    folder = Path(path)
    if (folder / MANIFEST).is_file():
        return plan.layout.groups
    return len(list((folder / PARTS).glob("[0-9]*.parquet")))


def digests(folder: str | os.PathLike[str]) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its relative path.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    """
    top = Path(folder)
    if not top.is_dir():
        raise FileNotFoundError(f"there is no folder {top}")
    return {
        file.relative_to(top).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(top.rglob("*"))
        if file.is_file()
    }
