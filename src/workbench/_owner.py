"""One owner a folder: a lock file that names its process, and shows that it lives."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil

#: Seconds between an owner's signs of life, and after which it counts as dead.
_HEARTBEAT = 5
_FORGOTTEN = 60


@contextmanager
def owned(folder: Path, refusal: type[Exception]) -> Iterator[None]:
    """Be the only process that writes to a folder, by a lock file beside it.

    It names its owner, and its time is renewed while the owner lives. The lock of a process that
    has ended, or on another machine was not heard of for a minute, is taken over. That of a living
    one raises `refusal`.
    """
    lock = folder.with_name(f".{folder.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    started = psutil.Process().create_time()
    me = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    while True:
        try:
            with lock.open("x") as file:
                json.dump(me, file)
            break
        except FileExistsError:
            _take_over(lock, folder, refusal)
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(_HEARTBEAT):
            os.utime(lock)

    threading.Thread(target=renew, daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        lock.unlink(missing_ok=True)


def _take_over(lock: Path, folder: Path, refusal: type[Exception]) -> None:
    """Remove the lock of a dead owner; refuse where the owner lives."""
    try:
        age = time.time() - lock.stat().st_mtime
        text = lock.read_text()
    except FileNotFoundError:
        return
    try:
        owner = json.loads(text)
    except ValueError:  # it is being written, or its writer was killed at that
        owner = {"host": "?", "pid": 0, "started": 0}
    if owner["host"] == socket.gethostname():
        alive = psutil.pid_exists(owner["pid"])
        alive = alive and abs(psutil.Process(owner["pid"]).create_time() - owner["started"]) < 1
    else:
        alive = age < _FORGOTTEN
    if alive:
        raise refusal(
            f"process {owner['pid']} on {owner['host']} is writing to {folder}; wait for it or "
            f"give another path. If it has ended, delete {lock}"
        )
    # by another name first: of several who find it dead, one removes it and no new one is removed
    aside = lock.with_name(f"{lock.name}.{uuid4().hex[:8]}")
    try:
        lock.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_text() != text:
        aside.rename(lock)
    aside.unlink(missing_ok=True)
