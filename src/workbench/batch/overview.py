"""The HTML list of all runs in a folder."""

from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbench.batch.notebook import write_text
from workbench.batch.pages import render, view
from workbench.batch.run_record import RunRecord
from workbench.batch.store import read_runs, summaries

_MOST = 200


def write_index(out: str | Path = "runs", current: Collection[str] = ()) -> Path:
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
    >>> write_index("runs")                               # doctest: +SKIP
    PosixPath('runs/index.html')
    """
    found = [summary.id for summary in summaries(out)]
    before = [name for name in found if name not in current]
    now, earlier = (
        [_view(record) for record in read_runs(out, ids)]
        for ids in ([name for name in found if name in current], before[:_MOST])
    )
    page = render(
        "index.html.j2",
        groups=[("This invocation", now), ("Earlier runs" if now else "Runs", earlier)],
        left_out=max(0, len(before) - _MOST),
        count=len(found),
    )
    path = Path(out) / "index.html"
    write_text(path, page)
    return path


def _view(record: RunRecord) -> dict[str, Any]:
    stem = Path(record.notebook).stem
    links = {"HTML": f"{stem}.html", "Notebook": f"{stem}.ipynb", "Log": "log.txt"}
    present = {label: name for label, name in links.items() if (record.folder / name).is_file()}
    shown = view(record)
    if claims := shown["claims"]:
        shown["tables"]["claims"] = {"columns": [], "data": [list(item) for item in claims.items()]}
    return {
        **shown,
        "links": {label: quote(f"{record.id}/{name}") for label, name in present.items()},
        "record_address": quote(f"{record.id}/run.json"),
    }
