"""``workbench runs``."""

import fnmatch
import re
import statistics
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.batch.cli.common import Out, line, refuse, run_folder

if TYPE_CHECKING:
    from workbench.batch.store import Summary

_AGES = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Show this run's record.")]
Notebook = Annotated[str | None, typer.Option(metavar="GLOB", help="Those of these notebooks.")]
Status = Annotated[str | None, typer.Option(metavar="STATUS", help="Those that ended so.")]
Newer = Annotated[
    str | None, typer.Option(metavar="AGE", help="Those of the last 30m, 12h, 7d or 2w.")
]
Older = Annotated[str | None, typer.Option(metavar="AGE", help="Those before.")]


def runs(
    run: Run = None,
    out: Out = Path("runs"),
    notebook: Notebook = None,
    status: Status = None,
    newer: Newer = None,
    older: Older = None,
    memory: Annotated[bool, typer.Option("--memory", help="Their peaks by notebook.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove those listed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before.")] = False,
) -> None:
    """List the runs in a folder, newest first; show one; remove old ones.

    A run is named by its id, or by the beginning or end of it; "last" is the newest.
    """
    from workbench.batch.store import summaries

    if run is not None:
        typer.echo((run_folder(out, run) / "run.json").read_text(encoding="utf-8"), nl=False)
        return
    since, until = (age and (datetime.now(UTC) - _age(age)) for age in (newer, older))
    found = [s for s in summaries(out) if _matches(s, notebook, status)]
    found = [s for s in found if (not since or s.when >= since) and (not until or s.when < until)]
    typer.echo(_list(out, found, memory))
    if prune and found:
        _prune(out, found, yes)


def _list(out: Path, found: "list[Summary]", memory: bool) -> str:
    if not found:
        return f"No runs in {out}" if out.is_dir() else f"There is no folder {out}"
    if memory:
        return _peaks(found)
    return "\n".join(f"{s.started[:16].replace('T', ' ')}  {line(s)}" for s in found)


def _matches(run: "Summary", notebook: str | None, status: str | None) -> bool:
    names = (run.notebook, Path(run.notebook).name, Path(run.notebook).stem)
    return (not status or run.status == status) and (
        not notebook or any(fnmatch.fnmatch(name, notebook) for name in names)
    )


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([mhdw])", text)
    if not match:
        refuse(f"an age is a number with m, h, d or w, as 7d; got {text!r}")
    return timedelta(**{_AGES[match[2]]: int(match[1])})


def _peaks(found: "list[Summary]") -> str:
    """The table of memory peaks by notebook, the hungriest first."""
    from workbench.batch.words import megabytes

    by_notebook = defaultdict(list)
    for run in found:
        if run.peak_memory_bytes:
            by_notebook[run.notebook].append(run)
    rows = []
    for name, its_runs in by_notebook.items():
        peaks = [run.peak_memory_bytes or 0 for run in its_runs]
        top = max(its_runs, key=lambda run: run.peak_memory_bytes or 0)
        hits = sum(run.cause in ("memory limit", "out-of-memory killer") for run in its_runs)
        cell = "-" if top.peak_cell is None else f"cells[{top.peak_cell}]"
        rows.append((max(peaks), statistics.median(peaks), len(peaks), hits, cell, name))
    head = f"{'highest':>10} {'median':>10} {'runs':>6} {'ended by it':>12}  {'at':<10} notebook"
    lines = [
        f"{megabytes(high):>10} {megabytes(round(mid)):>10} {n:>6} {hits:>12}  {cell:<10} {name}"
        for high, mid, n, hits, cell, name in sorted(rows, reverse=True)
    ]
    return "\n".join([head, *lines])


def _prune(out: Path, found: "list[Summary]", yes: bool) -> None:
    """Remove runs, but never one that still runs."""
    from workbench.batch.store import prune
    from workbench.batch.words import megabytes

    ended = [run.id for run in found if run.status != "running"]
    if not ended:
        refuse("these runs are still running")
    if not yes and not typer.confirm(f"Remove the folders of {len(ended)} runs for good?"):
        raise typer.Exit(1)
    count = f"{len(ended)} run{'' if len(ended) == 1 else 's'}"
    typer.echo(f"Removed {count}, {megabytes(prune(out, ended))}")
