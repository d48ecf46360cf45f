"""``workbench runs``: list, show and remove."""

import fnmatch
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.batch.cli.common import Out, exit_on_error, line, refuse

if TYPE_CHECKING:
    from workbench.batch.run_record import RunRecord

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
    prune: Annotated[bool, typer.Option("--prune", help="Remove those listed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also those that seem to run.")] = False,
) -> None:
    """List the runs in a folder, newest first; show one; remove old ones.

    A run is named by its id, or by the beginning or end of it; "last" is the newest.
    """
    from workbench.batch.run_record import RunRecord
    from workbench.batch.runs import find_run, read_runs

    with exit_on_error():
        if run is not None:
            typer.echo(RunRecord.load(find_run(out, run)).model_dump_json(indent=1))
            return
        since, until = (age and (datetime.now(UTC) - _age(age)) for age in (newer, older))
        found = [record for record in read_runs(out) if _matches(record, notebook, status)]
        found = [r for r in found if not since or r.started >= since]
        found = [r for r in found if not until or r.started < until]
        typer.echo(_list(out, found))
        if prune and found:
            _prune(out, found, yes, force)


def _list(out: Path, found: "list[RunRecord]") -> str:
    if not found:
        return f"No runs in {out}" if out.is_dir() else f"There is no folder {out}"
    return "\n".join(f"{record.started:%Y-%m-%d %H:%M}  {line(record)}" for record in found)


def _matches(record: "RunRecord", notebook: str | None, status: str | None) -> bool:
    path = Path(record.notebook)
    return (not status or record.status == status) and (
        not notebook
        or any(fnmatch.fnmatch(name, notebook) for name in (str(path), path.name, path.stem))
    )


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if not match:
        refuse(f"an age is a number with m, h, d or w, as 7d; got {text!r}")
    return timedelta(**{_AGES[match[2]]: int(match[1])})


def _prune(out: Path, found: "list[RunRecord]", yes: bool, force: bool) -> None:
    """Remove runs by their folders' names, but none that still runs unless that is asked for."""
    from workbench._units import show_size
    from workbench.batch.runs import prune

    names = [record.folder.name for record in found if force or record.status != "running"]
    if not names:
        refuse("these runs are still running; --force removes them all the same")
    count = f"{len(names)} run{'' if len(names) == 1 else 's'}"
    if not yes and not typer.confirm(f"Remove the folders of {count} in {out} for good?"):
        raise typer.Exit(1)
    typer.echo(f"Removed {count}, {show_size(prune(out, names))}")
