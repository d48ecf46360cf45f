"""Where a run's results came from: an input whose hash is that of an earlier run's output.

A picture of where a run's results came from.

Whether the files that a run read and wrote are still what they were.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from workbench._units import duration
from workbench.batch.results import measure
from workbench.batch.run_record import FileState, RunRecord
from workbench.batch.runs import find_run, read_runs, summaries


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


_RUN, _FILE, _EDGE = "#e3edfd", "#f1f3f6", "#97a2b4"


def save_figure(ancestry: Ancestry, path: Path) -> None:
    """Draw a lineage, oldest on the left, into an .svg, .png or .pdf file.

    Raises
    ------
    ValueError
        The file's suffix names no format that matplotlib writes.
    """
    columns: dict[int, list[str]] = {}
    labels: dict[str, tuple[str, str]] = {}
    edges: set[tuple[str, str]] = set()
    _lay_out(ancestry, 0, columns, labels, edges)
    depth, rows = max(columns), max(map(len, columns.values()))
    places = {
        key: (depth - level, (len(keys) - 1) / 2 - at)
        for level, keys in columns.items()
        for at, key in enumerate(keys)
    }
    # An arrow over more than one column is bent, so that it does not run behind what lies between.
    lengths = {(a, b): places[b][0] - places[a][0] for a, b in edges}
    bends = {edge: -0.18 * (length > 1) for edge, length in lengths.items()}
    height = rows / 2 + max([0.1, *(0.12 * length for length in lengths.values())])
    axes = _axes(depth, rows, height)
    boxes = {}
    for key, (text, colour) in labels.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": _EDGE}
        boxes[key] = axes.text(*places[key], text, ha="center", va="center", fontsize=8, bbox=box)
    axes.figure.canvas.draw()  # only then have the boxes a size, at which the arrows end
    _draw_arrows(axes, places, boxes, bends)
    axes.figure.savefig(path, dpi=130)


def _axes(depth: int, rows: int, height: float) -> Any:
    """Return axes that fill a figure, with a unit for each column and row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.4 + 1.5 * (depth + 1), 0.3 + 1.3 * height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.6, depth + 0.6)
    axes.set_ylim(-rows / 2, height)
    return axes


def _draw_arrows(
    axes: Any,
    places: Mapping[str, tuple[float, float]],
    boxes: dict[str, Any],
    bends: dict[tuple[str, str], float],
) -> None:
    for (start, end), bend in bends.items():
        patches = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()}
        style = {"arrowstyle": "-|>", "color": _EDGE, "connectionstyle": f"arc3,rad={bend}"}
        axes.annotate("", xy=places[end], xytext=places[start], arrowprops={**style, **patches})


def _lay_out(
    node: Ancestry,
    level: int,
    columns: dict[int, list[str]],
    labels: dict[str, tuple[str, str]],
    edges: set[tuple[str, str]],
) -> None:
    """Give each run and each file a column: as far left as the longest way to it asks."""
    record = node.record
    _put(record.id, level, columns)
    name = Path(record.notebook).stem
    labels[record.id] = (f"{name}\n{record.status}, {duration(record.seconds)}", _RUN)
    for file, source in node.inputs:
        _put(file.sha256, level + 1, columns)
        labels[file.sha256] = (f"{Path(file.path).name}\n{file.sha256[:8]}", _FILE)
        edges.add((file.sha256, record.id))
        if source:
            edges.add((source.record.id, file.sha256))
            _lay_out(source, level + 2, columns, labels, edges)


def _put(key: str, level: int, columns: dict[int, list[str]]) -> None:
    for at, keys in columns.items():
        if key in keys:
            if at >= level:
                return
            keys.remove(key)
            break
    columns.setdefault(level, []).append(key)


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
