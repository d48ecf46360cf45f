"""A picture of where a run's results came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.batch.lineage import Ancestry
from workbench.batch.words import duration

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
