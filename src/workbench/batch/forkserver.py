"""Fork server: one process imports what worker processes need, and is forked for each of them.

Importing papermill and nbconvert takes as long as starting a kernel. The fork server, ``python -m
workbench.batch.forkserver``, does it once, makes nothing that a fork would break (no threads, no
sockets of ZeroMQ), and then forks itself for each run.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

_MOST_BYTES = 1 << 20  # bytes of a request


class WorkerProcess:
    """A forked worker; what `subprocess.Popen` would be, were it our own child."""

    def __init__(self, stdin: TextIO, stdout: TextIO) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.pid = 0
        self.returncode: int | None = None
        self.started = threading.Event()
        self.exited = threading.Event()

    def wait(self) -> None:
        """Wait for its end."""
        self.exited.wait()

    def kill(self) -> None:
        """Kill it, unless its end is known already."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class ForkServer:
    """The parent's side: starts the fork server, has it fork workers, hears how they exited."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._sending = threading.Lock()
        self._waiting: list[WorkerProcess] = []
        self._alive: dict[int, WorkerProcess] = {}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workbench.batch.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C goes to the parent alone
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._process.kill()  # its workers have ended; it may still be importing
        self._process.wait()
        self._socket.close()

    def fork(self, folder: Path, environment: dict[str, str], log: int) -> WorkerProcess:
        """Return a new worker in a folder, whose standard error goes to a descriptor.

        Raises
        ------
        OSError
            The fork server is gone, or the system allows no more processes.
        """
        (stdin, ours), (theirs, stdout) = os.pipe(), os.pipe()
        worker = WorkerProcess(
            os.fdopen(ours, "w", encoding="utf-8"), os.fdopen(theirs, encoding="utf-8")
        )
        request = json.dumps({"folder": str(folder.absolute()), "environment": environment})
        try:
            with self._sending:
                self._waiting.append(worker)
                socket.send_fds(self._socket, [f"{request}\n".encode()], [stdin, stdout, log])
        finally:
            os.close(stdin)
            os.close(stdout)
        worker.started.wait()
        if not worker.pid:
            raise OSError("no worker process could be started")
        return worker

    def _listen(self) -> None:
        """Take in who started, in the order of the requests, and who exited."""
        with self._socket.makefile(encoding="utf-8") as lines, suppress(OSError):
            for line in lines:
                event = json.loads(line)
                if "started" in event:
                    worker = self._waiting.pop(0)
                    worker.pid = event["started"]
                    self._alive[worker.pid] = worker
                    worker.started.set()
                else:
                    self._end(self._alive.pop(event["exited"]), event["code"])
        for worker in [*self._waiting, *self._alive.values()]:  # the fork server was killed
            self._end(worker, None)

    @staticmethod
    def _end(worker: WorkerProcess, code: int | None) -> None:
        worker.returncode = code
        worker.exited.set()
        worker.started.set()


def serve(channel: socket.socket) -> None:
    """Fork a worker for each request, and tell of its start and its exit, until the parent goes."""
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    while True:
        ready, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_of_exits(channel)
        if channel.fileno() in ready:
            request, descriptors = _receive(channel)
            if request is None:
                return
            pid = _fork(request, descriptors, [channel.fileno(), woken, wakes])
            for descriptor in descriptors:
                os.close(descriptor)
            _tell(channel, started=pid)


def _receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Read one request and no byte of the next; None when the parent is gone."""
    data, descriptors, _, _ = socket.recv_fds(channel, 1, 3)
    while data and not data.endswith(b"\n"):
        seen = channel.recv(_MOST_BYTES, socket.MSG_PEEK)
        if not seen:
            return None, descriptors
        data += channel.recv(seen.find(b"\n") + 1 or len(seen))
    return (json.loads(data) if data else None), descriptors


def _fork(request: dict[str, Any], descriptors: list[int], ours: list[int]) -> int:
    """Fork; the child becomes the worker and never returns. 0 where the system refuses."""
    try:
        pid = os.fork()
    except OSError:
        return 0
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        for descriptor in (*descriptors, *ours):
            os.close(descriptor)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        from workbench.batch.worker import Worker

        Worker().run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _tell_of_exits(channel: socket.socket) -> None:
    with suppress(ChildProcessError):
        while (status := os.waitpid(-1, os.WNOHANG))[0]:
            _tell(channel, exited=status[0], code=os.waitstatus_to_exitcode(status[1]))


def _tell(channel: socket.socket, **event: Any) -> None:
    with suppress(OSError):  # the parent is gone, as the next read will show
        channel.sendall(json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    from workbench.batch.worker import warm_up

    warm_up()
    gc.collect()
    gc.freeze()  # shared pages stay shared
    serve(socket.socket(fileno=int(sys.argv[1])))
