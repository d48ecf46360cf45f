"""The command ``workbench``. Each module here is light to import, and so is ``--help``."""

import typer

from workbench.batch.cli.compare import compare
from workbench.batch.cli.lineage import export, lineage, rerun, verify
from workbench.batch.cli.new import new
from workbench.batch.cli.pipeline import pipeline
from workbench.batch.cli.run import run
from workbench.batch.cli.runs import runs
from workbench.batch.cli.schema import schema

app = typer.Typer(
    help="Run notebooks unattended and look at what came out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich alone would double the time of --help
    pretty_exceptions_enable=False,
)
for command in (run, pipeline, runs, compare, lineage, verify, rerun, export, schema, new):
    app.command()(command)


def main() -> None:
    """Run the command."""
    app()
