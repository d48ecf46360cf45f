"""A look at runs and at who is still alive."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil


def run_ids(out: Path) -> list[str]:
    return [path.parent.name for path in out.glob("*/run.json")]


def survivors(ids: list[str]) -> list[str]:
    """Command lines of the processes whose environment names one of these runs."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("WORKBENCH_RUN_ID") in ids:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.05)
