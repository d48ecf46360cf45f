"""``workbench run``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from workbench.batch.config import RunConfig
    from workbench.batch.jobs import Job
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
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    report: Report = None,
) -> None:
    """Run notebooks, each in a process and a folder of its own, and write an HTML report.

    Several values for a parameter (-p k=7,30 -p seed=range(5)) are swept: each combination is a
    run. The exit code is 0 if every run succeeded, 1 if one did not, 2 if nothing could be
    started, 130 after Ctrl-C.
    """
    log_to_stderr()
    stop_on_signals()
    with Refusing(out, report):
        settings = _configuration(notebooks or [], preset, config, override or [])
        todo = _jobs(notebooks or [], parameter or [], every, settings)
        limits = _limits(settings, timeout, cell_timeout, memory)
        n_jobs = jobs or (settings.jobs if settings else 1)
        records = _run(todo, scheduler, n_jobs, {"out": out, **limits})
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


@dataclass
class Refusing:
    """Turns what keeps runs from starting, or stops them, into words and exit codes."""

    out: Path
    report: Path | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if kind is None or issubclass(kind, typer.Exit):
            return
        from workbench.batch.notebook import JobError
        from workbench.batch.run import Interrupted

        if isinstance(error, JobError):
            refuse(*error.problems)
        if isinstance(error, OSError | MissingExtraError):  # the disk is full, or went away
            refuse(str(error))
        if isinstance(error, KeyboardInterrupt):
            if isinstance(error, Interrupted):
                conclude(self.out, error.records, self.report)
            raise typer.Exit(130) from None


def conclude(out: Path, records: "list[RunRecord]", report: Path | None = None) -> None:
    """Say how each run ended, and write the list of all runs and the report."""
    from workbench.batch.overview import write_index
    from workbench.batch.report import write_report
    from workbench.batch.store import summary_of

    for record in records:
        typer.echo(line(summary_of(record.model_dump(mode="json"))))
    try:
        typer.echo(f"Runs: {write_index(out, {record.id for record in records})}")
        if report and records:
            typer.echo(f"Report: {write_report(records, report)}")
    except OSError as error:
        typer.echo(f"error: the report cannot be written: {error}", err=True)


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


def _jobs(
    notebooks: list[Path], parameters: list[str], every: bool, settings: "RunConfig | None"
) -> "list[Job]":
    """Turn the command line and the configuration into jobs."""
    from workbench.batch.jobs import Job
    from workbench.batch.sweeps import Sweep, combinations

    if every and notebooks:
        refuse("name the notebooks to run, or say --all for notebooks/*.ipynb")
    if every and not (notebooks := sorted(Path("notebooks").glob("*.ipynb"))):
        refuse("--all runs notebooks/*.ipynb, and there are none here")
    if settings and not notebooks:
        notebooks = [settings.path(name) for name in settings.notebooks]
    if not notebooks:
        refuse("name the notebooks to run, or say --all for notebooks/*.ipynb")
    given, jobs = named_values(parameters), []
    for notebook in notebooks:
        swept: dict[str, Any] = {}
        if settings:
            swept = {name: Sweep.of(name, values) for name, values in settings.sweep.items()}
            swept |= settings.parameters_of(notebook)
        jobs += [Job(notebook, chosen) for chosen in combinations({**swept, **given})]
    return jobs


def _limits(
    settings: "RunConfig | None",
    timeout: float | None,
    cell_timeout: float | None,
    memory: str | None,
) -> dict[str, Any]:
    """What each run may take: by the configuration, unless the command line says otherwise."""
    from workbench.batch.limits import parse_size

    typed = {"timeout": timeout, "cell_timeout": cell_timeout, "memory": memory}
    try:
        if memory:
            parse_size(memory)
    except ValueError as error:
        refuse(f"--memory: {error}")
    known = settings.limits.model_dump() if settings else {}
    return known | {name: value for name, value in typed.items() if value is not None}
