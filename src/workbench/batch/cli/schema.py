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

    try:
        found: Any = (
            {str(path): parameters_schema(path) for path in notebooks}
            if notebooks
            else config_schema()
        )
    except JobError as error:
        refuse(*error.problems)
    typer.echo(json.dumps(found, indent=2))
