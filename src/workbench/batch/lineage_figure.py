"""A picture of where a run's results came from."""

from pathlib import Path
from typing import Any

from workbench.batch.lineage import Ancestry
from workbench.batch.words import duration

_RUN, _FILE, _EDGE = "#e3edfd", "#f1f3f6", "#97a2b4"


def save_figure(ancestry: Ancestry, path: Path) -> None:
    """Draw a lineage, oldest on the left, into an .svg, .png or .pdf file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns: dict[int, list[str]] = {}
    labels: dict[str, tuple[str, str]] = {}
    edges: set[tuple[str, str]] = set()
    _lay_out(ancestry, 0, columns, labels, edges)
    depth = max(columns)
    rows = max(map(len, columns.values()))
    figure = Figure(figsize=(1.0 + 2.0 * (depth + 1), 0.6 + 0.85 * rows))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.6, depth + 0.6)
    axes.set_ylim(-rows / 2 - 0.2, rows / 2 + 0.2)
    places = {
        key: (depth - level, (len(keys) - 1) / 2 - at)
        for level, keys in columns.items()
        for at, key in enumerate(keys)
    }
    for start, end in edges:
        arrow: dict[str, Any] = {"arrowstyle": "-|>", "color": _EDGE, "shrinkA": 34, "shrinkB": 38}
        axes.annotate("", xy=places[end], xytext=places[start], arrowprops=arrow)
    for key, (text, colour) in labels.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": _EDGE}
        axes.text(*places[key], text, ha="center", va="center", fontsize=8, bbox=box)
    figure.savefig(path, dpi=130)


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
