"""The recorded results of runs beside one another: a table, and small multiples over a sweep.

Repeat a run, and compare what it recorded with what it had recorded before.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from workbench.batch.jobs import Job
from workbench.batch.run import run_many
from workbench.batch.run_record import RunRecord
from workbench.batch.runs import find_run, leaves, read_runs, results_of, summaries

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from workbench.batch.run_record import RunRecord

TOLERANCE = 0.01


@dataclass(frozen=True)
class Difference:
    """A result that the repetition does not confirm; None where one of the runs lacks it."""

    name: str
    before: Any
    after: Any


def rerun(run: str | Path, out: str | Path = "runs") -> tuple[RunRecord, RunRecord]:
    """Repeat a run with its notebook as it is now, its parameters and its limits.

    Returns
    -------
    before, after
        The two records; the second names the first as its parent.

    Raises
    ------
    LookupError
        There is no such run.
    JobError
        The notebook no longer takes these parameters, or is gone.
    """
    before = RunRecord.load(find_run(out, str(run)))
    parameters = json.loads((before.folder / "run.json").read_bytes())["parameters"]
    job = Job(before.notebook, parameters, parent=before.id)
    (after,) = run_many([job], out=before.folder.parent, **_limits(before))
    return before, after


def _limits(record: RunRecord) -> dict[str, Any]:
    """Return what a run might take, as its configuration says; of an older run its memory."""
    try:
        content = yaml.safe_load((record.folder / "config.yaml").read_text(encoding="utf-8"))
        return dict(content["limits"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
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

    Parameters
    ----------
    before, after
        What the two runs recorded.
    tolerance
        For all results.
    tolerances
        For some, by name, such as ``"quality.recall"``; 0 for the very same.

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


_MOST_LINES = 8


def compare(
    out: str | Path = "runs", *, group: str | None = None, ids: Iterable[str] | None = None
) -> "pd.DataFrame":
    """Return a table with a row for each run: what differed between them, and what came out.

    Parameters
    ----------
    out
        The folder of runs.
    group
        The runs that were started together; by default the latest group.
    ids
        These runs instead.

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
        sweeps = (s.group for s in summaries(out) if s.group and "/" not in s.group)
        group = group or next(sweeps, None)  # a pipeline's stage has a slash in its group
        ids = [s.id for s in summaries(out) if group and s.group == group]
    records = read_runs(out, ids)[::-1]
    if not records:
        raise LookupError(f"no group of runs in {out}" + (f" is called {group}" if group else ""))
    swept = _differing(records)
    rows = [_row(record, swept) for record in records]
    table = pd.DataFrame(rows, index=pd.Index([r.id for r in records], name="run"))
    table = table.sort_values(swept, kind="stable") if _sortable(table, swept) else table
    table.attrs["swept"] = swept
    return table


def draw(table: "pd.DataFrame", results: Sequence[str] | None = None) -> "Figure":
    """Return small multiples: a panel for each result, over the first swept parameter.

    Each other swept parameter makes a line of its own for each of its values; the dots are runs,
    the line goes through their means.

    Parameters
    ----------
    table
        As `compare` returns it.
    results
        Which columns to draw; by default each recorded number that is not the same everywhere.

    Raises
    ------
    ValueError
        No recorded number differs between the runs, or one that is asked for is not there.
    """
    swept = list(table.attrs["swept"])
    known = [*swept, "status", "seconds", "peak_memory_bytes"]
    numbers = table.drop(columns=known).select_dtypes("number")
    names: list[Any] = list(results or [n for n in numbers if numbers[n].nunique() > 1][:12])
    if unknown := [name for name in names if name not in numbers]:
        there = ", ".join(map(str, numbers)) or "none"
        raise ValueError(f"{unknown[0]!r} is no recorded number; there are {there}")
    if not names or not swept:
        raise ValueError("nothing to draw: no recorded number differs between these runs")
    figure, panels = _grid(len(names))
    for panel, name in zip(panels, names, strict=False):
        _panel(panel, table, name, swept)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(labels) > 1:
        title = ", ".join(swept[1:])
        figure.legend(handles, labels, title=title, loc="outside right upper", frameon=False)
    figure.supxlabel(f"{swept[0]}   (n = {len(table)} runs)", fontsize=10)
    return figure


def _grid(count: int) -> "tuple[Figure, Any]":
    """Return a figure of so many panels, three in a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns, 2.7 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels


def page(table: "pd.DataFrame", results: Sequence[str] | None = None) -> str:
    """Return the table and, where there is something to draw, the figure as one HTML page."""
    picture = io.StringIO()
    with suppress(ValueError):  # nothing to draw: the table says what there is
        draw(table, results).savefig(picture, format="svg")
    title = "Runs over " + (", ".join(table.attrs["swept"]) or "nothing that differs")
    drawn = picture.getvalue()
    return (
        f"<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;"
        "padding:0 1rem}table{border-collapse:collapse;font-size:.85rem}"
        "td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:right}"
        f"svg{{max-width:100%;height:auto}}</style><h1>{escape(title)}</h1>"
        f"{drawn[drawn.find('<svg') :] if drawn else ''}"
        f"{table.to_html(border=0, na_rep='-')}</html>\n"
    )


def _panel(panel: Any, table: "pd.DataFrame", name: str, swept: list[str]) -> None:
    first, *others = swept
    if table[first].dtype.kind not in "if":
        table = table.assign(**{first: table[first].astype(str)})
    lines: list[tuple[Any, Any]] = list(table.groupby(others)) if others else []
    if not 0 < len(lines) <= _MOST_LINES:  # too many for a legend: one line through all
        lines = [("", table)]
    for key, part in lines:
        means = part.groupby(first, sort=False)[name].mean()
        label = ", ".join(str(v) for v in key) if isinstance(key, tuple) else str(key)
        (line,) = panel.plot(means.index, means.values, label=label)
        panel.plot(part[first], part[name], "o", color=line.get_color(), markersize=4)
    panel.set_title(name, fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)


def _row(record: "RunRecord", swept: list[str]) -> dict[str, Any]:
    values = {name: _cell(record.parameters.get(name)) for name in swept}
    ended = {"status": record.status, "seconds": record.seconds}
    results = {
        name: value
        for key, result in results_of(record).items()
        if not (isinstance(result, list) or _is_table(result))
        for name, value in leaves(result, key)
    }
    return {**values, **ended, "peak_memory_bytes": record.peak_memory_bytes, **results}


def _differing(records: "Sequence[RunRecord]") -> list[str]:
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
