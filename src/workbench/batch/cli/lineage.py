"""``workbench lineage``, ``verify``, ``rerun`` and ``export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.batch.cli.common import (
    Out,
    log_to_stderr,
    refuse,
    refusing,
    run_folder,
    stop_on_signals,
)

if TYPE_CHECKING:
    from workbench.batch.run_record import RunRecord

Run = Annotated[str, typer.Argument(metavar="RUN", help='An id, its beginning or end, or "last".')]


def lineage(
    run: Run,
    out: Out = Path("runs"),
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it too: .svg, .png or .pdf.")
    ] = None,
) -> None:
    """Show where a run's results came from."""
    from workbench.batch.lineage import trace

    with refusing():
        found = trace(run_folder(out, run))
        typer.echo(found.text())
        if figure:
            from workbench.batch.lineage_figure import save_figure

            save_figure(found, figure)


def verify(run: Run, out: Out = Path("runs")) -> None:
    """Hash a run's files anew. The exit code is 0 if all are what they were, 1 if not."""
    from workbench.batch.verification import verify as check

    with refusing():
        checked = check(run_folder(out, run))
    for file in checked:
        typer.echo(f"{file.state:<8} {file.role:<9} {file.path}")
    raise typer.Exit(any(file.state != "same" for file in checked))


def rerun(
    run: Run,
    out: Out = Path("runs"),
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]SHARE", help="Of a result's scale; 0.01 by default."),
    ] = None,
) -> None:
    """Repeat a run and compare what it records. The exit code is 0 if that agrees, 1 if not."""
    from workbench.batch.repetition import rerun as repeat

    log_to_stderr()
    stop_on_signals()
    tolerances = _tolerances(tolerance or [])
    try:
        with refusing():
            before, after = repeat(run_folder(out, run))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(not _agree(before, after, tolerances))


def _agree(before: "RunRecord", after: "RunRecord", tolerances: dict[str, float]) -> bool:
    """Say in what a repetition differs, and return whether it does not."""
    from workbench.batch.repetition import TOLERANCE, differences, results_of

    if before.notebook_sha256 != after.notebook_sha256:
        typer.echo("note: the notebook has changed since")
    if before.packages != after.packages:
        typer.echo("note: the installed packages have changed since")
    old, new = results_of(before), results_of(after)
    found = differences(old, new, tolerances.pop("", TOLERANCE), tolerances)
    for result in found:
        typer.echo(f"differs  {result.name}: {result.before!r} before, {result.after!r} now")
    agrees = before.status == after.status and not found
    verdict = "agrees" if agrees else "does not agree"
    typer.echo(f"{after.id} {verdict} with {before.id}: {before.status}, now {after.status}")
    return agrees


def export(
    run: Run,
    to: Annotated[Path, typer.Argument(metavar="TO", help="A new folder, or FILE.zip.")],
    out: Out = Path("runs"),
    inputs: Annotated[bool, typer.Option(help="Copy the files that the run read.")] = True,
) -> None:
    """Write a run as an RO-Crate (Process Run profile)."""
    from workbench.batch.crate import export_crate

    with refusing():
        typer.echo(export_crate(run_folder(out, run), to, copy_inputs=inputs))


def _tolerances(texts: list[str]) -> dict[str, float]:
    """Read ``0.05`` and ``name=0.05``; the one for all has the empty name."""
    found = {}
    for text in texts:
        name, _, share = text.rpartition("=")
        try:
            found[name] = float(share)
        except ValueError:
            refuse(f"--tolerance takes a number or name=number, got {text!r}")
    return found
