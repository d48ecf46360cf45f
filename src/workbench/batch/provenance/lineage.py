"""Where a run's results came from, and whether its files are still what they were."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from workbench.batch.results import size_and_sha256
from workbench.batch.run_record import FileState, RunRecord
from workbench.batch.runs import find_run, read_runs

# unknown: there was no time to hash it
State = Literal["same", "changed", "missing", "unknown"]


@dataclass
class Ancestry:
    """A run and what it read; each input with the run that wrote it, where one is known."""

    record: RunRecord
    inputs: list[tuple[FileState, "Ancestry | None"]] = field(default_factory=list)

    def text(self) -> str:
        """Return the tree as text, the run on top and what it rests on below.

        Examples
        --------
        >>> print(trace("last").text())                   # doctest: +SKIP
        evaluate.ipynb  20260102T101112Z-evaluate-0a1b2c  succeeded
        └─ model.npz  5c8a1f0e
           └─ train.ipynb  20260102T101101Z-train-3d4e5f  succeeded
        """
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        record = self.record
        name = Path(record.notebook).name
        repeats = f", repeats {record.parent}" if record.parent else ""
        yield f"{name}  {record.id}  {record.status}{repeats}"
        for at, (file, source) in enumerate(self.inputs):
            last = at == len(self.inputs) - 1
            yield f"{'└─' if last else '├─'} {Path(file.path).name}  {file.sha256[:8]}"
            indent = "   " if last else "│  "
            for n, line in enumerate(source._lines() if source else []):
                yield f"{indent}{'└─ ' if n == 0 else '   '}{line}"


def trace(run: str | Path, out: str | Path = "runs") -> Ancestry:
    """Follow a run's inputs back to the runs that wrote them, and theirs, to the beginning.

    Parameters
    ----------
    run
        The run's folder, its id or a part of it, or ``"last"``.
    out
        The folder of runs.

    Raises
    ------
    LookupError
        There is no such run.
    """
    folder = find_run(out, str(run))
    return _Tracer(folder.parent).ancestry(RunRecord.load(folder))


class _Tracer:
    """Finds the writers of files; each run is looked at once."""

    def __init__(self, out: Path) -> None:
        self.writers: dict[str, list[RunRecord]] = {}
        # Newest first: of several runs that wrote the same, the latest before the reading counts.
        for record in read_runs(out):
            for file in record.outputs:
                self.writers.setdefault(file.sha256, []).append(record)
        self.known: dict[str, Ancestry] = {}

    def ancestry(self, record: RunRecord) -> Ancestry:
        if record.id not in self.known:
            self.known[record.id] = Ancestry(record)  # first, so that no circle has no end
            self.known[record.id].inputs = [
                (file, self.ancestry(writer) if (writer := self.writer(file, record)) else None)
                for file in record.inputs
            ]
        return self.known[record.id]

    def writer(self, file: FileState, reader: RunRecord) -> RunRecord | None:
        """Return the latest run that had written a file before the reader started."""
        for record in self.writers.get(file.sha256, []) if file.sha256 else []:
            if record.id != reader.id and record.ended and record.ended <= reader.started:
                return record
        return None


@dataclass(frozen=True)
class Checked:
    """One file of a run and what became of it."""

    role: Literal["notebook", "input", "output"]
    path: str
    state: State


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
    notebook = FileState(path=record.notebook, size=0, sha256=record.notebook_sha256)
    yield Checked("notebook", record.notebook, _state(Path(record.notebook), notebook))
    for file in record.inputs:
        yield Checked("input", file.path, _state(Path(file.path), file))
    for file in record.outputs:
        shown = os.path.relpath(record.folder / file.path)
        yield Checked("output", shown, _state(record.file(file.path), file))


def _state(path: Path | None, file: FileState) -> State:
    if path is None:
        return "missing"
    if not file.sha256:
        return "unknown"
    try:
        return "same" if size_and_sha256(path, file.hashed)[1] == file.sha256 else "changed"
    except OSError:
        return "missing"
