"""Whether an earlier run of a stage is as good as a new one."""

import json
import platform
from pathlib import Path
from typing import Any

from workbench.batch import provenance
from workbench.batch.files import measure
from workbench.batch.jobs import Plan
from workbench.batch.run_record import RunRecord


def why_stale(record: RunRecord, plan: Plan, inputs: dict[str, str]) -> str | None:
    """Return in words why a run would have to be repeated; None if it need not.

    Parameters
    ----------
    record
        The earlier run.
    plan
        What would be run now.
    inputs
        SHA-256 of each input by the parameter that names it. The paths themselves do not count:
        the same file from another run is the same input.
    """
    if record.status != "succeeded":
        return f"it {record.status} the last time"
    if record.notebook_sha256 != plan.notebook.sha256:
        return "the notebook has changed"
    return _parameters(record, plan, inputs) or _packages(record) or _outputs(record)


def _parameters(record: RunRecord, plan: Plan, inputs: dict[str, str]) -> str | None:
    before = {file.name: file.sha256 for file in record.inputs if file.name}
    for name, digest in inputs.items():
        if before.get(name) != digest:
            return f"the input {name} has changed"
    now, then = _plain(plan.parameters), _plain(record.parameters)
    for name in {**now, **then}:
        if name in inputs:
            continue
        if now.get(name) != then.get(name):
            return f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
    for file in record.inputs:  # named by a parameter that is no stage's, or declared
        if file.name in inputs:
            continue
        try:
            same = measure(Path(file.path))[1] == file.sha256
        except OSError:
            same = False
        if not same:
            return f"the file {file.path} has changed"
    return None


def _packages(record: RunRecord) -> str | None:
    if record.python != platform.python_version():
        return f"Python was {record.python} and is {platform.python_version()}"
    now, then = provenance.packages(), record.packages
    for name in {**now, **then}:
        if now.get(name) != then.get(name):
            return f"{name} was {then.get(name, 'missing')} and is {now.get(name, 'missing')}"
    return None


def _outputs(record: RunRecord) -> str | None:
    for file in record.outputs:
        if file.name is None:
            continue
        try:
            if measure(record.folder / file.path)[1] != file.sha256:
                return f"its file {file.path} has been changed"
        except OSError:
            return f"its file {file.path} is gone"
    return None


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as the record has them, with lists for tuples."""
    return dict(json.loads(json.dumps(parameters)))
