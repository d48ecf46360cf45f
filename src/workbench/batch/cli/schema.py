"""``workbench schema``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.batch.cli.common import refuse


def schema(
    notebooks: Annotated[
        list[Path] | None, typer.Argument(metavar="[NOTEBOOK...]", show_default=False)
    ] = None,
) -> None:
    """Print the JSON schema of configurations, or of the parameters of notebooks."""
    from workbench.batch.notebook import JobError
    from workbench.batch.schemas import config_schema, parameters_schema

    found: Any = {}
    for path in notebooks or []:
        try:
            found[str(path)] = parameters_schema(path)
        except JobError as error:
            refuse(*(f"{path}: {problem}" for problem in error.problems))
    typer.echo(json.dumps(found if notebooks else config_schema(), indent=2))
