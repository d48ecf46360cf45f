"""Run notebooks as tasks of a dask cluster, whose workers see the same folders as we do."""

import json
import logging
import os
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

_log = logging.getLogger("workbench.batch")
_PATIENCE = 30.0  # seconds to wait for a worker when there is none


class RunsLostError(OSError):
    """The cluster lost runs; `records` are those that ended."""

    def __init__(self, message: str, records: list[RunRecord]) -> None:
        self.records = records
        super().__init__(message)


def run_on_cluster(
    jobs: Iterable[Job], scheduler: str, *, out: str | Path = "runs", **options: Any
) -> list[RunRecord]:
    """Run notebooks as tasks of a dask cluster, one for each job.

    The workers have to see this working directory and `out` under the same paths, and have this
    package installed. Each starts the same processes as `run_many`; the rest is as there.

    Parameters
    ----------
    jobs
        What to run. All are checked here before the first one is sent.
    scheduler
        Its address, ``"tcp://10.0.0.1:8786"``.
    out
        The folder of runs.
    **options
        ``timeout``, ``cell_timeout``, ``memory`` and ``hash_contents`` as in `run_many`.

    Raises
    ------
    JobError
        A job is wrong; nothing was started.
    RunsLostError
        Some runs did not come back: their worker was killed, or there is none left.
    OSError
        The scheduler cannot be reached.
    Interrupted
        Ctrl-C; what had been started was stopped.
    """
    checked = check_jobs(jobs)
    ensure_writable(Path(out))
    distributed = need("distributed", extra="batch")
    shared = {"out": str(out), "group": new_group(len(checked)), **options}
    with distributed.Client(scheduler, timeout="20s", set_as_default=False) as client:
        stop = f"workbench-stop-{new_group(2)}"
        tasks = []
        for job in checked:
            given = dict(job.given)
            asked = Job(str(job.notebook.path), given, job.parent, job.kernel, job.cwd)
            # as text: JSON has no tuples, and pickle would need the same versions at both ends
            order = repr({"job": asdict(asked), **shared})
            tasks.append(client.submit(_run_here, order, str(Path.cwd()), stop, pure=False))
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
    warned = False
    while not all(task.done() for task in tasks):
        time.sleep(0.2)
        now = time.monotonic()
        if now - began > seconds:
            return "they did not stop in time"
        if client.status != "running":
            return "the scheduler is gone"
        if client.scheduler_info()["workers"]:
            last_seen = now
        elif now - last_seen > _PATIENCE:
            return f"the cluster has had no worker for {_PATIENCE:g} s"
        elif not warned:
            _log.warning("the cluster has no worker: waiting %g s for one", _PATIENCE)
            warned = True
    return "they were cancelled"


def _records(tasks: list[Any]) -> list[RunRecord]:
    """Return the records of the runs that ended."""
    folders = [task.result() for task in tasks if task.status == "finished"]
    return [RunRecord.load(folder) for folder in folders if folder]


def _run_here(order: str, here: str, stop: str) -> str:
    """Do a job on a worker, in a process of its own for the working directory.

    Returns the run's folder; nothing if the order to stop came before it started.
    """
    distributed = need("distributed", extra="batch")
    event = distributed.Event(stop, client=distributed.get_client())
    if event.is_set():
        return ""
    command = [sys.executable, "-P", "-m", "workbench.batch.cluster"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=here, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None  # noqa: S101  it is a pipe
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        while process.poll() is None and not event.wait(timeout=0.5):
            pass
        if process.poll() is None:
            process.stdin.write("stop\n")
        folder, _ = process.communicate()
    if not folder:
        raise RuntimeError(f"the run could not be started; exit code {process.returncode}")
    return str(Path(here, folder.strip()))


def main() -> None:
    """Do the job that the first line of stdin holds, and print the run's folder."""
    import ast

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _worker_is_gone)
    order = ast.literal_eval(json.loads(sys.stdin.readline()))
    threading.Thread(target=_heed_worker, daemon=True).start()
    job = Job(**order.pop("job"))
    try:
        records = run_many([job], **order)
    except Interrupted as stop:
        records = stop.records
    sys.stdout.write("".join(f"{record.folder}\n" for record in records))


def _worker_is_gone(*_: Any) -> None:
    raise KeyboardInterrupt("the dask worker that ran this is gone")


def _heed_worker() -> None:
    """Stop as by Ctrl-C when the dask worker says so, or is gone."""
    line = sys.stdin.readline()
    main_thread = threading.main_thread().ident or 0
    # what the main thread waits for is broken off
    signal.pthread_kill(main_thread, signal.SIGINT if line else signal.SIGTERM)
    if not line:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  nobody reads it any more


if __name__ == "__main__":
    main()
