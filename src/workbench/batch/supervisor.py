"""The parent's side of a run's process: start it, listen, measure, stop it."""

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import psutil

from workbench._unattended import RUN_ID
from workbench._units import show_size
from workbench.batch import processes
from workbench.batch.cgroups import Group, system_kills
from workbench.batch.forkserver import Nursery
from workbench.batch.run_record import (
    Cause,
    Sample,
    blame_memory,
    exit_words,
    largest_sample,
    outcome,
)

_MOST_SAMPLES = 120
_LAST = 12


class Samples:
    """Keeps the course of a run's memory in at most 120 samples, however long it takes.

    When there are more, each two neighbours become the larger of them, so that no peak is lost.

    Examples
    --------
    >>> samples = Samples()
    >>> for second in range(1000):
    ...     samples.add(second, second % 7, None)
    >>> len(samples.kept) <= 120, samples.peak
    (True, 6)
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
            self.peak, self.peak_cell = size, cell
        self._waiting.append(sample)
        if len(self._waiting) >= self._stride:
            self.kept.append(largest_sample(self._waiting))
            self._waiting = []
        if len(self.kept) >= _MOST_SAMPLES:
            pairs = [self.kept[i : i + 2] for i in range(0, len(self.kept), 2)]
            self.kept = [largest_sample(pair) for pair in pairs]
            self._stride *= 2


_SAMPLE = 0.25
_GRACE = 15.0


@dataclass(frozen=True)
class Limits:
    """What a run may take: seconds for the whole and for each cell, bytes for all its processes."""

    timeout: float | None = None
    cell_timeout: float | None = None
    memory: int | None = None


def follow(
    nursery: Nursery,
    job: dict[str, Any],
    folder: Path,
    limits: Limits,
    interrupted: threading.Event,
    on_cell: Callable[[int], object] = int,
) -> "Child":
    """Start a worker, follow it to its end, and leave no process of it."""
    child = Child(nursery, job, folder, limits)
    try:
        child.supervise(interrupted, on_cell)
    finally:
        child.end()
    return child


class Child:
    """One worker process and what the parent knows of it."""

    def __init__(self, nursery: Nursery, job: dict[str, Any], folder: Path, limits: Limits) -> None:
        self.job = job
        self.limits = limits
        self.seen: set[psutil.Process] = set()
        self.memory = Samples()
        self.system_kills = system_kills()
        self.limit_kills = 0
        self.files: list[dict[str, Any]] = []
        self.cell: dict[str, Any] | None = None
        self.outcome: dict[str, Any] | None = None
        self.stopped: dict[str, Any] | None = None
        self._events: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._sampled = self._stop_sent = 0.0
        with (folder / "log.txt").open("ab") as log:
            self.process = nursery.fork(folder, _environment(job["id"]), log.fileno())
        self.group = limits.memory and Group.create(job["id"], limits.memory, self.process.pid)
        self._began = time.monotonic()
        self._send(job)
        threading.Thread(target=self._listen, daemon=True).start()

    def supervise(self, interrupted: threading.Event, on_cell: Callable[[int], object]) -> None:
        """Follow the worker to its end, or stop it at a limit or an interruption."""
        timeout = self.limits.timeout
        deadline = self._began + (timeout or float("inf"))
        while (event := self._next_event()) is not None:
            if event.get("event") == "cell":
                self.cell = event
                on_cell(event["index"])
            elif event.get("event") == "outcome":
                self.outcome = {"status": event["status"], "error": event["error"]}
                self.files = event.get("files", [])
            if interrupted.is_set():
                self._stop(
                    "interrupted", "Interrupted", "stopped by Ctrl-C or a signal", "interruption"
                )
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
            self.limit_kills, self.system_kills = (kills, 0) if self.group.full else (0, kills)
            self.group.remove()

    def verdict(self, log: Path) -> dict[str, Any]:
        """Return how the run ended: as the worker said or, where it could not, as is known."""
        found = self.outcome or self._from_exit(log)
        return blame_memory(found, self.limits.memory, self.limit_kills, self.system_kills)

    def _from_exit(self, log: Path) -> dict[str, Any]:
        """Return the outcome of a worker that could not say it."""
        if self.stopped:
            kind, message, cause = self.stopped["reason"]
            return outcome(self.stopped["status"], kind, message, cause, cell=self.cell)
        code = self.process.returncode
        if code is None or code < 0:
            words, cause = exit_words(code)
            name = words.split()[-1] if code else "WorkerLost"
            return outcome("killed", name, f"the run's process {words}", cause, cell=self.cell)
        tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        message = f"the worker ended with {code}"
        return outcome("failed", "WorkerError", message, "system", tail, self.cell)

    def _stop(self, status: str, kind: str, message: str, cause: Cause) -> None:
        """Ask the worker to kill its kernel and save what there is; kill it if that takes long."""
        if not self.stopped:
            self.stopped = {"status": status, "reason": (kind, message, cause)}
            self._stop_sent = time.monotonic()
            self._send(self.stopped)
        elif time.monotonic() - self._stop_sent > _GRACE:
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
        """Wait a moment for an event, and measure; empty when there was none, None at the end."""
        if time.monotonic() - self._sampled >= _SAMPLE:
            self._measure()
            self._sampled = time.monotonic()
        try:
            return self._events.get(timeout=_SAMPLE)
        except Empty:
            return {}

    def _measure(self) -> None:
        """Sample the memory; without a control group, hold the run to its limit ourselves."""
        alive = processes.tree(self.process.pid)
        self.seen |= alive
        size = processes.resident_bytes(alive)
        cell = self.cell["index"] if self.cell else None
        self.memory.add(time.monotonic() - self._began, size, cell)
        limit = self.limits.memory
        if self.group or not limit or size <= limit or self.outcome:
            return
        if processes.proportional_bytes(alive) > limit:
            message = f"the run reached its memory limit of {show_size(limit)}"
            self._stop("killed", "MemoryLimit", message, "memory limit")


def _environment(run_id: str) -> dict[str, str]:
    """Return the worker's environment; relative paths in it are seen from the run's folder."""
    environment = {
        **os.environ,
        RUN_ID: run_id,
        "PYTHONUNBUFFERED": "1",
        # the kernel of this environment, not of one that the user has installed for himself
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    for name in ("WORKBENCH_DATA", "PYTHONPATH"):
        if paths := environment.get(name):
            absolute = [os.path.abspath(p) for p in paths.split(os.pathsep)]  # noqa: PTH100
            environment[name] = os.pathsep.join(absolute)
    return environment
