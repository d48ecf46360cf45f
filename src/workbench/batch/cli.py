"""The command ``workbench``."""

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workbench._extras import MissingExtraError

if TYPE_CHECKING:
    from workbench.batch.run import Job
    from workbench.batch.store import RunRecord

app = typer.Typer(
    help="Run notebooks unattended and look at what came out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich alone would double the time of --help
    pretty_exceptions_enable=False,
)
Out = Annotated[Path, typer.Option(help="The folder of runs.")]


@app.command()
def run(
    notebooks: Annotated[
        list[Path] | None, typer.Argument(metavar="NOTEBOOK...", show_default=False)
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Run notebooks/*.ipynb.")] = False,
    out: Out = Path("runs"),
    timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="For each run.")
    ] = None,
    cell_timeout: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="For each cell.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Runs at a time.")] = 1,
) -> None:
    """Run notebooks, each in a process and a folder of its own, and write an HTML report.

    The exit code is 0 if every run succeeded, 1 if one did not, 2 if nothing could be started,
    130 after Ctrl-C.
    """
    from workbench.batch.notebook import JobError
    from workbench.batch.run import Interrupted, run_many

    _log_to_stderr()
    _stop_on_signals()
    try:
        todo = _jobs(notebooks or [], parameter or [], every)
        records = run_many(todo, out=out, n_jobs=jobs, timeout=timeout, cell_timeout=cell_timeout)
    except JobError as error:
        _refuse(*error.problems)
    except (OSError, MissingExtraError) as error:  # OSError: the disk is full, or went away
        _refuse(str(error))
    except KeyboardInterrupt as stop:
        if isinstance(stop, Interrupted):
            _conclude(out, stop.records)
        raise typer.Exit(130) from None
    _conclude(out, records)
    raise typer.Exit(any(record.status != "succeeded" for record in records))


@app.command()
def runs(out: Out = Path("runs")) -> None:
    """List the runs in a folder, newest first."""
    from workbench.batch.store import read_runs

    found = read_runs(out)
    if not found:
        typer.echo(f"No runs in {out}")
    for record in found:
        typer.echo(f"{record.started:%Y-%m-%d %H:%M}  {_line(record)}")


def main() -> None:
    """Run the command."""
    app()


def _jobs(notebooks: list[Path], parameters: list[str], every: bool) -> "list[Job]":
    """Turn the command line into jobs."""
    from workbench.batch.parameters import CommandLine
    from workbench.batch.run import Job

    if every == bool(notebooks):
        _refuse("name the notebooks to run, or say --all for notebooks/*.ipynb")
    if every and not (notebooks := sorted(Path("notebooks").glob("*.ipynb"))):
        _refuse("--all runs notebooks/*.ipynb, and there are none here")
    given: dict[str, Any] = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals:
            _refuse(f"-p takes name=value, got {text!r}")
        if name in given:
            _refuse(f"parameter {name!r} is set twice")
        given[name] = CommandLine(value)
    return [Job(notebook, given) for notebook in notebooks]


def _conclude(out: Path, records: "list[RunRecord]") -> None:
    """Write the report, and say how each run ended."""
    from workbench.batch.report import write_report

    for record in records:
        typer.echo(_line(record))
    try:
        typer.echo(f"Report: {write_report(out, {record.id for record in records})}")
    except OSError as error:
        typer.echo(f"error: the report cannot be written: {error}", err=True)


def _line(record: "RunRecord") -> str:
    from workbench.batch.report import duration, megabytes

    time, memory = duration(record.seconds), megabytes(record.peak_memory_bytes)
    line = f"{record.status:<11} {time:>12} {memory:>10}  {record.notebook}  {record.id}"
    if record.error:
        at = "" if record.error.cell is None else f" in cells[{record.error.cell}]"
        reason = f"{record.error.type}: {record.error.message}".partition("\n")[0]
        line += f"\n    {reason}{at}"
    return line


def _refuse(*problems: str) -> NoReturn:
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(2)


def _log_to_stderr() -> None:
    level = logging.WARNING if sys.stderr.isatty() else logging.INFO  # a terminal has the bars
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("workbench.batch").setLevel(level)


def _stop_on_signals() -> None:
    """Let a termination or a closed terminal stop the runs as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, signal.default_int_handler)
