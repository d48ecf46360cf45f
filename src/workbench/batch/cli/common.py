"""What the commands share."""

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
    from workbench.batch.runs import Summary

Out = Annotated[Path, typer.Option(help="The folder of runs.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter."),
]


def named_values(texts: list[str]) -> dict[str, Any]:
    """Read ``name=value`` texts; the values are still to be read as their parameters' types."""
    from workbench.batch.jobs import read_values

    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            refuse(f"-p takes name=value, got {text!r}")
        if name in given:
            refuse(f"parameter {name!r} is set twice")
        given[name] = read_values(value)
    return given


def run_folder(out: Path, name: str) -> Path:
    """Return the folder of a run that the user named."""
    from workbench.batch.runs import find_run

    try:
        return find_run(out, name)
    except LookupError as error:
        refuse(str(error))


def line(run: "Summary") -> str:
    """Return a run as a line of a list, with a second one for an error."""
    from workbench._units import duration, megabytes

    time, memory = duration(run.seconds), megabytes(run.peak_memory_bytes)
    text = f"{run.status:<11} {time:>12} {memory:>10}  {run.notebook}  {run.id}"
    if run.error:
        at = "" if run.cell is None else f" in cells[{run.cell}]"
        by = f" ({run.cause})" if run.cause and run.cause not in ("code", "unknown") else ""
        text += f"\n    {run.error}{at}{by}"
    return text


def refuse(*problems: str) -> NoReturn:
    """Say what is wrong and exit with 2."""
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(2)


@contextmanager
def refusing() -> Iterator[None]:
    """Turn errors that the user can do something about into words."""
    try:
        yield
    except (LookupError, ValueError, OSError, MissingExtraError) as error:
        refuse(*getattr(error, "problems", [str(error)]))


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
