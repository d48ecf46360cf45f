"""Run notebooks, each in a process and a folder of its own, under a record that is always true."""

import logging
import os
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench.batch import provenance
from workbench.batch.declarations import read_parameters
from workbench.batch.limits import parse_size
from workbench.batch.memory import Sample
from workbench.batch.notebook import JobError, Notebook
from workbench.batch.nursery import Nursery
from workbench.batch.outcome import failure
from workbench.batch.parameters import Parameter, check_parameters, move_paths
from workbench.batch.progress import Progress
from workbench.batch.record import Memory, RunError, RunRecord
from workbench.batch.supervise import Child, Limits, follow

_log = logging.getLogger("workbench.batch")

# Space that a run holds until it ends, so that its record can be completed on a full disk.
RESERVE = ".reserve"
_RESERVED = 256 * 1024


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a signal stopped the runs; `records` are those that had been started."""

    def __init__(self, records: list[RunRecord]) -> None:
        self.records = records
        super().__init__("interrupted")


@dataclass(frozen=True)
class Job:
    """A notebook to run, and the parameters to set in it."""

    notebook: str | Path
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """A job whose notebook and parameters were found right."""

    notebook: Notebook
    known: Mapping[str, Parameter]
    given: Mapping[str, Any]


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
) -> list[RunRecord]:
    """Run notebooks, `n_jobs` at a time; the rest is as in `run_notebook`.

    All jobs are checked before the first one starts.

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
    plans = _plan(jobs)
    out = Path(out)
    _ensure_writable(out)
    interrupted = threading.Event()
    limits = Limits(timeout, cell_timeout, parse_size(memory) if memory else None)
    # Threads only wait for the runs' processes; the main thread stays free to take a Ctrl-C.
    with Nursery() as nursery, ThreadPoolExecutor(max_workers=n_jobs) as pool:
        carry_out = partial(
            _carry_out, out=out, interrupted=interrupted, limits=limits, nursery=nursery
        )
        futures = [pool.submit(carry_out, plan) for plan in plans]
        try:
            return [record for future in futures if (record := future.result()) is not None]
        except KeyboardInterrupt:
            interrupted.set()
            records = [record for future in futures if (record := future.result()) is not None]
            raise Interrupted(records) from None
        finally:
            interrupted.set()  # an error of ours: no run goes on alone


def _plan(jobs: Iterable[Job]) -> list[_Plan]:
    """Check every job, and report what is wrong with any of them together."""
    if find_spec("papermill") is None:
        need("papermill", extra="batch")
    plans, problems = [], []
    for job in jobs:
        try:
            notebook = Notebook.read(job.notebook)
            known = read_parameters(notebook)
            plans.append(_Plan(notebook, known, check_parameters(known, job.parameters)))
        except JobError as error:
            found = [f"{job.notebook}: {problem}" for problem in error.problems]
            problems += [problem for problem in found if problem not in problems]
    if problems:
        raise JobError(problems)
    return plans


def _ensure_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise JobError([f"{out}: runs cannot be written here: {reason}"]) from error


def _carry_out(
    plan: _Plan, out: Path, interrupted: threading.Event, limits: Limits, nursery: Nursery
) -> RunRecord | None:
    """Run one plan in a new folder; None if the interruption came first."""
    if interrupted.is_set():
        return None
    record = _begin(plan, out)
    name, folder = plan.notebook.path.stem, record.folder
    values = move_paths(plan.known, plan.given, folder)
    job: dict[str, Any] = {
        "id": record.id,
        "file": f"{name}.ipynb",
        "parameters": repr(values),
        "cell_timeout": limits.cell_timeout,
        "outcome": None,
    }
    began = time.monotonic()
    with Progress(name, record.id, len(plan.notebook.cells) + bool(values)) as progress:
        try:
            (folder / RESERVE).write_bytes(bytes(_RESERVED))
            (folder / f"{name}.ipynb").write_bytes(plan.notebook.content)
            child = follow(nursery, job, folder, limits, interrupted, progress.at)
            outcome, unsaved = child.verdict(folder / "log.txt"), child.outcome is None
            _keep_memory(record, child, plan)
        except Exception as error:  # a full disk, no memory for another process
            _log.exception("%s: the run could not be supervised", name)
            outcome, unsaved = failure(error), False
        record.ended, record.seconds = datetime.now(UTC), round(time.monotonic() - began, 3)
        _complete(record, outcome, plan)
        if unsaved:  # the worker is dead: another corrects its notebook and makes the HTML
            job["outcome"] = outcome
            follow(nursery, job, folder, Limits(timeout=60.0), threading.Event())
            _save(record)
        progress.ended(record.status, record.seconds)
    return record


def _begin(plan: _Plan, out: Path) -> RunRecord:
    """Make a run's folder and write its record, before anything of it runs."""
    started = datetime.now(UTC)
    notebook = plan.notebook
    stem = re.sub(r"[^\w.-]+", "-", notebook.path.stem)[:60]
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{stem}-{secrets.token_hex(3)}"
    record = RunRecord(
        id=run_id,
        notebook=os.path.relpath(notebook.path),
        notebook_sha256=notebook.sha256,
        parameters={n: p.default for n, p in plan.known.items()} | dict(plan.given),
        given=dict(plan.given),
        pid=os.getpid(),
        started=started,
        **provenance.of(notebook.path.resolve().parent),
    )
    (out / run_id).mkdir()
    record.save(out / run_id)
    return record


def _keep_memory(record: RunRecord, child: Child, plan: _Plan) -> None:
    """Put the course of the run's memory into its record, by cells of the notebook as given."""

    def cell(index: int | None) -> int | None:
        return index if index is None else plan.notebook.original_index(index, bool(plan.given))

    def known(samples: Iterable[Sample]) -> list[Sample]:
        return [(seconds, size, cell(index)) for seconds, size, index in samples]

    seen, limit = child.memory, child.limits.memory
    record.peak_memory_bytes = seen.peak
    record.memory = Memory(
        limit_bytes=limit,
        held_by=None if not limit else "control group" if child.group else "watching",
        killed=child.limit_kills,
        peak_cell=cell(seen.peak_cell),
        samples=known(seen.kept),
        last=known(seen.last),
    )


def _complete(record: RunRecord, outcome: Mapping[str, Any], plan: _Plan) -> None:
    """Write how a run ended."""
    record.status = outcome["status"]
    if outcome["error"]:
        record.error = RunError(**outcome["error"])
        if record.error.cell is not None:
            injected = bool(plan.given)
            record.error.cell = plan.notebook.original_index(record.error.cell, injected)
    _save(record)


def _save(record: RunRecord) -> None:
    """Write the record; should that fail, the earlier one stays, and the run counts as failed."""
    with suppress(OSError):
        (record.folder / RESERVE).unlink()
    record.files = sorted(p.name for p in record.folder.iterdir() if not p.name.startswith("."))
    try:
        record.save(record.folder)
    except OSError as error:
        _log.error("%s/run.json cannot be completed: %s", record.folder, error)
        record.status, record.error = "failed", RunError(**failure(error)["error"])
