"""``workbench run``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench._extras import MissingExtraError
from workbench.batch.cli.common import (
    Out,
    Parameters,
    line,
    log_to_stderr,
    named_values,
    refuse,
    stop_on_signals,
)

if TYPE_CHECKING:
    from workbench.batch.record import RunRecord
    from workbench.batch.run import Job


def run(
    notebooks: Annotated[
        list[Path] | None, typer.Argument(metavar="NOTEBOOK...", show_default=False)
    ] = None,
    parameter: Parameters = None,
    every: Annotated[bool, typer.Option("--all", help="Run notebooks/*.ipynb.")] = False,
    out: Out = Path("runs"),
    timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="For each run.")
    ] = None,
    cell_timeout: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="For each cell.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="For each run, as 4GiB.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Runs at a time.")] = 1,
) -> None:
    """Run notebooks, each in a process and a folder of its own, and write an HTML report.

    The exit code is 0 if every run succeeded, 1 if one did not, 2 if nothing could be started,
    130 after Ctrl-C.
    """
    from workbench.batch.notebook import JobError
    from workbench.batch.run import Interrupted, run_many

    log_to_stderr()
    stop_on_signals()
    limits = {"timeout": timeout, "cell_timeout": cell_timeout, "memory": memory}
    try:
        todo = _jobs(notebooks or [], parameter or [], every)
        records = run_many(todo, out=out, n_jobs=jobs, **limits)  # type: ignore[arg-type]
    except JobError as error:
        refuse(*error.problems)
    except (OSError, MissingExtraError) as error:  # OSError: the disk is full, or went away
        refuse(str(error))
    except KeyboardInterrupt as stop:
        if isinstance(stop, Interrupted):
            conclude(out, stop.records)
        raise typer.Exit(130) from None
    conclude(out, records)
    raise typer.Exit(any(record.status != "succeeded" for record in records))


def conclude(out: Path, records: "list[RunRecord]") -> None:
    """Write the report, and say how each run ended."""
    from workbench.batch.report import write_report
    from workbench.batch.store import summary_of

    for record in records:
        typer.echo(line(summary_of(record.model_dump(mode="json"))))
    try:
        typer.echo(f"Report: {write_report(out, {record.id for record in records})}")
    except OSError as error:
        typer.echo(f"error: the report cannot be written: {error}", err=True)


def _jobs(notebooks: list[Path], parameters: list[str], every: bool) -> "list[Job]":
    """Turn the command line into jobs."""
    from workbench.batch.run import Job

    if every == bool(notebooks):
        refuse("name the notebooks to run, or say --all for notebooks/*.ipynb")
    if every and not (notebooks := sorted(Path("notebooks").glob("*.ipynb"))):
        refuse("--all runs notebooks/*.ipynb, and there are none here")
    given = named_values(parameters)
    return [Job(notebook, given) for notebook in notebooks]
