"""The report of runs: one page that can be sent to somebody who was not there."""

import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbench.batch.claims import BROKEN
from workbench.batch.notebook import write_text
from workbench.batch.pages import plain, render, versions, view
from workbench.batch.run_record import RunRecord
from workbench.batch.story import Story


def write_report(records: Sequence[RunRecord], to: str | Path = "report") -> Path:
    """Write ``index.html`` about runs into a folder, and return its path.

    The page loads nothing: what ran, on which data, main figures, results, times and memory, and
    how to repeat it. Beside it lie the notebooks' own pages, to which it links, so that the folder
    can be sent or served as it is.

    Parameters
    ----------
    records
        The runs, in the order in which they are shown.
    to
        The folder; pages of an earlier report in it are replaced.

    Raises
    ------
    ValueError
        There are no runs.
    OSError
        The folder cannot be written.

    Examples
    --------
    >>> write_report(run_many(jobs))                      # doctest: +SKIP
    PosixPath('report/index.html')
    """
    if not records:
        raise ValueError("a report is about runs, and there are none")
    to = Path(to)
    to.mkdir(parents=True, exist_ok=True)
    runs = [_view(record, page) for record, page in zip(records, _pages(records, to), strict=True)]
    write_text(to / "index.html", render("report.html.j2", runs=runs, **_summary(records, runs)))
    return to / "index.html"


def _pages(records: Sequence[RunRecord], to: Path) -> list[str | None]:
    """Copy the notebooks' pages; a notebook that ran more than once gets the run's id."""
    stems = Counter(Path(record.notebook).stem for record in records)
    pages: list[str | None] = []
    for record in records:
        stem = Path(record.notebook).stem
        page = record.folder / f"{stem}.html"
        name = page.name if stems[stem] == 1 else f"{record.id}.html"
        pages.append(name if page.is_file() else None)
        if page.is_file():
            shutil.copyfile(page, to / name)
    return pages


def _view(record: RunRecord, page: str | None) -> dict[str, Any]:
    shown, story = view(record), Story.of(record)
    scalars = shown["scalars"]
    named = [scalars.pop(key, None) for key in ("name", "source")]
    data = ", ".join(filter(None, named)) or str(record.parameters.get("data") or "")
    return {
        **shown,
        "title": story.title,
        "question": story.question,
        "figures": story.figures,
        "data": data or "the notebook's own data",
        "broken": sum(verdict == BROKEN for verdict in shown["claims"].values()),
        "page": page and quote(page),
        "command": _command(record),
    }


def _command(record: RunRecord) -> str:
    """Return the command that repeats a run."""
    values = (f"{name}={_typed(value)}" for name, value in record.given.items())
    words = ["workbench", "run", record.notebook]
    return shlex.join([*words, *(word for value in values for word in ("-p", value))])


def _typed(value: Any) -> str:
    """Return a value as ``-p`` reads it, which takes commas for a sweep."""
    text = value if isinstance(value, str) else repr(value)
    return repr(text) if isinstance(value, str) and "," in text else text


def _summary(records: Sequence[RunRecord], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the report says of all runs together."""
    states = Counter(record.status for record in records)
    machines = {(r.python, r.platform, r.cpu_count): r for r in records}
    stand_ins = {plain(run["stand_in"]) for run in runs if run["stand_in"]}
    names = versions(records[0]).items()
    many = len(records) > 1
    return {
        "title": f"Report on {len(records)} notebook runs" if many else runs[0]["title"],
        "started": min(record.started for record in records),
        "counts": ", ".join(f"{count} {status}" for status, count in states.most_common()),
        "seconds": sum(record.seconds or 0 for record in records),
        "peak": max(record.peak_memory_bytes or 0 for record in records),
        "stand_ins": sorted(stand_ins),
        "commit": records[0].git,
        "machines": list(machines.values()),
        "versions": ", ".join(f"{name} {version}" for name, version in names),
    }
