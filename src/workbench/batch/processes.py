"""Find, limit and end every process of a run."""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

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


def used_bytes(processes: Collection[psutil.Process], proportional: bool = False) -> int:
    """Return the resident memory of processes, summed: what they share counts for each.

    `proportional` shares it out among them instead, where the system tells (Linux); that is slower.
    """
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            found = process.memory_full_info() if proportional else process.memory_info()
            total += getattr(found, "pss", found.rss)
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


_ROOT = Path("/sys/fs/cgroup")


def system_kills() -> int:
    """Return how many processes the kernel has killed for memory since it started; 0 if untold.

    It counts those of every control group as well as those that died because the machine was full.
    """
    return _entry(Path("/proc/vmstat"), "oom_kill")


class Group:
    """A memory control group of one run, of version 1 or 2, below or beside our own.

    The kernel counts what all its processes use together, shared pages once, and kills one of
    them at the limit.
    """

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self.version = version
        self._limit = "memory.max" if version == 2 else "memory.limit_in_bytes"
        self._swap = "memory.swap.max" if version == 2 else "memory.memsw.limit_in_bytes"
        self._events = "memory.events" if version == 2 else "memory.oom_control"

    @classmethod
    def create(cls, name: str, limit: int, pid: int) -> "Group | None":
        """Put a process under a limit in bytes; None where we may not, as for most users."""
        for version, home in _homes():
            group = cls(home / f"workbench-{name}", version)
            try:
                group.folder.mkdir()
                group._write(group._limit, limit)
                with suppress(OSError):  # a kernel without swap accounting
                    group._write(group._swap, 0 if version == 2 else limit)
                group._write("cgroup.procs", pid)
            except OSError:
                group.remove(patience=0)
                continue
            return group
        return None

    @property
    def kills(self) -> int:
        """How many of its processes the kernel has killed for memory."""
        return _entry(self.folder / self._events, "oom_kill")

    @property
    def full(self) -> bool:
        """Whether it came to its limit, so that a kill was our doing and not the machine's."""
        if self.version == 2:
            return _entry(self.folder / self._events, "oom") > 0
        return self._read("memory.max_usage_in_bytes") >= self._read("memory.limit_in_bytes")

    def _read(self, name: str) -> int:
        return int((self.folder / name).read_text())

    def remove(self, patience: float = 2.0) -> None:
        """Remove it; its processes have been ended before, and take a moment to go."""
        deadline = time.monotonic() + patience
        while self.folder.is_dir():
            with suppress(OSError):
                self.folder.rmdir()
                return
            if time.monotonic() >= deadline:
                return
            time.sleep(0.05)

    def _write(self, name: str, value: int) -> None:
        # Opened without O_CREAT: where the file is not the kernel's, there is no such controller.
        descriptor = os.open(self.folder / name, os.O_WRONLY)
        try:
            os.write(descriptor, str(value).encode())
        finally:
            os.close(descriptor)


def _homes() -> Iterator[tuple[int, Path]]:
    """Yield the folders in which a group might be made, with the version of each.

    Version 2 allows no groups below one that has processes, except at the root; a user's session
    often owns the group above.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield 1, _ROOT / "memory" / path.lstrip("/")
            yield 1, _ROOT / "memory"
        elif number == "0":
            own = _ROOT / path.lstrip("/")
            yield 2, own
            if own != _ROOT:
                yield 2, own.parent


def _entry(path: Path, name: str) -> int:
    """Return a number from a file of `name number` lines."""
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0
