"""The record of a run, ``run.json``.

The memory of a run over time: samples that stay few, and a drawing of them.

How a run ended, and who ended it.

Where and on what a run happened: package versions, machine, git, environment.
"""

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import traceback
from collections.abc import Sequence
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, PrivateAttr

from workbench._units import show_size
from workbench.batch.notebook import write_text
from workbench.batch.processes import is_alive_since

Sample = tuple[float, int, int | None]  # seconds since the start, bytes, index of the cell


def largest_sample(samples: Sequence[Sample]) -> Sample:
    """The sample of the most bytes."""
    return max(samples, key=lambda sample: sample[1])


# who ended a run: the notebook's own code, our limit, the machine without memory, a signal from
# somebody, our deadline, Ctrl-C, the system under us (a full disk), or nobody can say
Cause = Literal[
    "code",
    "memory limit",
    "out-of-memory killer",
    "signal",
    "timeout",
    "interruption",
    "system",
    "unknown",
]
# A process that does this to itself has crashed; another's doing looks different.
_CRASHES = {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP"}


def outcome(
    status: str,
    kind: str,
    message: str,
    cause: Cause,
    text: str = "",
    cell: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a status and an error as the record takes them."""
    cell = cell or {"index": None, "source": None}
    error = {
        "type": kind,
        "message": message,
        "cause": cause,
        "cell": cell["index"],
        "cell_source": cell["source"],
        "traceback": text,
    }
    return {"status": status, "error": error}


def failure(error: BaseException) -> dict[str, Any]:
    """Return the outcome of a run that failed for a reason outside its notebook."""
    text = "".join(traceback.format_exception(error))[-4000:]
    return outcome("failed", type(error).__name__, str(error), "system", text)


def exit_words(code: int | None) -> tuple[str, Cause]:
    """Say how a process ended that should not have, and who is to blame as far as that tells.

    Examples
    --------
    >>> exit_words(-9)
    ('was ended by SIGKILL', 'signal')
    >>> exit_words(-11)
    ('crashed with SIGSEGV', 'code')
    >>> exit_words(3)
    ('ended itself with exit code 3', 'code')
    """
    if code is None:
        return "died", "unknown"
    if code >= 0:
        return f"ended itself with exit code {code}", "code"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return (
        (f"crashed with {name}", "code") if name in _CRASHES else (f"was ended by {name}", "signal")
    )


def blame_memory(
    found: dict[str, Any], limit: int | None, limit_kills: int, system_kills: int
) -> dict[str, Any]:
    """Name the memory as the cause of an outcome where the kernel's counters say so.

    Parameters
    ----------
    found
        The outcome as the processes themselves could tell it.
    limit
        The run's limit in bytes, if it had a control group of its own.
    limit_kills
        Processes of the run that the kernel killed because the run was at its limit.
    system_kills
        Processes that the kernel killed for memory elsewhere or because the machine had none left.
    """
    error = found["error"]
    if not error or error["cause"] in ("timeout", "interruption", "memory limit"):
        return found
    if limit_kills and limit:
        kind, cause = "MemoryLimit", "memory limit"
        message = f"the run reached its memory limit of {show_size(limit)}"
    elif system_kills and error["cause"] == "signal" and "SIGKILL" in error["message"]:
        kind, cause = "OutOfMemory", "out-of-memory killer"
        message = "the machine or its container ran out of memory: the kernel killed this process"
    else:
        return found
    if found["status"] == "killed" or error["type"] in ("RuntimeError", "WorkerError"):
        return {
            "status": "killed",
            "error": {**error, "type": kind, "message": message, "cause": cause},
        }
    # A child of the notebook was killed, and the notebook itself failed over that.
    return {**found, "error": {**error, "cause": cause}}


Status = Literal["running", "succeeded", "failed", "timed-out", "killed", "interrupted"]


class RunError(BaseModel):
    """Why a run did not succeed."""

    type: str
    message: str
    cause: Cause = Field(default="unknown", description="who ended the run")
    cell: int | None = Field(description="nbformat index, from 0, in the notebook as it was given")
    cell_source: str | None = Field(description="the beginning of that cell")
    traceback: str = Field(description="its end, without colours")


class Memory(BaseModel):
    """The course of a run's memory.

    Sizes are resident memory summed over the run's processes, sampled every 0.25 s: pages that
    they share count once for each, and a peak between two samples is missed.
    """

    limit_bytes: int | None = None
    held_by: Literal["control group", "watching"] | None = Field(
        default=None, description="who held the run to its limit: the kernel, or the runner"
    )
    killed: int = Field(default=0, description="processes that the kernel killed at the limit")
    peak_cell: int | None = Field(default=None, description="the cell that ran at the peak")
    samples: list[Sample] = Field(default=[], description="seconds, bytes, cell; at most 120")
    last: list[Sample] = Field(default=[], description="the last ones, none left out")


class FileState(BaseModel):
    """A file or folder as it was; a folder's hash is that of its files' names and hashes."""

    path: str
    size: int
    sha256: str
    name: str | None = Field(
        default=None, description="the parameter that names it, or as it was recorded"
    )


class GitState(BaseModel):
    """The repository that the notebook lies in."""

    commit: str
    dirty: bool
    diff_sha256: str | None = Field(default=None, description="of `git diff HEAD` when dirty")


class RunRecord(BaseModel):
    """What is known of a run; ``run.json`` holds it as JSON.

    The runner writes it when the run starts and again when it has ended. Paths in it are
    relative, but for those that the user gave as parameters.
    """

    version: Literal[1, 2] = 2
    id: str
    notebook: str = Field(description="relative to the folder in which the run was started")
    notebook_sha256: str
    parameters: dict[str, Any] = Field(description="all of them, the notebook's defaults included")
    given: dict[str, Any] = Field(description="those that the user set, as they were set")
    packages: dict[str, str]
    python: str
    platform: str
    host: str
    cpu_count: int | None
    gpus: list[str] = Field(default=[], description="name, memory and driver of each")
    threads: int | None = Field(default=None, description="processors that the run may use")
    seeds: dict[str, Any] = Field(default={}, description="parameters that are called seeds")
    environment: dict[str, str] = Field(default={}, description="variables that bear on results")
    git: GitState | None
    pid: int = Field(description="the process that supervises the run")
    group: str | None = Field(
        default=None, description="the invocation, sweep or pipeline that it was a part of"
    )
    parent: str | None = Field(default=None, description="the run that this one repeats")
    started: AwareDatetime
    ended: AwareDatetime | None = None
    seconds: float | None = None
    status: Status = "running"
    error: RunError | None = None
    peak_memory_bytes: int | None = Field(default=None, description="as `memory` explains")
    memory: Memory = Memory()
    inputs: list[FileState] = Field(default=[], description="paths from where the run was started")
    outputs: list[FileState] = Field(default=[], description="paths in the run's folder")
    files: list[str] = Field(default=[], description="names in the run's folder")

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._folder

    def lies_in(self, folder: Path) -> None:
        """Set the run's folder."""
        self._folder = folder

    @classmethod
    def load(cls, folder: str | Path) -> "RunRecord":
        """Read the record in a run's folder.

        A run that its record calls running while the process that supervised it is gone is shown
        as killed; the file is left as it is.

        Raises
        ------
        OSError
            There is no ``run.json``.
        pydantic.ValidationError
            It is not a record.
        """
        folder = Path(folder)
        record = cls.model_validate_json((folder / "run.json").read_bytes())
        record.lies_in(folder)
        if record.status == "running" and not is_alive_since(
            record.pid, record.host, record.started.timestamp()
        ):
            message = "the process that supervised this run is gone"
            record.status = "killed"
            record.error = RunError(
                type="ParentGone", message=message, cell=None, cell_source=None, traceback=""
            )
        return record

    def save(self, folder: Path) -> None:
        """Write ``run.json`` at once: a reader finds the old record or the new one, never half."""
        self.lies_in(folder)
        write_text(folder / "run.json", self.model_dump_json(indent=1) + "\n", durable=True)


# Variables that change what a computation gives or where it reads; none of them is a secret.
_TELLING = (
    "CUDA_", "CUBLAS_", "DASK_", "GDAL_", "LANG", "LC_", "MALLOC_", "MKL_", "NUMBA_", "NUMEXPR_",
    "OMP_", "OPENBLAS_", "PROJ_", "PYTHONHASHSEED", "PYTHONPATH", "TORCH_", "TZ", "WORKBENCH_",
)  # fmt: skip
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD")


def of(folder: Path) -> dict[str, Any]:
    """Return the part of a run's record that says on what it ran, for a notebook in a folder."""
    return {**_machine(), "environment": _environment(), "git": _git_state(folder)}


def packages() -> dict[str, str]:
    """Return the versions of all installed distributions."""
    return dict(_machine()["packages"])


def look_again() -> None:
    """Forget what git said: the files may have changed since the last invocation."""
    _git_state.cache_clear()


@cache
def _machine() -> dict[str, Any]:
    return {
        "packages": {d.name: d.version for d in sorted(distributions(), key=lambda d: d.name)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu_count": os.cpu_count(),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "gpus": _gpus(),
    }


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_TELLING) and not any(word in name for word in _SECRET)
    }


def _gpus() -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


@cache
def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit and whether files differ from it; None without repository or git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        dirty = bool(_git(folder, "status", "--porcelain"))
        diff = _git(folder, "diff", "HEAD", "--binary", "--no-ext-diff") if dirty else ""
    except (OSError, subprocess.SubprocessError):
        return None
    digest = hashlib.sha256(diff.encode(errors="surrogateescape")).hexdigest() if dirty else None
    return {"commit": commit, "dirty": dirty, "diff_sha256": digest}


def _git(folder: Path, *arguments: str) -> str:
    # Without the optional locks a status never gets in the way of a commit made meanwhile.
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=True,
        timeout=20,
    ).stdout
