"""The parent's side of a run's process: start it, listen, measure, stop it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import psutil

from workbench.batch import processes

_SAMPLE = 0.25
_GRACE = 15.0


def follow(
    job: dict[str, Any],
    folder: Path,
    timeout: float | None,
    interrupted: threading.Event,
    on_cell: Callable[[int], object] = int,
) -> "Child":
    """Start a worker, follow it to its end, and leave no process of it."""
    child = Child(job, folder)
    try:
        child.supervise(timeout, interrupted, on_cell)
    finally:
        child.end()
    return child


def failure(error: BaseException) -> dict[str, Any]:
    """Return the outcome of a run that failed for a reason outside its notebook."""
    text = "".join(traceback.format_exception(error))[-4000:]
    return _outcome("failed", type(error).__name__, str(error), text)


class Child:
    """One worker process and what the parent knows of it."""

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self.job = job
        self.seen: set[psutil.Process] = set()
        self.peak = 0
        self.cell: dict[str, Any] | None = None
        self.outcome: dict[str, Any] | None = None
        self.stopped: dict[str, Any] | None = None
        self._events: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._sampled = self._stop_sent = 0.0
        with (folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workbench.batch.worker"],
                cwd=folder,
                env=_environment(job["id"]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C goes to the parent alone
            )
        self._send(job)
        threading.Thread(target=self._listen, daemon=True).start()

    def supervise(
        self, timeout: float | None, interrupted: threading.Event, on_cell: Callable[[int], object]
    ) -> None:
        """Follow the worker to its end, or stop it at the deadline or an interruption."""
        deadline = time.monotonic() + (timeout or float("inf"))
        while (event := self._next_event()) is not None:
            if event.get("event") == "cell":
                self.cell = event
                on_cell(event["index"])
            elif event.get("event") == "outcome":
                self.outcome = {"status": event["status"], "error": event["error"]}
            if interrupted.is_set():
                self._stop("interrupted", "Interrupted", "stopped by Ctrl-C or a signal")
            elif time.monotonic() > deadline and not self.outcome:
                self._stop("timed-out", "RunTimeout", f"the run took longer than {timeout:g} s")
        self.process.wait()

    def end(self) -> None:
        """Leave no process behind, whatever became of the worker."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()
        processes.end_all(self.job["id"], known=self.seen)

    def verdict(self, log: Path) -> dict[str, Any]:
        """Return how the run ended: as the worker said or, where it could not, as is known."""
        if self.outcome:
            return self.outcome
        code = self.process.returncode
        status, kind, message, tail = "failed", "WorkerError", f"the worker ended with {code}", ""
        if self.stopped:
            status, (kind, message) = self.stopped["status"], self.stopped["reason"]
        elif code < 0:
            name = signal.Signals(-code).name
            status, kind, message = "killed", name, f"the run's process was ended by {name}"
        else:
            tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        return _outcome(status, kind, message, tail, self.cell)

    def _stop(self, status: str, kind: str, message: str) -> None:
        """Ask the worker to kill its kernel and save what there is; kill it if that takes long."""
        if not self.stopped:
            self.stopped = {"status": status, "reason": (kind, message)}
            self._stop_sent = time.monotonic()
            self._send(self.stopped)
        elif time.monotonic() - self._stop_sent > _GRACE:
            self.process.kill()

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # a worker that has died is found out by the end of its events
            assert self.process.stdin is not None  # noqa: S101
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None  # noqa: S101
        with suppress(OSError, ValueError):
            for line in self.process.stdout:
                self._events.put(json.loads(line))
        self._events.put(None)

    def _next_event(self) -> dict[str, Any] | None:
        """Wait a moment for an event, and measure; empty when there was none, None at the end."""
        if time.monotonic() - self._sampled >= _SAMPLE:
            alive = processes.tree(self.process.pid)
            self.seen |= alive
            self.peak = max(self.peak, processes.resident_bytes(alive))
            self._sampled = time.monotonic()
        try:
            return self._events.get(timeout=_SAMPLE)
        except Empty:
            return {}


def _outcome(
    status: str, kind: str, message: str, text: str, cell: dict[str, Any] | None = None
) -> dict[str, Any]:
    cell = cell or {"index": None, "source": None}
    where = {"cell": cell["index"], "cell_source": cell["source"]}
    error = {"type": kind, "message": message, **where, "traceback": text}
    return {"status": status, "error": error}


def _environment(run_id: str) -> dict[str, str]:
    """Return the worker's environment; relative paths in it are seen from the run's folder."""
    environment = {
        **os.environ,
        processes.RUN_ID: run_id,
        "WORKBENCH_BATCH": "1",
        "PYTHONUNBUFFERED": "1",
        # the kernel of this environment, not of one that the user has installed for himself
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    for name in ("WORKBENCH_DATA", "PYTHONPATH"):
        if paths := environment.get(name):
            absolute = [os.path.abspath(p) for p in paths.split(os.pathsep)]  # noqa: PTH100
            environment[name] = os.pathsep.join(absolute)
    return environment
