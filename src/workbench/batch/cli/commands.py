"""The commands of ``workbench``: run, pipeline, runs, compare, lineage, verify and rerun."""

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

import fnmatch
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from workbench.batch.cli.common import line

if TYPE_CHECKING:
    from workbench.batch.run_record import RunRecord

from typing import TYPE_CHECKING

from workbench.batch.cli.common import (
    Run,
    write_pages,
)

if TYPE_CHECKING:
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


_AGES = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
Notebook = Annotated[str | None, typer.Option(metavar="GLOB", help="Those of these notebooks.")]
Status = Annotated[str | None, typer.Option(metavar="STATUS", help="Those that ended so.")]
Newer = Annotated[
    str | None, typer.Option(metavar="AGE", help="Those of the last 30m, 12h, 7d or 2w.")
]
Older = Annotated[str | None, typer.Option(metavar="AGE", help="Those before.")]


def runs(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Show this run's record.")
    ] = None,
    out: Out = Path("runs"),
    notebook: Notebook = None,
    status: Status = None,
    newer: Newer = None,
    older: Older = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove those listed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also those that seem to run.")] = False,
) -> None:
    """List the runs in a folder, newest first; show one; remove old ones.

    A run is named by its id, or by the beginning or end of it; "last" is the newest.
    """
    from workbench.batch.run_record import RunRecord, find_run, read_runs

    with exit_on_error():
        if run is not None:
            typer.echo(RunRecord.load(find_run(out, run)).model_dump_json(indent=1))
            return
        since, until = (age and (datetime.now(UTC) - _age(age)) for age in (newer, older))
        found = [record for record in read_runs(out) if _matches(record, notebook, status)]
        found = [r for r in found if not since or r.started >= since]
        found = [r for r in found if not until or r.started < until]
        for record in found:
            typer.echo(f"{record.started:%Y-%m-%d %H:%M}  {line(record)}")
        if not found:
            typer.echo(f"No runs in {out}" if out.is_dir() else f"There is no folder {out}")
        if prune and found:
            _prune(out, found, yes, force)


def _matches(record: "RunRecord", notebook: str | None, status: str | None) -> bool:
    path = Path(record.notebook)
    named = fnmatch.filter([str(path), path.name, path.stem], notebook or "*")
    return bool(named) and status in (None, "", record.status)


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if not match:
        refuse(f"an age is a number with m, h, d or w, as 7d; got {text!r}")
    return timedelta(**{_AGES[match[2]]: int(match[1])})


def _prune(out: Path, found: "list[RunRecord]", yes: bool, force: bool) -> None:
    """Remove runs by their folders' names, but none that still runs unless that is asked for."""
    from workbench._units import show_size
    from workbench.batch.run_record import prune

    names = [record.folder.name for record in found if force or record.status != "running"]
    if not names:
        refuse("these runs are still running; --force removes them all the same")
    count = f"{len(names)} run{'' if len(names) == 1 else 's'}"
    if not yes and not typer.confirm(f"Remove the folders of {count} in {out} for good?"):
        raise typer.Exit(1)
    typer.echo(f"Removed {count}, {show_size(prune(out, names))}")


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
    from workbench.batch.provenance import compare as table_of
    from workbench.batch.provenance import write_table
    from workbench.batch.run_record import find_run

    with exit_on_error():
        ids = [find_run(out, run).name for run in runs] if runs else None
        table = table_of(out, group=group, ids=ids)
        if to:
            write_table(table, to)
        typer.echo(table.reset_index(drop=True).to_string(index=False, na_rep="-"))


def lineage(run: Run, out: Out = Path("runs")) -> None:
    """Show where a run's results came from."""
    from workbench.batch.provenance import trace

    with exit_on_error():
        typer.echo(trace(run, out).text())


def verify(run: Run, out: Out = Path("runs")) -> None:
    """Hash a run's files anew. The exit code is 0 if all are what they were, 1 if not."""
    from workbench.batch.provenance import verify as checks_of

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
    from workbench.batch.provenance import changed_notebook
    from workbench.batch.provenance import rerun as repeat
    from workbench.batch.run_record import find_run

    log_to_stderr()
    stop_on_signals()
    tolerances = _tolerances(tolerance or [])
    with exit_on_error(out):
        folder = find_run(out, run)
        if (changed := changed_notebook(folder)) and not yes:
            typer.confirm(f"{changed}: run it all the same?", abort=True)
        given = named_values(parameter or [])
        before, after = repeat(folder, parameters=given, even_if_changed=True)
    raise typer.Exit(not _agree(before, after, tolerances))


def _agree(before: "RunRecord", after: "RunRecord", tolerances: dict[str, float]) -> bool:
    """Say in what a repetition differs, and return whether it does not."""
    from workbench.batch.provenance import TOLERANCE, differences
    from workbench.batch.run_record import results_of

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
    from workbench.batch.pipeline import run_pipeline

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
