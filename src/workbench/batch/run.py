"""Run notebooks, each in a process and a folder of its own, under a record that is always true."""

import json
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import yaml
from tqdm import tqdm

from workbench._unattended import SECRET_PREFIX
from workbench._units import parse_size
from workbench.batch import run_record
from workbench.batch.jobs import CheckedJob, Job, assignments, check_jobs
from workbench.batch.notebook import JobError, write_text
from workbench.batch.parameters import MASK, move_paths, named_paths
from workbench.batch.results import file_state
from workbench.batch.run_record import (
    OUTCOME,
    FileState,
    Memory,
    Outcome,
    RunRecord,
    Sample,
    failure,
)
from workbench.batch.supervisor import Interruption, Limits, Supervisor, Watch, supervise

_log = logging.getLogger("workbench.batch")


class Progress:
    """Shows how far a run is: a bar on a terminal, elsewhere two lines, whatever it prints."""

    def __init__(self, name: str, run_id: str, cells: int) -> None:
        self.name = name
        self.bar: tqdm[Any] = tqdm(
            total=cells, desc=name, unit="cell", file=sys.stderr, disable=None
        )
        _log.info("%s: started as %s", name, run_id)

    def at(self, index: int) -> None:
        """Say that the cell at `index` has started, so that those before it are done."""
        with suppress(OSError):  # the terminal was closed; that is no failure of the run
            self.bar.update(index - self.bar.n)

    def ended(self, status: str, seconds: float) -> None:
        """Say how the run ended."""
        if status == "succeeded":
            self.at(int(self.bar.total or 0))
        with suppress(OSError):
            self.bar.set_postfix_str(status)
            self.bar.close()
        _log.info("%s: %s after %.1f s", self.name, status, seconds)


# not results: the record itself, which holds the hashes, and what the runner adds to it
_OWN = ("run.json", "log.txt", "config.yaml")
# Space that a run holds until it ends, so that its record can be completed on a full disk.
RESERVE = ".reserve"
_RESERVED = 256 * 1024


class InputHasher:
    """Hashes the files that parameters name while the run goes on, and no longer than it may."""

    def __init__(self, paths: Mapping[str, Path], contents: bool) -> None:
        self._stop = Event()
        pool = ThreadPoolExecutor(max_workers=1)
        self._states = pool.submit(
            lambda: [_state(path, name, contents, self._stop) for name, path in paths.items()]
        )
        pool.shutdown(wait=False)

    def states(self, deadline: float, interruption: Interruption) -> list[FileState]:
        """Wait for the hashes, until a deadline of the monotonic clock or an interruption."""
        while time.monotonic() < deadline and not interruption.is_set():
            if wait([self._states], timeout=0.2).done:
                break
        self._stop.set()
        return [state for state in self._states.result() if state]


def _state(
    path: Path, name: str | None, contents: bool = False, stop: Event | None = None
) -> FileState | None:
    shown = os.path.relpath(path)
    try:
        return FileState(path=shown, name=name, **file_state(path, contents, stop))
    except OSError as error:
        _log.warning("%s was not hashed: %s", shown, error.strerror)
        return FileState(path=shown, name=name, size=0, sha256="") if stop else None


@dataclass(frozen=True)
class RunContext:
    """What the runs of one invocation share."""

    out: Path
    limits: Limits
    interruption: Interruption = field(default_factory=Interruption)
    group: str | None = None
    hash_contents: bool = False


def execute_job(job: CheckedJob, context: RunContext) -> RunRecord | None:
    """Run one job in a new folder; None if the interruption came first."""
    if context.interruption.is_set():
        return None
    record = _new_record(job, context)
    try:
        _begin(record, job, context)
    except OSError as error:  # the disk is full; others that run already must not suffer
        _log.error("%s: the run cannot begin: %s", record.folder, error.strerror or error)
        return _ended(record, failure(error), 0.0)
    began = time.monotonic()
    deadline = began + (context.limits.timeout or float("inf"))
    hasher = InputHasher(named_paths(job.known, job.parameters), context.hash_contents)
    progress = Progress(
        job.notebook.path.stem, record.id, len(job.notebook.cells) + bool(job.given)
    )
    watch = Watch(progress.at, lambda: _beat(record), context.interruption)
    origins: list[int | None] = []
    supervisor: Supervisor | None = None
    secret = {SECRET_PREFIX + name: value for name, value in job.secrets.items()}
    try:
        document, origins = job.notebook.prepare(injected_code(job, record.folder))
        (record.folder / RESERVE).write_bytes(bytes(_RESERVED))
        path = record.folder / job.notebook.path.name
        text = json.dumps(document, indent=1)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        order = _order(record, job, origins, context.limits)
        supervisor = supervise(order, record.folder, context.limits, watch, secret)
        outcome = supervisor.final_outcome(record.folder / "log.txt")
        _keep_memory(record, supervisor, origins)
        record.inputs = hasher.states(deadline, context.interruption)
        _take_declared(record, supervisor)
    except Exception as error:  # a full disk, no memory for another process
        _log.exception("%s: the run could not be supervised", record.id)
        outcome = failure(error)
    _ended(record, _at_origin(outcome, origins), time.monotonic() - began)
    _save(record, supervisor, job)
    if supervisor and supervisor.outcome is None:
        # Another worker corrects the notebook of one that died, and makes its page.
        order["outcome"] = OUTCOME.dump_python(outcome)
        supervisor = supervise(order, record.folder, Limits(timeout=60.0), Watch(), secret)
        _take_declared(record, supervisor)
        _save(record, supervisor, job)
    progress.ended(record.status, record.seconds or 0.0)
    return record


def injected_code(job: CheckedJob, run_folder: Path) -> str | None:
    """Return the code of the cell that sets parameters; None if there is nothing to set.

    A relative path is made one that is seen from the kernel's working directory. A secret comes
    from a variable of the kernel's environment, which the code removes from there.
    """
    if not job.given:
        return None
    values = move_paths(job.known, job.given, job.folder(run_folder))
    if job.notebook.language != "python":
        return assignments(job.kernel, job.notebook.language, values)
    lines = [f"{name} = {code}" for name, code in job.carried.items()]
    for name, value in values.items():
        said = repr(value)
        if name in job.secrets:
            said = f"__import__('os').environ.pop({SECRET_PREFIX + name!r})"
            if "SecretStr" in (job.known[name].annotation if name in job.known else ""):
                said = f"__import__('pydantic').SecretStr({said})"
        lines.append(f"{name} = {said}")
    return "\n".join(["# Parameters", *lines])


def _order(
    record: RunRecord, job: CheckedJob, origins: list[int | None], limits: Limits
) -> dict[str, Any]:
    """Return what a worker is told."""
    return {
        "id": record.id,
        "file": job.notebook.path.name,
        "origins": origins,
        "kernel": job.kernel,
        "cwd": str(job.folder(record.folder).absolute()),
        "images": str(job.notebook.path.parent.absolute()),
        "cell_timeout": limits.cell_timeout,
        "outcome": None,
    }


def _beat(record: RunRecord) -> None:
    record.heartbeat = datetime.now(UTC)
    with suppress(OSError):
        record.save(durable=False)


def _new_record(job: CheckedJob, context: RunContext) -> RunRecord:
    """Return the record of a run that is about to begin."""
    notebook, parameters = job.notebook, job.masked(job.parameters)
    return RunRecord(
        id="",
        notebook=os.path.relpath(notebook.path),
        notebook_sha256=notebook.sha256,
        parameters=parameters,
        given=job.masked(job.given),
        computed=dict(job.code),
        kernel=job.kernel,
        cwd=job.cwd,
        pid=os.getpid(),
        group=context.group,
        parent=job.parent,
        seeds={name: value for name, value in parameters.items() if "seed" in name},
        started=datetime.now(UTC),
        **run_record.surroundings(notebook.path.resolve().parent),
    )


def _begin(record: RunRecord, job: CheckedJob, context: RunContext) -> None:
    """Make a run's folder and write its record, before anything of it runs."""
    stem = re.sub(r"[^\w.-]+", "-", job.notebook.path.stem)[:60]
    for _ in range(10):
        record.id = f"{record.started:%Y%m%dT%H%M%SZ}-{stem}-{secrets.token_hex(3)}"
        record.folder = context.out / record.id
        try:
            record.folder.mkdir(mode=0o700)
            break
        except FileExistsError:  # another's run, by a rare chance
            continue
    else:
        raise FileExistsError(0, "no free name was found for the run's folder")
    try:
        _beat(record)
        record.save()
        write_text(record.folder / "config.yaml", _config(record, context.limits))
    except OSError:
        shutil.rmtree(record.folder, ignore_errors=True)
        raise


def _config(record: RunRecord, limits: Limits) -> str:
    """Return the configuration that repeats this run: ``workbench run --config``."""
    values = {name: value for name, value in record.parameters.items() if value != MASK}
    content = {
        "version": 4,
        "notebooks": {record.notebook: {name: _listed(value) for name, value in values.items()}},
        "limits": asdict(limits),
        "kernel": record.kernel,
        "cwd": record.cwd,
    }
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _listed(value: Any) -> Any:
    """Return a value with lists for tuples, which YAML lacks."""
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return {k: _listed(v) for k, v in value.items()} if isinstance(value, dict) else value


def _keep_memory(record: RunRecord, supervisor: Supervisor, origins: list[int | None]) -> None:
    """Put the course of the run's memory into its record, by cells of the notebook as given."""

    def cell(index: int | None) -> int | None:
        return None if index is None else origins[index]

    def known(samples: Iterable[Sample]) -> list[Sample]:
        return [(seconds, size, cell(index)) for seconds, size, index in samples]

    seen, limit = supervisor.memory, supervisor.limits.memory
    record.peak_memory_bytes = seen.peak
    record.memory = Memory(
        limit_bytes=limit,
        held_by=None if not limit else "control group" if supervisor.group else "watching",
        killed=supervisor.limit_kills,
        peak_cell=cell(seen.peak_cell),
        samples=known(seen.kept),
        last=known(seen.last),
    )


def _at_origin(outcome: Outcome, origins: list[int | None]) -> Outcome:
    """Return an outcome whose cell is that of the notebook as it was given."""
    if not outcome.error or outcome.error.cell is None:
        return outcome
    cell = {"cell": origins[outcome.error.cell]}
    return replace(outcome, error=outcome.error.model_copy(update=cell))


def _ended(record: RunRecord, outcome: Outcome, seconds: float) -> RunRecord:
    record.ended = datetime.now(UTC)
    record.seconds = round(seconds, 3)
    record.status = outcome.status
    record.error = outcome.error
    record.note = outcome.note
    return record


def _take_declared(record: RunRecord, supervisor: Supervisor) -> None:
    """Add the inputs that the notebook declared, their paths seen from here."""
    for file in supervisor.files:
        if file["role"] == "input":
            path = os.path.relpath(record.folder / file["path"])
            kept = {key: file[key] for key in ("size", "sha256", "hashed")}
            record.inputs.append(FileState(path=path, **kept))
    record.results_on = supervisor.results_on


def _save(record: RunRecord, supervisor: Supervisor | None, job: CheckedJob) -> None:
    """Write the record; should that fail, the earlier one stays, and the run counts as failed."""
    with suppress(OSError):
        (record.folder / RESERVE).unlink()
    if job.secrets:
        _mask_log(record.folder / "log.txt", job.secrets.values())
    record.files = sorted(p.name for p in record.folder.iterdir() if not p.name.startswith("."))
    files = supervisor.files if supervisor else []
    recorded = {os.path.normpath(f["path"]): f["name"] for f in files if f["role"] == "output"}
    record.outputs = []
    for name in sorted({*record.files, *recorded} - {*_OWN}):
        path = record.file(name)
        if path and (state := _state(path, recorded.get(name))):
            record.outputs.append(state.model_copy(update={"path": name}))
    try:
        record.save()
    except OSError as error:
        _log.error("%s/run.json cannot be completed: %s", record.folder, error)
        _ended(record, failure(error), record.seconds or 0.0)


def _mask_log(path: Path, secret: Iterable[str]) -> None:
    with suppress(OSError):
        text = before = path.read_text(encoding="utf-8", errors="surrogateescape")
        for value in secret:
            text = text.replace(value, MASK)
        if text != before:
            path.write_text(text, encoding="utf-8", errors="surrogateescape")


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
    kernel: str | None = None,
    cwd: str | None = None,
) -> RunRecord:
    """Run one notebook in a process and a folder of its own.

    A notebook that fails does not raise: the record says how it ended.

    Parameters
    ----------
    notebook
        The ``.ipynb`` file.
    parameters, kernel, cwd
        As in `Job`. A relative path that exists is found from the notebook too. A text under a
        name such as ``password`` or ``api_key``, or declared as ``SecretStr``, reaches no file.
    out
        The folder of runs; the run gets a new folder in it, the record's ``folder``.
    timeout, cell_timeout
        Seconds for the whole run, and for each cell, rounded up.
    memory
        Bytes, or ``"4GiB"``, for all processes of the run together, held by a control group where
        one can be made, else by the runner, which looks every 0.25 s.

    Raises
    ------
    JobError
        The notebook cannot be read, its kernel is not installed, a parameter is unknown or
        ill-typed, or `out` cannot be written. Nothing was started.
    Interrupted
        Ctrl-C; the run was stopped, and its record says so.

    Examples
    --------
    >>> run_notebook("a.ipynb", {"n": 500}).status        # doctest: +SKIP
    'succeeded'
    """
    job = Job(notebook, parameters or {}, kernel=kernel, cwd=cwd)
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
    hash_contents: bool = False,
) -> list[RunRecord]:
    """Run notebooks, `n_jobs` at a time; the rest is as in `run_notebook`.

    All jobs are checked before the first one starts. Their records share a `group`, by default a
    new one, by which `workbench.batch.compare` finds them.

    Parameters
    ----------
    hash_contents
        Hash folders that parameters name by their files' contents, however large; by default
        those of more than 256 MiB are hashed by their files' sizes and times of change.

    Returns
    -------
    list of RunRecord
        In the order of the jobs.

    Examples
    --------
    >>> jobs = [Job("umap.ipynb", {"seed": seed}) for seed in range(2)]
    >>> [r.status for r in run_many(jobs, n_jobs=2)]      # doctest: +SKIP
    ['succeeded', 'succeeded']
    """
    checked = check_jobs(jobs)
    limits = Limits(timeout, cell_timeout, parse_size(memory) if memory else None)
    out = Path(out)
    ensure_writable(out)
    run_record.look_again()
    interruption = Interruption()
    # Threads only wait for the runs' processes; the main thread stays free to take a Ctrl-C.
    with ThreadPoolExecutor(max_workers=n_jobs) as pool:
        group = group or new_group(len(checked))
        context = RunContext(out, limits, interruption, group, hash_contents)
        futures = [pool.submit(execute_job, job, context) for job in checked]
        try:
            return [record for future in futures if (record := future.result()) is not None]
        except KeyboardInterrupt as stop:
            interruption.reason = str(stop) or interruption.reason
            interruption.set()
            records = [record for future in futures if (record := future.result()) is not None]
            raise Interrupted(records) from None
        finally:
            interruption.set()  # an error of ours: no run goes on alone


def new_group(runs: int) -> str | None:
    """Return a name for what is started together; one run alone needs none."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}" if runs > 1 else None


def ensure_writable(out: Path) -> None:
    """Make the folder of runs; a JobError says why nothing can be written there."""
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise JobError([f"{out}: runs cannot be written here: {reason}"]) from error
