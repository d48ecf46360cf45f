"""``workbench run``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.batch.cli.common import (
    Out,
    Parameters,
    conclude,
    exit_on_error,
    log_to_stderr,
    named_values,
    refuse,
    stop_on_signals,
)

if TYPE_CHECKING:
    from workbench.batch.jobs import Job
    from workbench.batch.presets import RunConfig
    from workbench.batch.run_record import RunRecord

Notebooks = Annotated[list[Path] | None, typer.Argument(metavar="NOTEBOOK...", show_default=False)]
Preset = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of notebooks/presets: smoke, standard, full.")
]
Config = Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="A file of your own.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override what the preset says (Hydra)."),
]
Timeout = Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help="For each run.")]
CellTimeout = Annotated[float | None, typer.Option(min=1, metavar="SECONDS", help="For each cell.")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="For each run, as 4GiB.")]
Jobs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Runs at a time.")]
Kernel = Annotated[
    str | None, typer.Option("--kernel", "-k", metavar="NAME", help="Instead of the notebook's.")
]
Cwd = Annotated[
    str | None, typer.Option(metavar="run|notebook|PATH", help="The working directory.")
]
HashContents = Annotated[bool, typer.Option("--sha256", help="Hash large folders by contents too.")]
Scheduler = Annotated[
    str | None, typer.Option(metavar="tcp://...", help="Run on a dask cluster instead.")
]
Report = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write a report that can be sent there.")
]


def run(
    notebooks: Notebooks = None,
    parameter: Parameters = None,
    every: Annotated[bool, typer.Option("--all", help="Run notebooks/*.ipynb.")] = False,
    preset: Preset = None,
    config: Config = None,
    override: Overrides = None,
    out: Out = Path("runs"),
    timeout: Timeout = None,
    cell_timeout: CellTimeout = None,
    memory: Memory = None,
    kernel: Kernel = None,
    cwd: Cwd = None,
    hash_contents: HashContents = False,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    report: Report = None,
) -> None:
    """Run notebooks, each in a process and a folder of its own, and write an HTML report.

    Several values for a parameter are swept, each combination a run: -p k=[7,30], -p
    seed=range(5), or -p more than once. Notebooks whose parameters are typed literals run in the
    run's folder, others in their own. The exit code is 0 if every run succeeded, 1 if one did
    not, 2 if nothing could be started, 130 after Ctrl-C.
    """
    from workbench.batch.jobs import sweep_jobs

    log_to_stderr()
    stop_on_signals()
    with exit_on_error(out, report):
        settings = _configuration(notebooks or [], preset, config, override or [])
        given = named_values(parameter or [])
        jobs_of = settings.jobs_of if settings else sweep_jobs
        todo = [
            replace(job, **_set({"kernel": kernel, "cwd": cwd}))
            for notebook in _notebooks(notebooks or [], every, settings)
            for job in jobs_of(notebook, given)
        ]
        typed = {"timeout": timeout, "cell_timeout": cell_timeout, "memory": memory}
        limits = (settings.limits.model_dump() if settings else {}) | _set(typed)
        where = {"out": out, "hash_contents": hash_contents, **limits}
        records = _run(todo, scheduler, jobs or (settings.jobs if settings else 1), where)
    conclude(out, records, report)
    raise typer.Exit(any(record.status != "succeeded" for record in records))


def _run(
    todo: "list[Job]", scheduler: str | None, n_jobs: int, where: dict[str, Any]
) -> "list[RunRecord]":
    if scheduler:
        from workbench.batch.cluster import run_on_cluster

        return run_on_cluster(todo, scheduler, **where)
    from workbench.batch.run import run_many

    return run_many(todo, n_jobs=n_jobs, **where)


def _set(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _configuration(
    notebooks: list[Path], preset: str | None, config: Path | None, overrides: list[str]
) -> "RunConfig | None":
    if preset and config:
        refuse("name a preset or a file of your own; a file can build on a preset by `defaults`")
    if not preset and not config:
        if overrides:
            refuse("--set changes what --preset or --config says; a parameter is set by -p")
        return None
    from workbench.batch.presets import compose

    folder = notebooks[0].parent if notebooks else Path("notebooks")
    return compose(config or str(preset), overrides, folder=folder)


def _notebooks(notebooks: list[Path], every: bool, settings: "RunConfig | None") -> list[Path]:
    """Return the notebooks to run: those named, all, or those of the configuration."""
    if every and notebooks:
        refuse("name the notebooks to run, or say --all for notebooks/*.ipynb")
    if every and not (notebooks := sorted(Path("notebooks").glob("*.ipynb"))):
        refuse("--all runs notebooks/*.ipynb, and there are none here")
    if settings and not notebooks:
        notebooks = [settings.path(name) for name in settings.notebooks]
    if not notebooks:
        refuse("name the notebooks to run, or say --all for notebooks/*.ipynb")
    return notebooks
