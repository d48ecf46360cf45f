"""The command ``workbench``: batch runs, and the pages that somebody looks at.

Beside the packages rather than in one of them: ``review`` needs datasets, embeddings and labels,
which batch runs know nothing of. Light to import, and so is ``--help``.
"""

import json
import os
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from workbench._extras import need
from workbench.batch.cli import app
from workbench.batch.cli.common import (
    Parameters,
    exit_on_error,
    named_values,
    refuse,
    stop_on_signals,
)

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

#: The cell that somebody opens the notebook for carries this tag.
LOOK_HERE = "look-here"
#: What the page needs, and the mark of a folder that ``review`` made.
_QUEUE = "queue.npz"
Browser = Annotated[
    bool, typer.Option("--browser/--no-browser", help="Open the page, or only say where it is.")
]
_PAGE = """\
import warnings

import numpy as np
import xarray as xr

from workbench import datasets, embeddings, labels

warnings.simplefilter("ignore")  # the command has said them
ds = datasets.load({data!r}, split={split!r}, progress=False)
ds = ds.isel(sample=ds.label.values >= 0)
queue = np.load("{queue}")
vectors = xr.DataArray(queue["vectors"], dims=("sample", "feature"))
graph = embeddings.neighbors(vectors, k=min(15, ds.sizes["sample"] - 1))
issues = labels.find_issues(ds, queue["probabilities"], graph)
labels.review(ds, issues, "review.db", neighbors=graph, probabilities=queue["probabilities"])
"""


@app.command("open")
def open_notebook(
    notebook: Annotated[Path, typer.Argument(metavar="NOTEBOOK", show_default=False)],
    parameter: Parameters = None,
    page: Annotated[bool, typer.Option("--app", help="As a page without code.")] = False,
    to: Annotated[Path, typer.Option(help="Where the copy is kept.")] = Path("opened"),
    browser: Browser = True,
) -> None:
    """Open a copy of a notebook with parameters of yours, in JupyterLab or as a page.

    The copy and what it writes have a folder of their own below --to; the same parameters open
    the same copy again. With --app the notebook runs at once and shows its text, figures and
    widgets without the code (needs the extra app). Both listen on 127.0.0.1 alone and ask for a
    token; Ctrl-C ends them.
    """
    with exit_on_error():
        copy, anchor = write_copy(notebook, named_values(parameter or []), to)
        typer.echo(f"Notebook: {copy}")
        if page:
            serve_page(copy, anchor, browser)
        else:
            _serve_lab(copy, browser)


@app.command()
def review(
    data: Annotated[str, typer.Argument(metavar="FOLDER", show_default=False)],
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For what comes out. [FOLDER-review]")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    probabilities: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of your own model, .npy, .csv or .parquet."),
    ] = None,
    page: Annotated[bool, typer.Option(help="Show the page, or write the files at once.")] = True,
    browser: Browser = True,
) -> None:
    """Review the labels of a folder or table of images, worst first.

    Writes issues.csv, opens the review in a browser and, when Ctrl-C ends it, writes what was
    decided as the folder corrected. Every decision is on disk at once, in review.db; the same
    command goes on where you stopped. The page needs the extra app.
    """
    stop_on_signals()
    with exit_on_error():
        if Path(data).exists() and os.sep not in data:  # not the bundled dataset of that name
            data = f".{os.sep}{data}"
        name = Path(data).resolve().name.partition(".")[0]
        folder = to or Path(f"{name}-review")
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / _QUEUE).exists():
            refuse(f"{folder} is there and no review's: give another folder by --to")
        if page:
            need("voila", extra="app")
        ds, issues = _queue(data, split, probabilities, folder)
        if page:
            seen = os.path.relpath(data, folder) if Path(data).exists() else data
            cell = _PAGE.format(data=seen, split=split, queue=_QUEUE)
            notebook = folder / "review.ipynb"
            notebook.write_text(json.dumps(_document(cell), indent=1), encoding="utf-8")
            typer.echo("Ctrl-C ends the review and writes what was decided.")
            serve_page(notebook, "", browser)
        _write_decisions(ds, issues, folder)


def write_copy(notebook: Path, values: Mapping[str, Any], to: Path) -> tuple[Path, str]:
    """Write a notebook with parameters set, to be opened; what is there already is kept.

    Parameters
    ----------
    notebook
        The ``.ipynb`` file, which stays as it is.
    values
        By parameter, checked as in batch runs. Relative paths are meant from here.
    to
        The copy gets a folder of its own in this one. A copy with the same parameters is taken
        again; of a notebook that has changed since, the old copy is kept beside the new one.

    Returns
    -------
    pathlib.Path, str
        The copy, and the heading to open it at, as a fragment; empty for the top.

    Raises
    ------
    JobError
        The notebook cannot be read, or a parameter is unknown or of a wrong type.
    """
    from workbench.batch.jobs import RUN, Job, check_jobs
    from workbench.batch.run import injected_code

    (job,) = check_jobs([Job(notebook, values, cwd=RUN)])
    if job.secrets:
        refuse(f"{next(iter(job.secrets))!r} is a secret, which may stand in no file")
    number = 1
    while True:
        folder = to / (notebook.stem if number == 1 else f"{notebook.stem}-{number}")
        copy = folder / notebook.name
        document, _ = job.notebook.prepare(injected_code(job, folder))
        own = {"parameters": injected_code(job, folder), "sha256": job.notebook.sha256}
        there = _told(copy)
        if there is None or there.get("parameters") == own["parameters"]:
            break
        number += 1
    heading = _heading(document["cells"])
    if there != own:
        folder.mkdir(parents=True, exist_ok=True)
        if there is not None:
            old = copy.with_stem(f"{copy.stem}-{there['sha256'][:8]}")
            copy.replace(old)
            typer.echo(f"The notebook has changed; what you had is {old}")
        document["metadata"] = {**document["metadata"], "workbench": own}
        document["cells"].insert(0, _welcome(heading, document["nbformat_minor"]))
        copy.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return copy, quote(heading.replace(" ", "-"))


def _told(copy: Path) -> dict[str, str] | None:
    """What an earlier copy says it was made from; None where there is none."""
    if not copy.exists():
        return None
    try:
        told = json.loads(copy.read_bytes())["metadata"]["workbench"]
        return {name: told[name] for name in ("parameters", "sha256")}
    except (ValueError, LookupError, TypeError):
        return {"parameters": "of somebody else"}


def _heading(cells: list[dict[str, Any]]) -> str:
    """The heading above the cell that somebody opens the notebook for; empty for the top."""
    heading = ""
    for cell in cells:
        if cell["cell_type"] == "markdown":
            titles = [line for line in cell["source"].splitlines() if line.startswith("#")]
            heading = titles[-1].lstrip("# ") if titles else heading
        elif LOOK_HERE in cell["metadata"].get("tags", []):
            return heading
    return ""


def _welcome(heading: str, minor: int) -> dict[str, Any]:
    """The first cell of a copy: JupyterLab opens a notebook at its top and nowhere else."""
    text = "This copy has your parameters. In JupyterLab **Run ▸ Run All Cells** runs it"
    if heading:
        text += f"; then look here: [{heading}](#{quote(heading.replace(' ', '-'))})"
    cell = {"cell_type": "markdown", "metadata": {}, "source": f"{text}."}
    return cell | ({"id": "welcome"} if minor >= 5 else {})


def _serve_lab(notebook: Path, browser: bool) -> None:
    """JupyterLab at a notebook, until Ctrl-C; it makes its own token."""
    lab = need("jupyterlab.labapp", extra="notebooks").LabApp
    options = [str(notebook.absolute()), "--ServerApp.ip=127.0.0.1"]
    if hasattr(os, "getuid") and os.getuid() == 0:
        options.append("--allow-root")
    lab.launch_instance(options if browser else [*options, "--no-browser"])


def serve_page(notebook: Path, anchor: str, browser: bool) -> None:
    """Show a notebook as a page without code, through Voilà, until Ctrl-C.

    It listens on 127.0.0.1 and asks for a token, which stands in no command line; no file beside
    the notebook is served.
    """
    voila = need("voila.app", extra="app").Voila
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    class Page(voila):  # type: ignore[misc,valid-type]
        """Voilà, with an address that holds its token; its own page to open leaves it out."""

        def launch_browser(self) -> None:
            token = quote(self.identity_provider.token)
            address = f"http://127.0.0.1:{self.port}/?token={token}#{anchor}".rstrip("#")
            typer.echo(f"Page: {address}")
            sys.stdout.flush()
            if browser:
                # By way of a file, as other users of the machine see command lines.
                file = Path(self.connection_dir) / "open.html"
                file.write_text(f'<meta http-equiv="refresh" content="0; url={address}">')
                webbrowser.open(file.as_uri())

    options = [str(notebook), f"--port={port}", "--token", "--Voila.ip=127.0.0.1"]
    options += ["--VoilaConfiguration.file_denylist=.*", "--show_tracebacks=True"]
    # What Voilà's template would fetch from elsewhere, icons that no page here shows, stays away.
    policy = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
    settings = {"headers": {"Content-Security-Policy": policy}}
    Page.launch_instance([*options, "--Voila.log_level=ERROR"], tornado_settings=settings)


def _document(code: str) -> dict[str, Any]:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    cell: dict[str, Any] = {"cell_type": "code", "metadata": {}, "source": code, "outputs": []}
    cell |= {"execution_count": None, "id": "review"}
    metadata = {"kernelspec": kernel}
    return {"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _queue(
    data: str, split: str, probabilities: Path | None, folder: Path
) -> "tuple[xr.Dataset, pd.DataFrame]":
    """Rank the labels of a dataset, and write the queue and what the page needs of it."""
    import numpy as np
    import xarray as xr

    from workbench import datasets, embeddings, labels
    from workbench._samples import classes_of

    ds = datasets.load(data, split=split)
    if "label" not in ds:
        raise ValueError(f"{data} has no labels, or several an image: notebook 04 reviews those")
    ds = ds.isel(sample=ds.label.values >= 0)
    classes = classes_of(ds)
    kind: Literal["pixels", "network"] = "pixels" if ds.sizes["channel"] == 1 else "network"
    kept = folder / _QUEUE
    if kept.exists() and (before := np.load(kept))["of"] == ds.attrs["sha256"]:
        vectors = xr.DataArray(before["vectors"], dims=("sample", "feature"))
    else:
        vectors = embeddings.features(ds, kind)
    graph = embeddings.neighbors(vectors, k=min(15, ds.sizes["sample"] - 1))
    if probabilities:
        judged = labels.load_probabilities(probabilities, classes)
    else:
        judged = labels.out_of_fold(vectors, ds.label, neighbors=graph, classes=len(classes))
    issues = labels.find_issues(ds, judged, graph)
    of = ds.attrs["sha256"]
    np.savez(kept, vectors=vectors.values, probabilities=judged.values, of=of)
    _write_issues(ds, issues, folder)
    typer.echo(f"{int(issues.is_issue.sum()):,} of {len(issues):,} labels are flagged")
    return ds, issues


def _write_issues(
    ds: "xr.Dataset", issues: "pd.DataFrame", folder: Path, decided: "pd.DataFrame | None" = None
) -> None:
    """Write the queue as issues.csv, by name, with what was decided where somebody looked."""
    import numpy as np

    names = np.append(ds["class"].values.astype(str), "")
    numbers = ("given", "suggested", "neighbor_vote")
    table = issues.assign(**{name: names[issues[name].to_numpy()] for name in numbers})
    if decided is not None:
        table["review"] = decided["status"].reindex(table.index)
        label = decided["label"].reindex(table.index).fillna(-1).to_numpy(dtype=np.int64)
        table["label"] = names[label]
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".csv", delete=False) as part:
        table.to_csv(part, errors="surrogateescape")
    Path(part.name).replace(folder / "issues.csv")


def _write_decisions(ds: "xr.Dataset", issues: "pd.DataFrame", folder: Path) -> None:
    """Write the corrected data and the queue with its decisions, and say what came of it."""
    from workbench import labels

    typer.echo(f"Queue: {folder / 'issues.csv'}")
    if not (folder / "review.db").exists():
        typer.echo("Nothing is decided yet.")
        return
    decided = labels.decisions(ds, folder / "review.db")
    counts = decided["status"].value_counts()
    said = ", ".join(f"{n:,} {status}" for status, n in counts.items()) or "nothing"
    typer.echo(f"Decided on {len(decided):,} of {ds.sizes['sample']:,} images: {said}")
    if not len(decided):
        return
    _write_issues(ds, issues, folder, decided)
    number = 1
    target = folder / "corrected"
    while os.path.lexists(target):  # an earlier one is kept
        number += 1
        target = folder / f"corrected-{number}"
    typer.echo(f"Corrected: {labels.export(ds, folder / 'review.db', target)}")


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
