"""A look at runs and at who is still alive."""

import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
from typer.testing import CliRunner

from workbench.batch.cli import app

#: A cell that leaves a file in the run's folder, wherever it runs.
STARTED = (
    "import os, pathlib, time\npathlib.Path(os.environ['WORKBENCH_RUN_FOLDER'], 'started').touch()"
)


def write_notebook(path: Path, *cells: str, parameters: str | None = None) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {path.stem}")])
    if parameters is not None:
        cell = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        notebook.cells.append(cell)
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, path)


def run_ids(out: Path) -> list[str]:
    return [path.parent.name for path in out.glob("*/run.json")]


def survivors(ids: list[str]) -> list[str]:
    """Command lines of the processes that belong to one of these runs, by what they were given
    or by where they are: a forked worker's environment is not to be seen from outside."""
    found = []
    for process in psutil.process_iter():
        try:
            given = process.environ().get("WORKBENCH_RUN_ID")
            if process.status() != "zombie" and {given, Path(process.cwd()).name} & {*ids}:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.05)


def command(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of ``workbench``, in this process: for what starts no run."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr
