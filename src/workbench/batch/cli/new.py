"""``workbench new``."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.batch.cli.common import refuse


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
