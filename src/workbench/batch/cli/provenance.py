"""``workbench compare``.

``workbench lineage``, ``verify``, ``rerun`` and ``export``.

``workbench pipeline``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.batch.cli.common import (
    Out,
    log_to_stderr,
    named_values,
    refuse,
    refusing,
    run_folder,
    stop_on_signals,
)
from workbench.batch.cli.run import Refusing

if TYPE_CHECKING:
    import pandas as pd

    from workbench.batch.run_record import RunRecord


def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", show_default=False)
    ] = None,
    out: Out = Path("runs"),
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="A sweep; by default the latest.")
    ] = None,
    to: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Write it: .csv, .parquet, .html, .png or .svg."),
    ] = None,
    result: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Draw this; by default all numbers.")
    ] = None,
) -> None:
    """Put the recorded results of a sweep, or of named runs, beside one another."""
    from workbench.batch.provenance import compare as comparing

    ids = [run_folder(out, run).name for run in runs] if runs else None
    with refusing():
        table = comparing.compare(out, group=group, ids=ids)
        for path in to or []:
            _write(table, path, result)
    typer.echo(table.reset_index(drop=True).to_string(index=False, na_rep="-"))


def _write(table: "pd.DataFrame", path: Path, results: list[str] | None) -> None:
    """Write a table or its figure, by the file's suffix."""
    from workbench.batch.provenance.compare import draw, page

    match path.suffix:
        case ".csv":
            table.to_csv(path)
        case ".parquet":
            table.to_parquet(path)
        case ".html":
            path.write_text(page(table, results), encoding="utf-8")
        case ".png" | ".svg" | ".pdf":
            draw(table, results).savefig(path, dpi=130)
        case _:
            raise ValueError(f"{path}: known are .csv, .parquet, .html, .png, .svg and .pdf")


Run = Annotated[str, typer.Argument(metavar="RUN", help='An id, its beginning or end, or "last".')]


def lineage(
    run: Run,
    out: Out = Path("runs"),
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it too: .svg, .png or .pdf.")
    ] = None,
) -> None:
    """Show where a run's results came from."""
    from workbench.batch.provenance.lineage import trace

    with refusing():
        found = trace(run_folder(out, run))
        typer.echo(found.text())
        if figure:
            from workbench.batch.provenance.lineage import save_figure

            save_figure(found, figure)


def verify(run: Run, out: Out = Path("runs")) -> None:
    """Hash a run's files anew. The exit code is 0 if all are what they were, 1 if not."""
    from workbench.batch.provenance.lineage import verify as check

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
    from workbench.batch.provenance.compare import rerun as repeat

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
    with Refusing(out):
        from workbench.batch.provenance.pipeline import run_pipeline

        given = _by_stage(parameter or [])
        results = run_pipeline(file, out=out, n_jobs=jobs, force=force or (), parameters=given)
    width = max(len(result.stage) for result in results)
    for result in results:
        typer.echo(f"{result.stage:<{width}}  {result.state:<10}  {result.why}")
    from workbench.batch.report import write_index

    current = {r.record.id for r in results if r.record and r.state != "up to date"}
    typer.echo(f"Runs: {write_index(out, current)}")
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
