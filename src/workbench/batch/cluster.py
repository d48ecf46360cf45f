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
from workbench.batch.run_record import RunRecord, read_runs

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

    `scheduler` is its address, ``"tcp://10.0.0.1:8786"``; options are ``timeout``,
    ``cell_timeout``, ``memory`` and ``hash_contents``.

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
    group = new_group(max(2, len(checked))) or ""
    options |= {"out": str(out), "group": group}
    with distributed.Client(scheduler, timeout="20s", set_as_default=False) as client:
        stop = f"workbench-stop-{group}"
        tasks = []
        for job in checked:
            path = str(job.notebook.path)
            asked = Job(path, dict(job.given), job.parent, job.kernel, job.cwd)
            order = pickle.dumps((asdict(asked), options))
            tasks.append(client.submit(_run_here, order, str(Path.cwd()), stop, pure=False))
        folders: dict[int, str] = {}
        try:
            reason = _gather(client, tasks, folders)
        except KeyboardInterrupt:
            distributed.Event(stop, client=client).set()
            _gather(client, tasks, folders, seconds=60.0)
            raise Interrupted([r for r in read_runs(out) if r.group == group]) from None
        lost = [task for n, task in enumerate(tasks) if n not in folders]
        error = lost[0].exception() if lost and lost[0].done() else None
        client.cancel(lost)
    records = [RunRecord.load(folders[n]) for n in sorted(folders)]
    if lost:
        # One may have ended just before its worker did; what its worker's end broke off is lost.
        known = {record.id for record in records}
        others = [r for r in read_runs(out) if r.group == group and r.id not in known]
        records += [r for r in others if r.status in ("succeeded", "failed", "timed-out")]
        missing = len(tasks) - len(records)
        raise RunsLostError(f"{missing} of {len(tasks)} runs were lost: {error or reason}", records)
    return records


def _gather(
    client: Any, tasks: list[Any], folders: dict[int, str], seconds: float = float("inf")
) -> str:
    """Take the folders of runs that have ended until all have, or nobody is left to do them.

    A result is taken at once: it is lost with its worker, and would be computed again.
    """
    began = last_seen = time.monotonic()
    while True:
        for n, task in enumerate(tasks):
            if n not in folders and task.status == "finished":
                if folder := task.result():
                    folders[n] = folder
                task.release()
        if not any(task.status == "pending" for task in tasks):
            return "they were cancelled"
        time.sleep(0.2)
        now = time.monotonic()
        if client.status != "running":
            return "the scheduler is gone"
        if client.scheduler_info()["workers"]:
            last_seen = now
        if now - last_seen > _PATIENCE:
            return f"the cluster has had no worker for {_PATIENCE:g} s"
        if now - began > seconds:
            return "they went on"


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
