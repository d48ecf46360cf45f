"""One run: its folder, its record, and its end, whatever happens."""

import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from workbench.batch import provenance
from workbench.batch.jobs import Plan
from workbench.batch.memory import Sample
from workbench.batch.notebook import write_text
from workbench.batch.nursery import Nursery
from workbench.batch.outcome import failure
from workbench.batch.parameters import move_paths, named_paths
from workbench.batch.progress import Progress
from workbench.batch.run_record import Memory, RunError, RunRecord
from workbench.batch.states import HashedInputs, declared, outputs
from workbench.batch.supervise import Child, Limits, follow

_log = logging.getLogger("workbench.batch")

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
        **provenance.of(notebook.path.resolve().parent),
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
