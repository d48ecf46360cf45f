"""Where a run's results came from: an input whose hash is that of an earlier run's output."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from workbench.batch.run_record import FileState, RunRecord
from workbench.batch.store import find_run, read_runs, summaries


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
        self.out = out
        # Newest first: of several runs that wrote the same, the latest before the reading counts.
        self.texts = {s.id: (out / s.id / "run.json").read_bytes() for s in summaries(out)}
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
        for name, text in self.texts.items():
            if name == reader.id or file.sha256.encode() not in text:
                continue
            for record in read_runs(self.out, [name]):
                wrote = any(output.sha256 == file.sha256 for output in record.outputs)
                if wrote and record.ended and record.ended <= reader.started:
                    return record
        return None
