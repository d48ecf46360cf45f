"""Where results came from, whether their files are what they were, and results beside others."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from workbench.batch.jobs import Job
from workbench.batch.notebook import JobError, write_text
from workbench.batch.report import ensure_ours
from workbench.batch.results import size_and_sha256
from workbench.batch.run import run_many
from workbench.batch.run_record import FileState, RunRecord, find_run, leaves, read_runs, results_of

if TYPE_CHECKING:
    import pandas as pd


# unknown: there was no time to hash it
State = Literal["same", "changed", "missing", "unknown"]


@dataclass
class Ancestry:
    """A run and what it read; each input with the run that wrote it, where one is known."""

    record: RunRecord
    inputs: list[tuple[FileState, "Ancestry | None"]] = field(default_factory=list)

    def text(self) -> str:
        """Return the tree as text, the run on top and what it rests on below.

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

    `run` is its folder, its id or a part of it, or ``"last"``; a LookupError says that there is no
    such run.
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

    Relative paths are seen from the working directory, as they were when the run was started. A
    LookupError says that there is no such run.

    >>> [c for c in verify("last") if c.state != "same"]  # doctest: +SKIP
    [Checked(role='input', path='data/table.csv', state='changed')]
    """
    return list(_checks(RunRecord.load(find_run(out, str(run)))))


def _checks(record: RunRecord) -> Iterator[Checked]:
    notebook = FileState(path=record.notebook, size=0, sha256=record.notebook_sha256)
    yield Checked("notebook", record.notebook, check_file(Path(record.notebook), notebook))
    for file in record.inputs:
        yield Checked("input", file.path, check_file(Path(file.path), file))
    for file in record.outputs:
        shown = os.path.relpath(record.folder / file.path)
        yield Checked("output", shown, check_file(record.file(file.path), file))


def check_file(path: Path | None, file: FileState) -> State:
    """Hash a file anew and compare it with what a record says of it."""
    if path is None:
        return "missing"
    if not file.sha256:
        return "unknown"
    try:
        return "same" if size_and_sha256(path, file.hashed)[1] == file.sha256 else "changed"
    except OSError:
        return "missing"


TOLERANCE = 0.01


@dataclass(frozen=True)
class Difference:
    """A result that the repetition does not confirm; None where one of the runs lacks it."""

    name: str
    before: Any
    after: Any


def rerun(
    run: str | Path,
    out: str | Path = "runs",
    *,
    parameters: Mapping[str, Any] | None = None,
    even_if_changed: bool = False,
) -> tuple[RunRecord, RunRecord]:
    """Repeat a run with its notebook, its parameters and its limits.

    Returns the two records; the second names the first as its parent. `parameters` take the place
    of the run's: secrets have to, which no record keeps.

    Raises
    ------
    LookupError
        There is no such run.
    JobError
        The notebook no longer takes these parameters, is gone or, unless `even_if_changed`, is
        another one now: what somebody else may have put in its place does not run unasked.
    """
    before = RunRecord.load(find_run(out, str(run)))
    if not even_if_changed and (changed := changed_notebook(before.folder)):
        raise JobError([f"{changed}; even_if_changed=True runs it all the same"])
    chosen = {**before.parameters, **(parameters or {})}
    job = Job(before.notebook, chosen, before.id, before.kernel, before.cwd)
    (after,) = run_many([job], out=before.folder.parent, **_limits(before))
    return before, after


def changed_notebook(folder: Path) -> str | None:
    """Say in words if the notebook that a record names is another one now; None if not."""
    record = RunRecord.load(folder)
    try:
        same = size_and_sha256(Path(record.notebook))[1] == record.notebook_sha256
    except OSError as error:
        raise JobError([f"{record.notebook}: {error.strerror}"]) from error
    return None if same else f"{record.notebook} is not the notebook that ran as {record.id}"


def _limits(record: RunRecord) -> dict[str, Any]:
    """Return what a run might take, as its configuration says; of an older run its memory."""
    names = {"timeout", "cell_timeout", "memory"}
    try:
        path = record.file("config.yaml")
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path else {}
        return {name: value for name, value in content["limits"].items() if name in names}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {"memory": record.memory.limit_bytes}


def differences(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    tolerance: float = TOLERANCE,
    tolerances: Mapping[str, float] | None = None,
) -> list[Difference]:
    """Return the results that differ by more than a tolerance, which is scaled to the metric.

    A number may differ by `tolerance` times its size. A share between 0 and 1 is also measured by
    what it lacks to 1, if that is less: an accuracy of 0.99 has an error of 0.01, so it may differ
    by 0.0001 at a tolerance of 0.01. Whole numbers, words and truth values have to be the same.
    `tolerances` are for some by name, such as ``"quality.recall"``; 0 for the very same.

    Examples
    --------
    >>> differences({"accuracy": 0.990, "loss": 2.00}, {"accuracy": 0.985, "loss": 2.01})
    [Difference(name='accuracy', before=0.99, after=0.985)]
    """
    old, new = dict(leaves(before)), dict(leaves(after))
    found = []
    for name in {**old, **new}:
        one, other = old.get(name), new.get(name)
        allowed = next(
            (t for n, t in (tolerances or {}).items() if name == n or name.startswith(f"{n}.")),
            tolerance,
        )
        if name not in old or name not in new or not _agree(one, other, allowed):
            found.append(Difference(name, one, other))
    return found


def _agree(one: Any, other: Any, tolerance: float) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other))
    if not numbers or all(isinstance(v, int) for v in (one, other)):
        return bool(one == other)
    scale = max(abs(one), abs(other))
    if all(0 <= v <= 1 for v in (one, other)):
        scale = min(scale, max(1 - one, 1 - other))
    return bool(abs(one - other) <= tolerance * scale)


def compare(
    out: str | Path = "runs", *, group: str | None = None, ids: Iterable[str] | None = None
) -> "pd.DataFrame":
    """Return a table with a row for each run: what differed between them, and what came out.

    They are those of a `group`, by default the latest that were started together, or have `ids`.

    Returns
    -------
    pandas.DataFrame
        Indexed by run id. Columns: the parameters that differ (listed in ``attrs["swept"]``),
        then ``status``, ``seconds``, ``peak_memory_bytes`` and each recorded number, word or
        truth value by its dotted name; tables and longer lists are left out.

    Raises
    ------
    LookupError
        There are no such runs.
    """
    import pandas as pd

    if ids is None:
        records = read_runs(out)
        sweeps = (r.group for r in records if r.group and "/" not in r.group)
        group = group or next(sweeps, None)  # a pipeline's stage has a slash in its group
        records = [r for r in records if group and r.group == group]
    else:
        records = read_runs(out, ids)
    records = records[::-1]
    if not records:
        raise LookupError(f"no group of runs in {out}" + (f" is called {group}" if group else ""))
    swept = _differing(records)
    rows = [_row(record, swept) for record in records]
    table = pd.DataFrame(rows, index=pd.Index([r.id for r in records], name="run"))
    table = table.sort_values(swept, kind="stable") if _sortable(table, swept) else table
    table.attrs["swept"] = swept
    return table


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table of `compare`'s into a CSV file, in place of nothing or of such a table."""
    ended = "status,seconds,peak_memory_bytes"
    ensure_ours(path, lambda text: text.startswith("run,") and ended in text)
    write_text(path, table.to_csv())


def _row(record: RunRecord, swept: list[str]) -> dict[str, Any]:
    values = {name: _cell(record.parameters.get(name)) for name in swept}
    ended = {"status": record.status, "seconds": record.seconds}
    results = {
        name: value
        for key, result in results_of(record).items()
        if not (isinstance(result, list) or _is_table(result))
        for name, value in leaves(result, key)
    }
    return {**values, **ended, "peak_memory_bytes": record.peak_memory_bytes, **results}


def _differing(records: Sequence[RunRecord]) -> list[str]:
    """Names of the parameters that are not the same in all runs, in the notebook's order."""
    names = list(dict.fromkeys(name for record in records for name in record.parameters))
    seen = {n: {json.dumps(r.parameters.get(n), default=str) for r in records} for n in names}
    return [name for name in names if len(seen[name]) > 1]


def _sortable(table: "pd.DataFrame", swept: list[str]) -> bool:
    return bool(swept) and all(table[name].map(type).nunique() == 1 for name in swept)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"columns", "data"}


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | tuple) else value
