"""Options and errors that the commands share."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workbench._extras import MissingExtraError

if TYPE_CHECKING:
    from workbench.batch.run_record import RunRecord

Out = Annotated[Path, typer.Option(help="The folder of runs.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter."),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help='An id, its beginning or end, or "last".')]


def named_values(texts: list[str]) -> dict[str, Any]:
    """Read ``name=value`` texts; a name that comes again is swept over its values.

    The values are still to be read as their parameters' types.
    """
    from workbench.batch.parameters import CommandLine, Sweep

    given: dict[str, list[CommandLine]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            refuse(f"-p takes name=value, got {text!r}")
        given.setdefault(name, []).append(CommandLine(value))
    return {name: Sweep(vs) if len(vs) > 1 else vs[0] for name, vs in given.items()}


def line(run: "RunRecord") -> str:
    """Return a run as a line of a list, with a second one for an error or a note."""
    from workbench._units import show_seconds, show_size

    time, memory = show_seconds(run.seconds), show_size(run.peak_memory_bytes)
    text = f"{run.status:<11} {time:>12} {memory:>10}  {run.notebook}  {run.id}"
    if run.error:
        message = run.error.message.partition("\n")[0]
        at = "" if run.error.cell is None else f" in cells[{run.error.cell}]"
        by = "" if run.error.cause in ("code", "unknown") else f" ({run.error.cause})"
        text += f"\n    {run.error.type}: {message}{at}{by}"
    return text + (f"\n    {run.note}" if run.note else "")


def refuse(*problems: str) -> NoReturn:
    """Say what is wrong and exit with 2."""
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(2)


@contextmanager
def exit_on_error(out: Path | None = None, report: Path | None = None) -> Iterator[None]:
    """Turn what keeps a command from its work, or stops it, into words and an exit code.

    With the folder of runs `out` the runs that were started are listed after an interruption.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if out:
            conclude(out, getattr(stop, "records", []), report)
        raise typer.Exit(130) from None
    except (LookupError, ValueError, OSError, MissingExtraError) as error:
        if out and (records := getattr(error, "records", None)) is not None:
            conclude(out, records, report)
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        refuse(*getattr(error, "problems", [str(error)]))


def conclude(out: Path, records: "list[RunRecord]", report: Path | None = None) -> None:
    """Say how each run ended, and write the list of all runs and the report."""
    for record in records:
        typer.echo(line(record))
    write_pages(out, records, report)


def write_pages(out: Path, records: "list[RunRecord]", report: Path | None = None) -> None:
    """Write the list of all runs, these on top, and the report on these."""
    from workbench.batch.report import write_index, write_report

    try:
        typer.echo(f"Runs: {write_index(out, {record.id for record in records})}")
        if report and records:
            typer.echo(f"Report: {write_report(records, report)}")
    except OSError as error:
        typer.echo(f"error: the report cannot be written: {error}", err=True)


def log_to_stderr() -> None:
    """Show what the runner logs; on a terminal only warnings, for the bars show the rest."""
    level = logging.WARNING if sys.stderr.isatty() else logging.INFO
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("workbench.batch").setLevel(level)


def stop_on_signals() -> None:
    """Let a termination or a closed terminal stop the runs as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, signal.default_int_handler)
