"""Find and end every process of a run."""

import time
from collections.abc import Collection, Iterator

import psutil

from workbench._unattended import RUN_ID


def tree(pid: int) -> set[psutil.Process]:
    """Return a process and its descendants; empty when it has ended."""
    try:
        process = psutil.Process(pid)
        return {process, *process.children(recursive=True)}
    except psutil.Error:
        return set()


def is_alive_since(pid: int, moment: float) -> bool:
    """Return whether a process that was there at a moment (seconds since 1970) still is."""
    try:
        started = psutil.Process(pid).create_time()
    except psutil.Error:
        return False
    # A process that is younger than the moment has only got the old one's number. The start of a
    # process is known to a hundredth of a second.
    return started < moment + 1.0


def resident_bytes(processes: Collection[psutil.Process]) -> int:
    """Return the resident memory of processes, summed; what they share counts more than once."""
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def proportional_bytes(processes: Collection[psutil.Process]) -> int:
    """Return the memory of processes, shared pages shared out among them; slower to find.

    Where the system does not tell (only Linux does), it is `resident_bytes`.
    """
    total = 0
    for process in processes:
        try:
            found = process.memory_full_info()
            total += getattr(found, "pss", found.rss)
        except psutil.Error:
            continue
    return total


def end_all(
    run_id: str, known: Collection[psutil.Process] = (), spare: int = 0, patience: float = 5.0
) -> list[psutil.Process]:
    """Kill every process of a run, and return those that were there after `patience` seconds.

    A run's processes are those whose environment carries its id, which children inherit, and
    those in `known`, which covers a child that cleared its environment. FiftyOne's services are
    left alone: their wrapper watches its clients itself and ends the database a moment after the
    last of them has gone, and the clients may be another run or the reader's own session. `spare`
    is the worker, when it ends its own kernel. A process that is killed may have started another.
    """
    deadline = time.monotonic() + patience
    while True:
        found = {*_carrying(run_id), *known}
        left = [p for p in found if p.pid != spare and _alive(p) and not _is_service(p)]
        if not left or time.monotonic() > deadline:
            return left
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(0.05)


def _carrying(run_id: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_ID) == run_id:
                yield process
        except (psutil.Error, OSError):  # another user's, or gone
            continue


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_service(process: psutil.Process) -> bool:
    try:
        return any("--51-service" in p.cmdline() for p in (process, *process.parents()))
    except psutil.Error:
        return False
