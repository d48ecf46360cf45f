"""Whether the files that a run read and wrote are still what they were."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.batch.files import measure
from workbench.batch.run_record import RunRecord
from workbench.batch.store import find_run


@dataclass(frozen=True)
class Checked:
    """One file of a run and what became of it."""

    role: Literal["notebook", "input", "output"]
    path: str
    state: Literal["same", "changed", "missing"]


def verify(run: str | Path, out: str | Path = "runs") -> list[Checked]:
    """Hash a run's notebook, inputs and outputs anew and compare them with its record.

    Relative paths are seen from the working directory, as they were when the run was started.

    Raises
    ------
    LookupError
        There is no such run.

    Examples
    --------
    >>> [c for c in verify("last") if c.state != "same"]  # doctest: +SKIP
    [Checked(role='input', path='data/table.csv', state='changed')]
    """
    return list(_checks(RunRecord.load(find_run(out, str(run)))))


def _checks(record: RunRecord) -> Iterator[Checked]:
    notebook = Path(record.notebook)
    yield Checked("notebook", record.notebook, _state(notebook, record.notebook_sha256))
    for file in record.inputs:
        yield Checked("input", file.path, _state(Path(file.path), file.sha256))
    for file in record.outputs:
        path = record.folder / file.path
        yield Checked("output", os.path.relpath(path), _state(path, file.sha256))


def _state(path: Path, digest: str) -> Literal["same", "changed", "missing"]:
    try:
        return "same" if measure(path)[1] == digest else "changed"
    except OSError:
        return "missing"
