"""Run notebooks as tasks of a dask cluster, whose workers see the same folders as we do."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench.batch.jobs import Job, check_jobs
from workbench.batch.run import Interrupted, ensure_writable, new_group, run_many
from workbench.batch.run_record import RunRecord

_PATIENCE = 30.0  # seconds to wait for a worker when there is none


class RunsLostError(OSError):
    """The cluster lost runs; `records` are those that ended."""

    def __init__(self, message: str, records: list[RunRecord]) -> None:
        self.records = records
        super().__init__(message)


def run_on_cluster(
    jobs: Iterable[Job], scheduler: str, *, out: str | Path = "runs", **options: Any
) -> list[RunRecord]:
    """Run notebooks as tasks of a dask cluster, one for each job; the rest is as in `run_many`.

    The workers have to see this working directory and `out` under the same paths, and have this
    package installed.

    Parameters
    ----------
    scheduler
        Its address, ``"tcp://10.0.0.1:8786"``.
    **options
        ``timeout``, ``cell_timeout``, ``memory`` and ``hash_contents`` as in `run_many`.

    Raises
    ------
    RunsLostError
        Some runs did not come back: their worker was killed, or there is none left.
    OSError
        The scheduler cannot be reached.
    """
    checked = check_jobs(jobs)
    ensure_writable(Path(out))
    distributed = need("distributed", extra="batch")
    options |= {"out": str(out), "group": new_group(len(checked))}
    with distributed.Client(scheduler, timeout="20s", set_as_default=False) as client:
        stop = f"workbench-stop-{new_group(2)}"
        asked = [
            Job(str(j.notebook.path), dict(j.given), j.parent, j.kernel, j.cwd) for j in checked
        ]
        orders = [pickle.dumps((asdict(job), options)) for job in asked]
        tasks = [
            client.submit(_run_here, order, str(Path.cwd()), stop, pure=False) for order in orders
        ]
        try:
            reason = _wait(client, tasks)
        except KeyboardInterrupt:
            distributed.Event(stop, client=client).set()
            _wait(client, tasks, seconds=60.0)
            raise Interrupted(_records(tasks)) from None
        records = _records(tasks)
        if lost := [task for task in tasks if task.status != "finished"]:
            error = lost[0].exception() if lost[0].done() else None
            client.cancel(lost)
            said = f"{len(lost)} of {len(tasks)} runs were lost: {error or reason}"
            raise RunsLostError(said, records)
        return records


def _wait(client: Any, tasks: list[Any], seconds: float = float("inf")) -> str:
    """Wait until all tasks have ended, or nobody is left to do them, and return why it ended."""
    began = last_seen = time.monotonic()
    while not all(task.done() for task in tasks):
        time.sleep(0.2)
        now = time.monotonic()
        if now - began > seconds or client.status != "running":
            return "the scheduler is gone" if client.status != "running" else "they went on"
        if client.scheduler_info()["workers"]:
            last_seen = now
        elif now - last_seen > _PATIENCE:
            return f"the cluster has had no worker for {_PATIENCE:g} s"
    return "they were cancelled"


def _records(tasks: list[Any]) -> list[RunRecord]:
    folders = [task.result() for task in tasks if task.status == "finished"]
    return [RunRecord.load(folder) for folder in folders if folder]


def _run_here(order: bytes, here: str, stop: str) -> str:
    """Do a job on a dask worker, in a process of its own for the working directory.

    Returns the run's folder; nothing if the order to stop came before it started.
    """
    distributed = need("distributed", extra="batch")
    event = distributed.Event(stop, client=distributed.get_client())
    if event.is_set():
        return ""
    command = [sys.executable, "-P", "-m", "workbench.batch.cluster"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=here, stdin=pipe, stdout=pipe) as process:
        os.write(process.stdin.fileno(), order)  # type: ignore[union-attr]
        while process.poll() is None and not event.wait(timeout=0.5):
            pass
        folder, _ = process.communicate(b"stop" if event.is_set() else None)
    if not folder:
        raise RuntimeError(f"the run could not be started; exit code {process.returncode}")
    return str(Path(here, folder.decode().strip()))


def main() -> None:
    """Do the job that stdin holds, and print the run's folder."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _worker_is_gone)
    job, options = pickle.load(sys.stdin.buffer)  # noqa: S301  from our own process
    threading.Thread(target=_heed_worker, daemon=True).start()
    try:
        records = run_many([Job(**job)], **options)
    except Interrupted as stop:
        records = stop.records
    os.write(1, "".join(f"{record.folder}\n" for record in records).encode())


def _worker_is_gone(*_: Any) -> None:
    raise KeyboardInterrupt("the dask worker that ran this is gone")


def _heed_worker() -> None:
    """Stop as by Ctrl-C when the dask worker says so, or is gone."""
    told = sys.stdin.buffer.read(4)
    main_thread = threading.main_thread().ident or 0
    # what the main thread waits for is broken off
    signal.pthread_kill(main_thread, signal.SIGINT if told else signal.SIGTERM)


if __name__ == "__main__":
    main()
