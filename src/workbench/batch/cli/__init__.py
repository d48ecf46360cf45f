"""The command ``workbench``; light to import, and so is ``--help``."""

import typer

from workbench.batch.cli.commands import compare, lineage, pipeline, rerun, run, runs, verify

app = typer.Typer(
    help="Run notebooks unattended and look at what came out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich alone would double the time of --help
    pretty_exceptions_enable=False,
)
for command in (run, pipeline, runs, compare, lineage, verify, rerun):
    app.command()(command)


def main() -> None:
    """Run the command."""
    app()
