"""Run notebooks, each in a process and a folder of its own, under a record that is always true."""

import secrets
import tempfile
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.batch import provenance
from workbench.batch.attempt import Setting, carry_out
from workbench.batch.jobs import Job, check_jobs
from workbench.batch.limits import parse_size
from workbench.batch.notebook import JobError
from workbench.batch.nursery import Nursery
from workbench.batch.run_record import RunRecord
from workbench.batch.supervise import Limits


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a signal stopped the runs; `records` are those that had been started."""

    def __init__(self, records: list[RunRecord]) -> None:
        self.records = records
        super().__init__("interrupted")


def run_notebook(
    notebook: str | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    out: str | Path = "runs",
    timeout: float | None = None,
    cell_timeout: float | None = None,
    memory: int | str | None = None,
) -> RunRecord:
    """Run one notebook in a process and a folder of its own.

    A notebook that fails does not raise: the record says how it ended.

    Parameters
    ----------
    notebook
        The ``.ipynb`` file.
    parameters
        Values for names in its cell tagged ``parameters``; the others keep their defaults. A
        relative path that exists is found from the notebook too, whose working directory is the
        run's folder.
    out
        The folder of runs; the run gets a new folder in it, the record's ``folder``.
    timeout
        Seconds for the whole run.
    cell_timeout
        Seconds for each cell, rounded up.
    memory
        Bytes, or a text such as ``"4GiB"``, for all processes of the run together. The kernel
        holds the run to it where a control group can be made, else the runner does, which looks
        every 0.25 s.

    Raises
    ------
    JobError
        The notebook cannot be read, a parameter is unknown or ill-typed, or `out` cannot be
        written. Nothing was started.
    Interrupted
        Ctrl-C; the run was stopped, and its record says so.

    Examples
    --------
    >>> record = run_notebook("notebooks/01_mnist_embeddings.ipynb",
    ...                       {"n_samples": 500})         # doctest: +SKIP
    >>> record.status, record.seconds                     # doctest: +SKIP
    ('succeeded', 31.2)
    """
    job = Job(notebook, parameters or {})
    limits = {"timeout": timeout, "cell_timeout": cell_timeout, "memory": memory}
    return run_many([job], out=out, **limits)[0]  # type: ignore[arg-type]


def run_many(
    jobs: Iterable[Job],
    *,
    out: str | Path = "runs",
    n_jobs: int = 1,
    timeout: float | None = None,
    cell_timeout: float | None = None,
    memory: int | str | None = None,
    group: str | None = None,
) -> list[RunRecord]:
    """Run notebooks, `n_jobs` at a time; the rest is as in `run_notebook`.

    All jobs are checked before the first one starts. Their records share a `group`, by default a
    new one, by which `workbench.batch.compare` finds them.

    Returns
    -------
    list of RunRecord
        In the order of the jobs.

    Examples
    --------
    >>> jobs = [Job("umap.ipynb", {"seed": seed}) for seed in range(4)]
    >>> [r.status for r in run_many(jobs, n_jobs=2)]      # doctest: +SKIP
    ['succeeded', 'succeeded', 'succeeded', 'succeeded']
    """
    plans = check_jobs(jobs)
    out = Path(out)
    ensure_writable(out)
    provenance.look_again()
    interrupted = threading.Event()
    limits = Limits(timeout, cell_timeout, parse_size(memory) if memory else None)
    # Threads only wait for the runs' processes; the main thread stays free to take a Ctrl-C.
    with Nursery() as nursery, ThreadPoolExecutor(max_workers=n_jobs) as pool:
        setting = Setting(out, limits, nursery, interrupted, group or new_group(len(plans)))
        futures = [pool.submit(carry_out, plan, setting) for plan in plans]
        try:
            return [record for future in futures if (record := future.result()) is not None]
        except KeyboardInterrupt:
            interrupted.set()
            records = [record for future in futures if (record := future.result()) is not None]
            raise Interrupted(records) from None
        finally:
            interrupted.set()  # an error of ours: no run goes on alone


def new_group(runs: int) -> str | None:
    """Return a name for what is started together; one run alone needs none."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}" if runs > 1 else None


def ensure_writable(out: Path) -> None:
    """Make the folder of runs; a JobError says why nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise JobError([f"{out}: runs cannot be written here: {reason}"]) from error
