"""The record of a run, ``run.json``: what ran, on what, and how it ended; folders of such runs."""

import hashlib
import json
import logging
import os
import platform
import shutil
import signal
import stat
import subprocess
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter

from workbench._units import show_size
from workbench.batch.notebook import write_text
from workbench.batch.processes import is_alive_since
from workbench.batch.results import Hashed

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
Status = Literal["running", "succeeded", "failed", "timed-out", "killed", "interrupted"]
# A process that does this to itself has crashed; another's doing looks different.
_CRASHES = {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP"}
#: A record is written anew this often while its run goes on.
BEAT_SECONDS = 20.0
_SILENCE = 6 * BEAT_SECONDS  # after which nobody supervises it any more
_MOST_BYTES = 64 * 2**20


class RunError(BaseModel):
    """Why a run did not succeed."""

    type: str
    message: str
    cause: Cause = Field(default="unknown", description="who ended the run")
    cell: int | None = Field(default=None, description="index in the notebook as it was given")
    cell_source: str | None = Field(default=None, description="the beginning of that cell")
    traceback: str = Field(default="", description="its end, without colours")


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `note` says of one that succeeded what else a reader has to know."""

    status: Status
    error: RunError | None = None
    note: str | None = None


#: Turns outcomes into what goes between processes, and back.
OUTCOME = TypeAdapter(Outcome)


def failure(error: BaseException) -> Outcome:
    """Return the outcome of a run that failed for a reason outside its notebook."""
    text = "".join(traceback.format_exception(error))[-4000:]
    kind, message = type(error).__name__, str(error)
    return Outcome("failed", RunError(type=kind, message=message, cause="system", traceback=text))


def exit_words(code: int | None) -> tuple[str, Cause]:
    """Say how a process ended that should not have, and who is to blame as far as that tells.

    >>> exit_words(-9), exit_words(-11)
    (('was ended by SIGKILL', 'signal'), ('crashed with SIGSEGV', 'code'))
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


def blame_memory(found: Outcome, limit: int | None, limit_kills: int, system_kills: int) -> Outcome:
    """Name the memory as the cause of an outcome where the kernel's counters say so.

    `limit_kills` are processes of the run that the kernel killed at the run's limit in bytes,
    `system_kills` those that it killed elsewhere or because the machine had no memory left.
    """
    error = found.error
    if not error or error.cause in ("timeout", "interruption", "memory limit"):
        return found
    if limit_kills and limit:
        kind, cause = "MemoryLimit", "memory limit"
        message = f"the run reached its memory limit of {show_size(limit)}"
    elif system_kills and error.cause == "signal" and "SIGKILL" in error.message:
        kind, cause = "OutOfMemory", "out-of-memory killer"
        message = "the machine or its container ran out of memory: the kernel killed this process"
    else:
        return found
    if found.status == "killed" or error.type in ("RuntimeError", "WorkerError"):
        told = {"type": kind, "message": message, "cause": cause}
        return Outcome("killed", error.model_copy(update=told))
    # A child of the notebook was killed, and the notebook itself failed over that.
    return Outcome(found.status, error.model_copy(update={"cause": cause}))


class Memory(BaseModel):
    """The course of a run's memory.

    Sizes are resident memory summed over the run's processes, sampled every 0.25 s: pages that
    they share count once for each, and a peak between two samples is missed.
    """

    limit_bytes: int | None = None
    held_by: Literal["control group", "watching"] | None = None  # the kernel, or the runner
    killed: int = Field(default=0, description="processes that the kernel killed at the limit")
    peak_cell: int | None = Field(default=None, description="the cell that ran at the peak")
    samples: list[Sample] = Field(default=[], description="seconds, bytes, cell; at most 120")
    last: list[Sample] = Field(default=[], description="the last ones, none left out")


class FileState(BaseModel):
    """A file or folder as it was."""

    path: str
    size: int
    sha256: str = Field(description="empty if there was no time to hash it")
    hashed: Hashed = Field(default="contents", description="of a folder: or by sizes and times")
    name: str | None = Field(default=None, description="its parameter, or as it was recorded")


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

    version: Literal[1, 2, 3] = 3
    id: str
    notebook: str = Field(description="relative to the folder in which the run was started")
    notebook_sha256: str
    parameters: dict[str, Any] = Field(description="all of them, the notebook's defaults included")
    given: dict[str, Any] = Field(description="those that were set, as they were set")
    computed: dict[str, str] = Field(default={}, description="code of those that it computes")
    kernel: str = "python3"
    cwd: str = Field(default="run", description="`run` (the run's folder), `notebook` or a path")
    packages: dict[str, str]
    python: str
    platform: str
    host: str
    pid_namespace: str | None = Field(default=None, description="tells containers apart")
    cpu_count: int | None
    gpus: list[str] = Field(default=[], description="name, memory and driver of each")
    threads: int | None = Field(default=None, description="processors that the run may use")
    seeds: dict[str, Any] = Field(default={}, description="parameters that are called seeds")
    environment: dict[str, str] = Field(default={}, description="variables that bear on results")
    git: GitState | None
    pid: int = Field(description="the process that supervises the run")
    group: str | None = Field(default=None, description="its invocation, sweep or pipeline")
    parent: str | None = Field(default=None, description="the run that this one repeats")
    started: AwareDatetime
    heartbeat: AwareDatetime | None = Field(default=None, description="last sign of `pid`")
    ended: AwareDatetime | None = None
    seconds: float | None = None
    status: Status = "running"
    error: RunError | None = None
    note: str | None = Field(default=None, description="what to know of a run that succeeded")
    peak_memory_bytes: int | None = Field(default=None, description="as `memory` explains")
    memory: Memory = Memory()
    inputs: list[FileState] = Field(default=[], description="paths from where the run was started")
    outputs: list[FileState] = Field(default=[], description="paths in the run's folder")
    files: list[str] = Field(default=[], description="names in the run's folder")
    results_on: dict[str, str] = Field(default={}, description="other data that results are about")
    folder: Path = Field(default=Path(), exclude=True, description="where the record was read")

    @classmethod
    def load(cls, folder: str | Path) -> "RunRecord":
        """Read the record in a run's folder, which may come from anybody.

        A run that its record calls running while the process that supervised it is gone is shown
        as killed; the file is left as it is. What is no record, or not this folder's, is a
        ValueError.
        """
        folder = Path(folder)
        path = folder / "run.json"
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > _MOST_BYTES:
            raise ValueError(f"{path} is no regular file of at most {show_size(_MOST_BYTES)}")
        record = cls.model_validate_json(path.read_bytes())
        if record.id != folder.absolute().name:
            raise ValueError(f"it is the record of {record.id!r}, not of {folder.name!r}")
        record.folder = folder
        if record.status == "running" and not record._is_supervised():
            message = "the process that supervised this run is gone"
            record.status, record.error = "killed", RunError(type="ParentGone", message=message)
        return record

    def save(self, durable: bool = True) -> None:
        """Write ``run.json`` at once: a reader finds the old record or the new one, never half."""
        text = self.model_dump_json(indent=1) + "\n"
        write_text(self.folder / "run.json", text, durable=durable)

    def file(self, name: str) -> Path | None:
        """Return a file or folder of this run's; None if it is gone, or lies elsewhere.

        A record that somebody else has written may name what is not the run's.
        """
        path = self.folder / name
        try:
            inside = path.resolve(strict=True).relative_to(self.folder.resolve())
        except (OSError, ValueError, RuntimeError):  # gone, elsewhere, links in a circle
            return None
        mode = path.stat().st_mode
        ours = inside.parts and (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
        return path if ours else None

    def _is_supervised(self) -> bool:
        """Whether the process that supervises this run is still there, as far as that shows."""
        here = (self.host, self.pid_namespace) == (platform.node(), pid_namespace())
        if here and self.pid_namespace:
            return is_alive_since(self.pid, self.started.timestamp())
        # Another machine's or container's processes cannot be seen.
        silent = (datetime.now(UTC) - (self.heartbeat or self.started)).total_seconds()
        return silent < _SILENCE


def pid_namespace() -> str | None:
    """Return what tells this system's processes from those of others; None if untold."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot[:8]}-{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116
    except OSError:
        return None


# Variables that change what a computation gives or where it reads, each by its whole name: some
# that share their prefixes hold passwords.
_TELLING = """
CUBLAS_WORKSPACE_CONFIG CUDA_LAUNCH_BLOCKING CUDA_VISIBLE_DEVICES DASK_NUM_WORKERS GDAL_CACHEMAX
GDAL_DATA GDAL_DISABLE_READDIR_ON_OPEN GDAL_NUM_THREADS LANG LANGUAGE LC_ALL LC_COLLATE LC_CTYPE
LC_NUMERIC LC_TIME MALLOC_ARENA_MAX MALLOC_TRIM_THRESHOLD_ MKL_CBWR MKL_DYNAMIC MKL_NUM_THREADS
NUMBA_DISABLE_JIT NUMBA_NUM_THREADS NUMBA_THREADING_LAYER NUMEXPR_MAX_THREADS NUMEXPR_NUM_THREADS
OMP_DYNAMIC OMP_NUM_THREADS OMP_SCHEDULE OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS PROJ_DATA PROJ_LIB
PROJ_NETWORK PYTHONHASHSEED PYTHONPATH PYTORCH_CUDA_ALLOC_CONF TORCH_HOME TZ WORKBENCH_DATA
"""


def surroundings(folder: Path) -> dict[str, Any]:
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
        "pid_namespace": pid_namespace(),
        "cpu_count": os.cpu_count(),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "gpus": _gpus(),
    }


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _TELLING.split() if name in os.environ}


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
    """Return the folder of the run whose id starts or ends with a text; ``last`` is the newest."""
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
