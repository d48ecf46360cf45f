"""A run as an RO-Crate: a folder or archive that others' tools understand."""

import json
import mimetypes
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench.batch.run_record import FileState, RunRecord
from workbench.batch.runs import find_run

_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_KINDS = {".ipynb": "application/x-ipynb+json"}
_STATUS = {"succeeded": "CompletedActionStatus", "running": "ActiveActionStatus"}


def export_crate(
    run: str | Path, to: str | Path, out: str | Path = "runs", *, copy_inputs: bool = True
) -> Path:
    """Write a run as an RO-Crate of the Process Run profile, and return its path.

    Parameters
    ----------
    run
        The run's folder, its id or a part of it, or ``"last"``.
    to
        A new folder, or a file that ends in ``.zip``.
    out
        The folder of runs.
    copy_inputs
        Put the files that the run read into the crate too; otherwise only what they were.

    Raises
    ------
    LookupError
        There is no such run.
    FileExistsError
        There is something at `to` already.
    """
    record, to = RunRecord.load(find_run(out, str(run))), Path(to)
    if to.exists():
        raise FileExistsError(f"{to} exists already: a crate is written to a new place")
    crate = need("rocrate.rocrate", extra="batch").ROCrate()
    crate.name = f"Run of {Path(record.notebook).name}, {record.id}"
    crate.description = f"{record.status}; parameters {json.dumps(record.parameters)}"
    crate.root_dataset["conformsTo"] = _add(
        crate,
        _PROFILE,
        "CreativeWork",
        name="Process Run Crate",
        version=_PROFILE.rpartition("/")[2],
    )
    licence = "No licence is stated: ask those who made the notebook and the data"
    crate.license = _add(crate, "#licence", "CreativeWork", name=licence)
    crate.root_dataset["mentions"] = _action(crate, record, copy_inputs)
    crate.add_file(
        record.folder / "run.json",
        "run.json",
        properties={"name": "the runner's record", "encodingFormat": "application/json"},
    )
    crate.write_zip(to) if to.suffix == ".zip" else crate.write(to)
    return to


def _action(crate: Any, record: RunRecord, copy_inputs: bool) -> Any:
    """Add the run, with what it ran, what it read and what it left."""
    values = [
        _add(crate, f"#parameter-{name}", "PropertyValue", name=name, value=json.dumps(value))
        for name, value in record.parameters.items()
    ]
    outputs = [
        _entity(crate, record.folder / file.path, f"outputs/{file.path}", file)
        for file in record.outputs
        if (record.folder / file.path).exists()
    ]
    status = _STATUS.get(record.status, "FailedActionStatus")
    action = {
        "name": f"Run {record.id}",
        "startTime": record.started.isoformat(),
        "endTime": record.ended.isoformat() if record.ended else None,
        "actionStatus": f"http://schema.org/{status}",
        "error": f"{record.error.type}: {record.error.message}" if record.error else None,
        "instrument": _tool(crate, record),
        "object": [_input(crate, file, copy_inputs) for file in record.inputs] + values,
        "result": outputs,
    }
    return _add(crate, f"#{record.id}", "CreateAction", **action)


def _tool(crate: Any, record: RunRecord) -> Any:
    """Add the notebook as the software that ran."""
    version = record.git.commit if record.git else record.notebook_sha256[:12]
    packages = [f"{name}=={version}" for name, version in record.packages.items()]
    return _add(
        crate,
        f"#notebook-{record.notebook_sha256[:12]}",
        "SoftwareApplication",
        name=record.notebook,
        sha256=record.notebook_sha256,
        softwareVersion=version,
        softwareRequirements=[f"Python {record.python}", *packages],
    )


def _input(crate: Any, file: FileState, copy: bool) -> Any:
    path = Path(file.path)
    if copy and path.exists():
        return _entity(crate, path, f"inputs/{file.sha256[:8]}/{path.name}", file)
    about = {"name": path.name, "sha256": file.sha256, "contentSize": str(file.size)}
    return _add(crate, f"#input-{file.sha256[:12]}", "CreativeWork", **about)


def _entity(crate: Any, path: Path, place: str, file: FileState) -> Any:
    about = {"name": file.name or path.name, "sha256": file.sha256, "contentSize": str(file.size)}
    if kind := _KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0]:
        about["encodingFormat"] = kind
    add = crate.add_directory if path.is_dir() else crate.add_file
    return add(path, place, properties=about)


def _add(crate: Any, identifier: str, kind: str, **properties: Any) -> Any:
    model = need("rocrate.model.contextentity", extra="batch").ContextEntity
    said = {name: value for name, value in properties.items() if value is not None}
    entities = {n: v for n, v in said.items() if n in ("instrument", "object", "result")}
    plain = {n: v for n, v in said.items() if n not in entities}
    entity = crate.add(model(crate, identifier, properties={"@type": kind, **plain}))
    for name, value in entities.items():
        entity[name] = value
    return entity
