"""Worker processes by a fork server: one process imports what they need, and is forked for each.

Importing papermill and nbconvert takes as long as starting a kernel. `multiprocessing`'s fork
server does it once a session; unlike its `Process`, a worker here never imports the caller's
script, and leads a session of its own, which Ctrl-C does not reach.
"""

import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

_SERVER = forkserver.ForkServer()
_SERVER.set_forkserver_preload(["workbench.batch.preload"])


class WorkerProcess:
    """A forked worker in a folder, whose standard error goes to a descriptor.

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
