"""Look at a store in a browser: ``python -m workbench.store serve ./store``."""

import time
from pathlib import Path
from typing import Annotated

import typer

from workbench.store.server import serve

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Stores of images with their annotations."""


@app.command("serve")
def serve_command(
    path: Path, port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0
) -> None:
    """Serve a store's samples to a browser on this machine, until Ctrl-C."""
    server = serve(path, port)
    typer.echo(server.url)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    app()
