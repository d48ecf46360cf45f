"""Run notebooks on a dask cluster, whose workers see the same folders as we do."""

import ast
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench.batch.jobs import Job, Plan, check_jobs
from workbench.batch.run import Interrupted, ensure_writable, new_group, run_many
from workbench.batch.run_record import RunRecord


def run_on_cluster(
    jobs: Iterable[Job], scheduler: str, *, out: str | Path = "runs", **limits: Any
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
    **limits
        ``timeout``, ``cell_timeout`` and ``memory`` for each run.

    Raises
    ------
    JobError
        A job is wrong; nothing was started.
    OSError
        The scheduler cannot be reached, or was lost, or a worker could not start a run.
    Interrupted
        Ctrl-C; what had been started was stopped.
    """
    plans = check_jobs(jobs)
    ensure_writable(Path(out))
    distributed = need("distributed", extra="batch")
    group, here = new_group(len(plans)), Path.cwd()
    with distributed.Client(scheduler, timeout="20s", set_as_default=False) as client:
        stop = f"workbench-stop-{new_group(2)}"
        orders = [repr(_order(plan, str(out), group, limits)) for plan in plans]
        tasks = [client.submit(_remote, order, here, stop, pure=False) for order in orders]
        try:
            _wait(tasks)
        except KeyboardInterrupt:
            distributed.Event(stop, client=client).set()
            _wait(tasks, patience=60)
            raise Interrupted(_records(tasks)) from None
        if lost := [task for task in tasks if task.status != "finished"]:
            reason = lost[0].exception() or "the scheduler is gone"
            raise OSError(f"{len(lost)} of {len(tasks)} runs were lost: {reason}")
        return _records(tasks)


def _wait(tasks: list[Any], patience: float = math.inf) -> None:
    """Wait until all tasks have ended, in a way that Ctrl-C can break off."""
    deadline = time.monotonic() + patience
    while not all(task.done() for task in tasks) and time.monotonic() < deadline:
        time.sleep(0.2)


def _records(tasks: list[Any]) -> list[RunRecord]:
    """Return the records of the runs that were started."""
    folders = [task.result() for task in tasks if task.status == "finished"]
    return [RunRecord.load(folder) for folder in folders if folder]


def _order(plan: Plan, out: str, group: str | None, limits: dict[str, Any]) -> dict[str, Any]:
    """Return what a process elsewhere needs to do a job, in literals."""
    job = {"notebook": str(plan.notebook.path), "parameters": dict(plan.given)}
    return {"job": {**job, "parent": plan.parent}, "out": out, "group": group, "limits": limits}


def _remote(order: str, here: Path, stop: str) -> str:
    """Do a job in a process of its own, for the working directory; return the run's folder.

    Empty if the order to stop came before it started.
    """
    distributed = need("distributed", extra="batch")
    event = distributed.Event(stop, client=distributed.get_client())
    if event.is_set():
        return ""
    command = [sys.executable, "-P", "-m", "workbench.batch.cluster", order]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=here, stdin=pipe, stdout=pipe, text=True) as process:
        while process.poll() is None and not event.wait(timeout=0.5):
            pass
        folder, _ = process.communicate()  # closes its stdin, which stops it if it still runs
    if not folder:
        raise RuntimeError(f"the run could not be started here; exit code {process.returncode}")
    return str(here / folder.strip())


def main() -> None:
    """Do the job that the command line holds, and print the run's folder."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_with_stdin, daemon=True).start()
    order = ast.literal_eval(sys.argv[1])
    try:
        records = run_many(
            [Job(**order["job"])], out=order["out"], group=order["group"], **order["limits"]
        )
    except Interrupted as stop:
        records = stop.records
    sys.stdout.write("".join(f"{record.folder}\n" for record in records))


def _stop_with_stdin() -> None:
    """Stop as by Ctrl-C when the dask worker says so, or is gone."""
    os.read(0, 1)
    main_thread = threading.main_thread().ident or 0
    signal.pthread_kill(main_thread, signal.SIGINT)  # what it waits for is broken off


if __name__ == "__main__":
    main()
