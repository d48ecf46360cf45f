"""The parent's side of a run's process: start it, listen, sample its memory, stop it."""

import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import psutil

from workbench._unattended import RUN_FOLDER, RUN_ID
from workbench._units import show_size
from workbench.batch import processes
from workbench.batch.processes import Group, system_kills
from workbench.batch.run_record import (
    BEAT_SECONDS,
    OUTCOME,
    Cause,
    Outcome,
    RunError,
    Sample,
    Status,
    blame_memory,
    exit_words,
    largest_sample,
)

_MOST_SAMPLES = 120
_LAST = 12
_SAMPLE_SECONDS = 0.25
_GRACE_SECONDS = 15.0
_SERVER = forkserver.ForkServer()
_SERVER.set_forkserver_preload([__name__, "workbench.batch.preload"])


class WorkerProcess:
    """A worker in a folder, forked off a process that has imported what it needs.

    That takes as long as starting a kernel. `multiprocessing`'s fork server does it once a session;
    unlike its `Process`, a worker never imports the caller's script, and leads a session of its
    own, which Ctrl-C does not reach. Its standard error goes to the descriptor `log`.

    Raises
    ------
    OSError
        The system allows no more processes.
    """

    def __init__(self, folder: Path, environment: dict[str, str], log: int) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self.stdin = os.fdopen(ours_out, "w", encoding="utf-8")
        self.stdout = os.fdopen(ours_in, encoding="utf-8")
        self.returncode: int | None = None
        try:
            self._status, data = _SERVER.connect_to_new_process([theirs_in, theirs_out, log])
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        with os.fdopen(data, "wb") as file:
            pickle.dump({}, file)  # nothing of the caller's is prepared
            pickle.dump(_Start(str(folder.absolute()), environment), file)
        try:
            self.pid: int = forkserver.read_signed(self._status)
        except EOFError:
            raise OSError(0, "no worker process could be started") from None

    def wait(self) -> None:
        """Wait for its end; the exit code stays None if the fork server was killed."""
        if self._status >= 0:
            with suppress(EOFError, OSError):
                self.returncode = forkserver.read_signed(self._status)
            os.close(self._status)
            self._status = -1

    def kill(self) -> None:
        """Kill it, unless its end is known already."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@dataclass
class _Start:
    """What the forked process is handed; it calls `_bootstrap`, whose result is the exit code."""

    folder: str
    environment: dict[str, str]

    def _bootstrap(self, _: int) -> int:
        os.setsid()
        for target, descriptor in enumerate(forkserver.get_inherited_fds() or []):
            os.dup2(descriptor, target)
            os.close(descriptor)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        try:
            from workbench.batch.worker import Worker

            Worker().run()
            return 0
        except BaseException:
            traceback.print_exc()
            return 1
        finally:
            sys.stderr.flush()


class Samples:
    """The course of a run's memory in at most 120 samples, however long it takes.

    When there are more, each two neighbours become the larger of them, so that no peak is lost.
    """

    def __init__(self) -> None:
        self.kept: list[Sample] = []
        self.last: deque[Sample] = deque(maxlen=_LAST)
        self.peak = 0
        self.peak_cell: int | None = None
        self._stride = 1
        self._waiting: list[Sample] = []

    def add(self, seconds: float, size: int, cell: int | None) -> None:
        """Take a sample."""
        sample = (round(seconds, 2), size, cell)
        self.last.append(sample)
        if size > self.peak:
            self.peak = size
            self.peak_cell = cell
        self._waiting.append(sample)
        if len(self._waiting) >= self._stride:
            self.kept.append(largest_sample(self._waiting))
            self._waiting = []
        if len(self.kept) >= _MOST_SAMPLES:
            pairs = [self.kept[i : i + 2] for i in range(0, len(self.kept), 2)]
            self.kept = [largest_sample(pair) for pair in pairs]
            self._stride *= 2


@dataclass(frozen=True)
class Limits:
    """What a run may take: seconds for the whole and for each cell, bytes for all its processes."""

    timeout: float | None = None
    cell_timeout: float | None = None
    memory: int | None = None


class Interruption(threading.Event):
    """Set when all runs have to stop; `reason` is what their records say of it."""

    reason = "stopped by Ctrl-C or a signal"


def _nothing(*_: Any) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """What somebody wants to hear of a run: each cell that starts, and regularly that it lives."""

    on_cell: Callable[[int], object] = _nothing
    on_beat: Callable[[], object] = _nothing
    interruption: Interruption = field(default_factory=Interruption)


def supervise(
    job: dict[str, Any],
    folder: Path,
    limits: Limits,
    watch: Watch,
    secrets: Mapping[str, str] | None = None,
) -> "Supervisor":
    """Start a worker, follow it to its end, and leave no process of it."""
    supervisor = Supervisor(job, folder, limits, secrets or {})
    try:
        supervisor.follow(watch)
    finally:
        supervisor.end()
    return supervisor


class Supervisor:
    """One worker process and what the parent knows of it."""

    def __init__(
        self, job: dict[str, Any], folder: Path, limits: Limits, secrets: Mapping[str, str]
    ) -> None:
        self.job = job
        self.limits = limits
        self.seen: set[psutil.Process] = set()
        self.memory = Samples()
        self.system_kills = system_kills()
        self.limit_kills = 0
        self.files: list[dict[str, Any]] = []
        self.results_on: dict[str, str] = {}
        self.outcome: Outcome | None = None
        self.stopped: Outcome | None = None
        self._cell: dict[str, Any] = {}
        self._events: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._sampled = self._stop_sent = 0.0
        self._beaten = time.monotonic()
        with (folder / "log.txt").open("ab") as log:
            environment = {**_environment(job["id"], folder), **secrets}
            self.process = WorkerProcess(folder, environment, log.fileno())
        self.group = limits.memory and Group.create(job["id"], limits.memory, self.process.pid)
        self._began = time.monotonic()
        self._send(job)
        threading.Thread(target=self._listen, daemon=True).start()

    def follow(self, watch: Watch) -> None:
        """Follow the worker to its end, or stop it at a limit or an interruption."""
        timeout = self.limits.timeout
        deadline = self._began + (timeout or float("inf"))
        while (event := self._next_event()) is not None:
            if event.get("event") == "cell":
                self._cell = event
                watch.on_cell(event["index"])
            elif event.get("event") == "outcome":
                self.outcome = OUTCOME.validate_python(event["outcome"])
                self.files = event.get("files", [])
                self.results_on = event.get("results_on", {})
            if time.monotonic() - self._beaten > BEAT_SECONDS:
                watch.on_beat()
                self._beaten = time.monotonic()
            if watch.interruption.is_set():
                reason = watch.interruption.reason
                self._stop("interrupted", "Interrupted", reason, "interruption")
            elif time.monotonic() > deadline and not self.outcome:
                message = f"the run took longer than {timeout:g} s"
                self._stop("timed-out", "RunTimeout", message, "timeout")
        self.process.wait()

    def end(self) -> None:
        """Leave no process behind, whatever became of the worker."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()
        processes.end_all(self.job["id"], known=self.seen)
        self.system_kills = system_kills() - self.system_kills
        if self.group:
            kills = self.group.kills
            self.limit_kills = kills if self.group.full else 0
            self.system_kills = kills - self.limit_kills
            self.group.remove()

    def final_outcome(self, log: Path) -> Outcome:
        """Return how the run ended: as the worker said or, where it could not, as is known."""
        outcome = self.outcome or self._from_exit(log)
        return blame_memory(outcome, self.limits.memory, self.limit_kills, self.system_kills)

    def _from_exit(self, log: Path) -> Outcome:
        """Return the outcome of a worker that could not say it."""
        if self.stopped:
            return self.stopped
        code = self.process.returncode
        if code is None or code < 0:
            words, cause = exit_words(code)
            name = words.split()[-1] if code else "WorkerLost"
            return self._outcome("killed", name, f"the run's process {words}", cause)
        tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        message = f"the worker ended with {code}"
        return self._outcome("failed", "WorkerError", message, "system", tail)

    def _outcome(
        self, status: Status, kind: str, message: str, cause: Cause, text: str = ""
    ) -> Outcome:
        error = RunError(
            type=kind,
            message=message,
            cause=cause,
            cell=self._cell.get("index"),
            cell_source=self._cell.get("source"),
            traceback=text,
        )
        return Outcome(status, error)

    def _stop(self, status: Status, kind: str, message: str, cause: Cause) -> None:
        """Ask the worker to kill its kernel and save what there is; kill it if that takes long."""
        if not self.stopped:
            self.stopped = self._outcome(status, kind, message, cause)
            self._stop_sent = time.monotonic()
            self._send({"status": status, "type": kind, "message": message, "cause": cause})
        elif time.monotonic() - self._stop_sent > _GRACE_SECONDS:
            self.process.kill()

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # a worker that has died is found out by the end of its events
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def _listen(self) -> None:
        with suppress(OSError, ValueError):
            for line in self.process.stdout:
                self._events.put(json.loads(line))
        self._events.put(None)

    def _next_event(self) -> dict[str, Any] | None:
        """Wait a moment for an event, and sample; empty when there was none, None at the end."""
        if time.monotonic() - self._sampled >= _SAMPLE_SECONDS:
            self._sample()
            self._sampled = time.monotonic()
        try:
            return self._events.get(timeout=_SAMPLE_SECONDS)
        except Empty:
            return {}

    def _sample(self) -> None:
        """Sample the memory; without a control group, hold the run to its limit ourselves."""
        alive = processes.tree(self.process.pid)
        self.seen |= alive
        size = processes.used_bytes(alive)
        self.memory.add(time.monotonic() - self._began, size, self._cell.get("index"))
        limit = self.limits.memory
        if self.group or not limit or size <= limit or self.outcome:
            return
        if processes.used_bytes(alive, proportional=True) > limit:
            message = f"the run reached its memory limit of {show_size(limit)}"
            self._stop("killed", "MemoryLimit", message, "memory limit")


def _environment(run_id: str, folder: Path) -> dict[str, str]:
    """Return the worker's environment; relative paths in it are seen from the run's folder."""
    environment = {
        **os.environ,
        RUN_ID: run_id,
        RUN_FOLDER: str(folder.absolute()),
        "PYTHONUNBUFFERED": "1",
        # the kernel of this environment, not of one that the user has installed for himself
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    for name in ("WORKBENCH_DATA", "PYTHONPATH"):
        if paths := environment.get(name):
            absolute = [os.path.abspath(p) for p in paths.split(os.pathsep)]  # noqa: PTH100
            environment[name] = os.pathsep.join(absolute)
    return environment
