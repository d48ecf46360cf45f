"""``workbench compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.batch.cli.common import Out, refusing, run_folder

if TYPE_CHECKING:
    import pandas as pd


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
    from workbench.batch import comparison as comparing

    ids = [run_folder(out, run).name for run in runs] if runs else None
    with refusing():
        table = comparing.compare(out, group=group, ids=ids)
        for path in to or []:
            _write(table, path, result)
    typer.echo(table.reset_index(drop=True).to_string(index=False, na_rep="-"))


def _write(table: "pd.DataFrame", path: Path, results: list[str] | None) -> None:
    """Write a table or its figure, by the file's suffix."""
    from workbench.batch.comparison import draw, page

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
