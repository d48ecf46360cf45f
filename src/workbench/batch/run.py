"""Run notebooks, each in a process and a folder of its own, under a record that is always true.

One bar for each run on a terminal; elsewhere a log line when it starts and when it ends.

The inputs and outputs of a run, hashed.

One run: its folder, its record, and its end, whatever happens.
"""

import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from tqdm import tqdm

from workbench._units import parse_size
from workbench.batch import run_record
from workbench.batch.forkserver import Nursery
from workbench.batch.jobs import Job, Plan, check_jobs
from workbench.batch.notebook import JobError, write_text
from workbench.batch.parameters import move_paths, named_paths
from workbench.batch.results import measure
from workbench.batch.run_record import FileState, Memory, RunError, RunRecord, Sample, failure
from workbench.batch.supervisor import Child, Limits, follow

_log = logging.getLogger("workbench.batch")


class Progress:
    """Shows how far a run is. A log gets two lines a run, whatever its cells print."""

    def __init__(self, name: str, run_id: str, cells: int) -> None:
        self.name = name
        self.bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            bar: tqdm[Any] = tqdm(total=cells, desc=name, unit="cell", file=sys.stderr)
            self.bar = bar
        _log.info("%s: started as %s", name, run_id)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            with suppress(OSError):
                self.bar.close()

    def at(self, index: int) -> None:
        """Say that the cell at `index` has started, so that those before it are done."""
        if self.bar is not None:
            with suppress(OSError):  # the terminal was closed; that is no failure of the run
                self.bar.update(index - self.bar.n)

    def ended(self, status: str, seconds: float) -> None:
        """Say how the run ended."""
        if self.bar is not None:
            with suppress(OSError):
                if status == "succeeded":
                    self.bar.update((self.bar.total or 0) - self.bar.n)
                self.bar.set_postfix_str(status)
        _log.info("%s: %s after %.1f s", self.name, status, seconds)


# not results: the record itself, which holds the hashes, and what the runner adds to it
_OWN = ("run.json", "log.txt", "config.yaml")


class HashedInputs:
    """Hashes the files that parameters name while the run goes on."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._states = [self._pool.submit(_state, path, name) for name, path in paths.items()]
        self._pool.shutdown(wait=False)

    def states(self) -> list[FileState]:
        """Wait for the hashes."""
        return [state for future in self._states if (state := future.result())]


def declared(files: list[dict[str, Any]], folder: Path) -> list[FileState]:
    """Return the inputs that a notebook declared, their paths seen from here."""
    return [
        FileState(
            path=os.path.relpath(folder / file["path"]), size=file["size"], sha256=file["sha256"]
        )
        for file in files
        if file["role"] == "input"
    ]


def outputs(folder: Path, names: list[str], files: list[dict[str, Any]]) -> list[FileState]:
    """Return what a run left in its folder, with the names under which it was recorded."""
    recorded = {os.path.normpath(f["path"]): f["name"] for f in files if f["role"] == "output"}
    paths = sorted({*names, *recorded} - {*_OWN})
    states = [_state(folder / path, recorded.get(path)) for path in paths]
    return [s.model_copy(update={"path": p}) for p, s in zip(paths, states, strict=True) if s]


def _state(path: Path, name: str | None) -> FileState | None:
    try:
        size, digest = measure(path)
    except OSError as error:
        _log.warning("%s cannot be read: %s", path, error.strerror)
        return None
    return FileState(path=os.path.relpath(path), size=size, sha256=digest, name=name)


# Space that a run holds until it ends, so that its record can be completed on a full disk.
RESERVE = ".reserve"
_RESERVED = 256 * 1024


@dataclass(frozen=True)
class Setting:
    """What the runs of one invocation share."""

    out: Path
    limits: Limits
    nursery: Nursery
    interrupted: threading.Event
    group: str | None = None


def carry_out(plan: Plan, setting: Setting) -> RunRecord | None:
    """Run one plan in a new folder; None if the interruption came first."""
    if setting.interrupted.is_set():
        return None
    record = _describe(plan, setting)
    try:
        _begin(record, setting)
    except OSError as error:  # the disk is full; others that run already must not suffer
        return _give_up(record, error)
    name, began = plan.notebook.path.stem, time.monotonic()
    hashed = HashedInputs(named_paths(plan.known, plan.parameters))
    values = move_paths(plan.known, plan.given, record.folder)
    job = _job(record.id, name, values, setting.limits)
    child: Child | None = None
    with Progress(name, record.id, len(plan.notebook.cells) + bool(values)) as progress:
        try:
            child = _follow(job, plan, setting, record.folder, progress)
            outcome, unsaved = child.verdict(record.folder / "log.txt"), child.outcome is None
            _keep_memory(record, child, plan)
            record.inputs = [*hashed.states(), *declared(child.files, record.folder)]
        except Exception as error:  # a full disk, no memory for another process
            _log.exception("%s: the run could not be supervised", name)
            outcome, unsaved = failure(error), False
        record.ended, record.seconds = datetime.now(UTC), round(time.monotonic() - began, 3)
        _complete(record, outcome, plan, child.files if child else [])
        if unsaved:
            _save_for_the_dead({**job, "outcome": outcome}, setting, record)
        progress.ended(record.status, record.seconds)
    return record


def _job(run_id: str, name: str, values: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Return what a worker is told; parameters are in Python's own words, which JSON lacks."""
    return {
        "id": run_id,
        "file": f"{name}.ipynb",
        "parameters": repr(values),
        "cell_timeout": limits.cell_timeout,
        "outcome": None,
    }


def _follow(
    job: dict[str, Any], plan: Plan, setting: Setting, folder: Path, progress: Progress
) -> Child:
    """Put the notebook into the run's folder, and follow a worker that executes it."""
    (folder / RESERVE).write_bytes(bytes(_RESERVED))
    (folder / job["file"]).write_bytes(plan.notebook.content)
    return follow(setting.nursery, job, folder, setting.limits, setting.interrupted, progress.at)


def _save_for_the_dead(job: dict[str, Any], setting: Setting, record: RunRecord) -> None:
    """Have another worker correct the notebook of one that died, and make its page."""
    limits = Limits(timeout=60.0)
    child = follow(setting.nursery, job, record.folder, limits, threading.Event())
    record.inputs += declared(child.files, record.folder)
    _save(record, child.files)


def _describe(plan: Plan, setting: Setting) -> RunRecord:
    """Return the record of a run that is about to begin in a new folder."""
    started, notebook = datetime.now(UTC), plan.notebook
    stem = re.sub(r"[^\w.-]+", "-", notebook.path.stem)[:60]
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{stem}-{secrets.token_hex(3)}"
    record = RunRecord(
        id=run_id,
        notebook=os.path.relpath(notebook.path),
        notebook_sha256=notebook.sha256,
        parameters=plan.parameters,
        given=dict(plan.given),
        pid=os.getpid(),
        group=setting.group,
        parent=plan.parent,
        seeds={name: value for name, value in plan.parameters.items() if "seed" in name},
        started=started,
        **run_record.of(notebook.path.resolve().parent),
    )
    record.lies_in(setting.out / run_id)
    return record


def _begin(record: RunRecord, setting: Setting) -> None:
    """Make a run's folder and write its record, before anything of it runs."""
    record.folder.mkdir()
    record.save(record.folder)
    write_text(record.folder / "config.yaml", _config(record, setting.limits))


def _give_up(record: RunRecord, error: OSError) -> RunRecord:
    """Return the record of a run that could not begin, of which nothing is left behind."""
    _log.error("%s: the run cannot begin: %s", record.folder, error.strerror or error)
    shutil.rmtree(record.folder, ignore_errors=True)
    record.ended, record.seconds, record.status = datetime.now(UTC), 0.0, "failed"
    record.error = RunError(**failure(error)["error"])
    return record


def _config(record: RunRecord, limits: Limits) -> str:
    """Return the configuration that repeats this run: ``workbench run --config``."""
    parameters = {name: _listed(value) for name, value in record.parameters.items()}
    content = {
        "version": 3,
        "notebooks": {record.notebook: parameters},
        "limits": asdict(limits),
    }
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _listed(value: Any) -> Any:
    """Return a value with lists for tuples, which YAML lacks."""
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return {k: _listed(v) for k, v in value.items()} if isinstance(value, dict) else value


def _keep_memory(record: RunRecord, child: Child, plan: Plan) -> None:
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


def _complete(
    record: RunRecord, outcome: Mapping[str, Any], plan: Plan, files: list[dict[str, Any]]
) -> None:
    """Write how a run ended."""
    record.status = outcome["status"]
    if outcome["error"]:
        record.error = RunError(**outcome["error"])
        if record.error.cell is not None:
            injected = bool(plan.given)
            record.error.cell = plan.notebook.original_index(record.error.cell, injected)
    _save(record, files)


def _save(record: RunRecord, files: list[dict[str, Any]]) -> None:
    """Write the record; should that fail, the earlier one stays, and the run counts as failed."""
    with suppress(OSError):
        (record.folder / RESERVE).unlink()
    record.files = sorted(p.name for p in record.folder.iterdir() if not p.name.startswith("."))
    record.outputs = outputs(record.folder, record.files, files)
    try:
        record.save(record.folder)
    except OSError as error:
        _log.error("%s/run.json cannot be completed: %s", record.folder, error)
        record.status, record.error = "failed", RunError(**failure(error)["error"])


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
    run_record.look_again()
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
