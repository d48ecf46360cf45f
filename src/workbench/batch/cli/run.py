"""``workbench run``.

``workbench new``.

``workbench runs``.

``workbench schema``.
"""

import fnmatch
import json
import re
import statistics
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
    run_folder,
    stop_on_signals,
)

if TYPE_CHECKING:
    from workbench.batch.jobs import Job
    from workbench.batch.presets import RunConfig
    from workbench.batch.run_record import RunRecord
    from workbench.batch.runs import Summary

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
    from workbench.batch.report import write_index, write_report
    from workbench.batch.runs import summary_of

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
    from workbench.batch.jobs import Job, Sweep, combinations

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
    from workbench._units import parse_size

    typed = {"timeout": timeout, "cell_timeout": cell_timeout, "memory": memory}
    try:
        if memory:
            parse_size(memory)
    except ValueError as error:
        refuse(f"--memory: {error}")
    known = settings.limits.model_dump() if settings else {}
    return known | {name: value for name, value in typed.items() if value is not None}


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as 07_my_question.")],
    title: Annotated[
        str | None, typer.Option(metavar="QUESTION?", help="By default the words of its name.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the notebooks are.")] = Path("notebooks"),
) -> None:
    """Write a notebook to begin with: it keeps the contract and runs as it stands."""
    from workbench.batch.new import new_notebook
    from workbench.batch.notebook import JobError

    try:
        path = new_notebook(name, title, folder)
    except JobError as error:
        refuse(*error.problems)
    typer.echo(f"{path}\nRun it with: workbench run {path}")


_AGES = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Show this run's record.")]
Notebook = Annotated[str | None, typer.Option(metavar="GLOB", help="Those of these notebooks.")]
Status = Annotated[str | None, typer.Option(metavar="STATUS", help="Those that ended so.")]
Newer = Annotated[
    str | None, typer.Option(metavar="AGE", help="Those of the last 30m, 12h, 7d or 2w.")
]
Older = Annotated[str | None, typer.Option(metavar="AGE", help="Those before.")]


def runs(
    run: Run = None,
    out: Out = Path("runs"),
    notebook: Notebook = None,
    status: Status = None,
    newer: Newer = None,
    older: Older = None,
    memory: Annotated[bool, typer.Option("--memory", help="Their peaks by notebook.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove those listed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before.")] = False,
) -> None:
    """List the runs in a folder, newest first; show one; remove old ones.

    A run is named by its id, or by the beginning or end of it; "last" is the newest.
    """
    from workbench.batch.runs import summaries

    if run is not None:
        typer.echo((run_folder(out, run) / "run.json").read_text(encoding="utf-8"), nl=False)
        return
    since, until = (age and (datetime.now(UTC) - _age(age)) for age in (newer, older))
    found = [s for s in summaries(out) if _matches(s, notebook, status)]
    found = [s for s in found if (not since or s.when >= since) and (not until or s.when < until)]
    typer.echo(_list(out, found, memory))
    if prune and found:
        _prune(out, found, yes)


def _list(out: Path, found: "list[Summary]", memory: bool) -> str:
    if not found:
        return f"No runs in {out}" if out.is_dir() else f"There is no folder {out}"
    if memory:
        return _peaks(found)
    return "\n".join(f"{s.started[:16].replace('T', ' ')}  {line(s)}" for s in found)


def _matches(run: "Summary", notebook: str | None, status: str | None) -> bool:
    names = (run.notebook, Path(run.notebook).name, Path(run.notebook).stem)
    return (not status or run.status == status) and (
        not notebook or any(fnmatch.fnmatch(name, notebook) for name in names)
    )


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([mhdw])", text)
    if not match:
        refuse(f"an age is a number with m, h, d or w, as 7d; got {text!r}")
    return timedelta(**{_AGES[match[2]]: int(match[1])})


def _peaks(found: "list[Summary]") -> str:
    """The table of memory peaks by notebook, the hungriest first."""
    from workbench._units import megabytes

    by_notebook = defaultdict(list)
    for run in found:
        if run.peak_memory_bytes:
            by_notebook[run.notebook].append(run)
    rows = []
    for name, its_runs in by_notebook.items():
        peaks = [run.peak_memory_bytes or 0 for run in its_runs]
        top = max(its_runs, key=lambda run: run.peak_memory_bytes or 0)
        hits = sum(run.cause in ("memory limit", "out-of-memory killer") for run in its_runs)
        cell = "-" if top.peak_cell is None else f"cells[{top.peak_cell}]"
        rows.append((max(peaks), statistics.median(peaks), len(peaks), hits, cell, name))
    head = f"{'highest':>10} {'median':>10} {'runs':>6} {'ended by it':>12}  {'at':<10} notebook"
    lines = [
        f"{megabytes(high):>10} {megabytes(round(mid)):>10} {n:>6} {hits:>12}  {cell:<10} {name}"
        for high, mid, n, hits, cell, name in sorted(rows, reverse=True)
    ]
    return "\n".join([head, *lines])


def _prune(out: Path, found: "list[Summary]", yes: bool) -> None:
    """Remove runs, but never one that still runs."""
    from workbench._units import megabytes
    from workbench.batch.runs import prune

    ended = [run.id for run in found if run.status != "running"]
    if not ended:
        refuse("these runs are still running")
    if not yes and not typer.confirm(f"Remove the folders of {len(ended)} runs for good?"):
        raise typer.Exit(1)
    count = f"{len(ended)} run{'' if len(ended) == 1 else 's'}"
    typer.echo(f"Removed {count}, {megabytes(prune(out, ended))}")


def schema(
    notebooks: Annotated[
        list[Path] | None, typer.Argument(metavar="[NOTEBOOK...]", show_default=False)
    ] = None,
) -> None:
    """Print the JSON schema of configurations, or of the parameters of notebooks."""
    from workbench.batch.notebook import JobError
    from workbench.batch.presets import config_schema, parameters_schema

    found: Any = {}
    for path in notebooks or []:
        try:
            found[str(path)] = parameters_schema(path)
        except JobError as error:
            refuse(*(f"{path}: {problem}" for problem in error.problems))
    typer.echo(json.dumps(found if notebooks else config_schema(), indent=2))
