"""``workbench pipeline``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.batch.cli.common import (
    Out,
    log_to_stderr,
    named_values,
    refuse,
    stop_on_signals,
)
from workbench.batch.cli.run import Refusing


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
        from workbench.batch.pipeline import run_pipeline

        given = _by_stage(parameter or [])
        results = run_pipeline(file, out=out, n_jobs=jobs, force=force or (), parameters=given)
    width = max(len(result.stage) for result in results)
    for result in results:
        typer.echo(f"{result.stage:<{width}}  {result.state:<10}  {result.why}")
    from workbench.batch.overview import write_index

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
