"""The HTML index of a folder of runs."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbench._extras import need
from workbench.batch.memory import draw
from workbench.batch.notebook import write_text
from workbench.batch.record import RunRecord
from workbench.batch.store import read_runs, summaries
from workbench.batch.words import duration, megabytes

_MOST = 200
_STAND_IN = "stand_in_for"
# run.json has all; these say most about why a result differs from another
_TELLING = ("workbench", "numpy", "pandas", "xarray", "scikit-learn", "umap-learn", "torch")


def write_report(out: str | Path = "runs", current: Collection[str] = ()) -> Path:
    """Write ``index.html`` into a folder of runs and return its path.

    The page stands alone, loads nothing, and links to the runs' notebooks and logs by relative
    addresses, so the folder can be moved or served as it is. It shows the latest 200 runs.

    Parameters
    ----------
    out
        The folder of runs.
    current
        Ids of the runs to put on top.

    Raises
    ------
    OSError
        The folder cannot be written.

    Examples
    --------
    >>> write_report("runs")                              # doctest: +SKIP
    PosixPath('runs/index.html')
    """
    jinja2 = need("jinja2", extra="batch")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("workbench.batch", package_path="."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "megabytes": megabytes, "plain": _plain}
    found = [summary.id for summary in summaries(out)]
    before = [name for name in found if name not in current]
    now, earlier = (
        [_view(record) for record in read_runs(out, ids)]
        for ids in ([name for name in found if name in current], before[:_MOST])
    )
    page = environment.get_template("report.html.j2").render(
        groups=[("This invocation", now), ("Earlier runs" if now else "Runs", earlier)],
        left_out=max(0, len(before) - _MOST),
        count=len(found),
    )
    path = Path(out) / "index.html"
    write_text(path, page)
    return path


def _view(record: RunRecord) -> dict[str, Any]:
    """What the template shows of a run."""
    results = _results(record)
    stem = Path(record.notebook).stem
    links = {"HTML": f"{stem}.html", "Notebook": f"{stem}.ipynb", "Log": "log.txt"}
    present = {label: name for label, name in links.items() if (record.folder / name).is_file()}
    return {
        "record": record,
        "memory": draw(record.memory.samples, record.memory.limit_bytes)
        if len(record.memory.samples) > 1
        else None,
        "links": {label: quote(f"{record.id}/{name}") for label, name in present.items()},
        "record_address": quote(f"{record.id}/run.json"),
        "stand_in": next((v for k, v in results.items() if k.endswith(_STAND_IN) and v), None),
        "scalars": {
            k: v for k, v in results.items() if not (k.endswith(_STAND_IN) or isinstance(v, dict))
        },
        "versions": {k: record.packages[k] for k in _TELLING if k in record.packages},
        "tables": {k: _table(v) for k, v in results.items() if isinstance(v, dict)},
    }


def _results(record: RunRecord) -> dict[str, Any]:
    try:
        return dict(json.loads((record.folder / "results.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def _table(value: dict[str, Any]) -> dict[str, list[Any]]:
    """A recorded table as it is, any other mapping as two columns."""
    if value.keys() == {"columns", "data"}:
        return value
    return {"columns": [], "data": [list(item) for item in value.items()]}


def _plain(value: Any) -> str:
    """Return a parameter or a result as text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return json.dumps(value, ensure_ascii=False)
