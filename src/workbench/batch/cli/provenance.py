"""``workbench compare``, ``lineage``, ``verify``, ``rerun`` and ``pipeline``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.batch.cli.common import (
    Out,
    Parameters,
    Run,
    exit_on_error,
    log_to_stderr,
    named_values,
    refuse,
    stop_on_signals,
    write_pages,
)

if TYPE_CHECKING:
    from workbench.batch.run_record import RunRecord


def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", show_default=False)
    ] = None,
    out: Out = Path("runs"),
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="A sweep; by default the latest.")
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write it.")] = None,
) -> None:
    """Put the recorded results of a sweep, or of named runs, beside one another."""
    from workbench.batch.provenance.compare import compare as table_of
    from workbench.batch.provenance.compare import write_table
    from workbench.batch.runs import find_run

    with exit_on_error():
        ids = [find_run(out, run).name for run in runs] if runs else None
        table = table_of(out, group=group, ids=ids)
        if to:
            write_table(table, to)
        typer.echo(table.reset_index(drop=True).to_string(index=False, na_rep="-"))


def lineage(run: Run, out: Out = Path("runs")) -> None:
    """Show where a run's results came from."""
    from workbench.batch.provenance.lineage import trace

    with exit_on_error():
        typer.echo(trace(run, out).text())


def verify(run: Run, out: Out = Path("runs")) -> None:
    """Hash a run's files anew. The exit code is 0 if all are what they were, 1 if not."""
    from workbench.batch.provenance.lineage import verify as checks_of

    with exit_on_error():
        checked = checks_of(run, out)
    for file in checked:
        typer.echo(f"{file.state:<8} {file.role:<9} {file.path}")
    raise typer.Exit(any(file.state != "same" for file in checked))


def rerun(
    run: Run,
    out: Out = Path("runs"),
    parameter: Parameters = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]SHARE", help="Of a result's scale; 0.01 by default."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Run the notebook even if it has changed since.")
    ] = False,
) -> None:
    """Repeat a run and compare what it records. The exit code is 0 if that agrees, 1 if not.

    A secret, which no record keeps, is given anew by -p.
    """
    from workbench.batch.provenance.compare import changed_notebook
    from workbench.batch.provenance.compare import rerun as repeat
    from workbench.batch.runs import find_run

    log_to_stderr()
    stop_on_signals()
    tolerances = _tolerances(tolerance or [])
    with exit_on_error(out):
        folder = find_run(out, run)
        if (changed := changed_notebook(folder)) and not yes:
            typer.confirm(f"{changed}: run it all the same?", abort=True)
        before, after = repeat(folder, parameters=named_values(parameter or []))
    raise typer.Exit(not _agree(before, after, tolerances))


def _agree(before: "RunRecord", after: "RunRecord", tolerances: dict[str, float]) -> bool:
    """Say in what a repetition differs, and return whether it does not."""
    from workbench.batch.provenance.compare import TOLERANCE, differences
    from workbench.batch.runs import results_of

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


def pipeline(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="STAGE.NAME=VALUE", help="Set a parameter."),
    ] = None,
    out: Out = Path("runs"),
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Stages at a time.")] = 1,
    force: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Run it even if it is up to date.")
    ] = None,
) -> None:
    """Run the stages of a pipeline that are not up to date, and say why each ran or not.

    The exit code is 0 if all stages are up to date now, 1 if one failed or a gate was closed.
    """
    log_to_stderr()
    stop_on_signals()
    from workbench.batch.provenance.pipeline import run_pipeline

    with exit_on_error(out):
        given = _by_stage(parameter or [])
        results = run_pipeline(file, out=out, n_jobs=jobs, force=force or (), parameters=given)
    width = max(len(result.stage) for result in results)
    for result in results:
        typer.echo(f"{result.stage:<{width}}  {result.state:<10}  {result.why}")
    write_pages(out, [r.record for r in results if r.record and r.state != "up to date"])
    raise typer.Exit(any(r.state not in ("ran", "up to date") for r in results))


def _by_stage(texts: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in named_values(texts).items():
        stage, dot, parameter = name.partition(".")
        if not dot:
            refuse(f"-p takes stage.name=value here, got {name!r}")
        if isinstance(value, tuple):
            refuse(f"a pipeline is not swept: {name} takes one value, got {len(value)}")
        found.setdefault(stage, {})[parameter] = value
    return found
