"""Train the shipped networks: ``python -m workbench.models train cifar10``, ``... mnist``."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
import xarray as xr

from workbench import datasets
from workbench.models.inference import evaluate
from workbench.models.resnet import SmallResNet
from workbench.models.training import Recipe, calibrate, train

#: The widths and the recipe for each dataset.
PLANS = {
    "cifar10": ((32, 64, 128, 128, 192), Recipe(epochs=70, mixed=0.5, last_plain=8, averaged=6)),
    "mnist": ((8, 16, 32, 32, 64), Recipe(epochs=15, shift=2, flip=False, cutout=0)),
}
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Train the networks that come with the package."""


@app.command("train")
def train_command(
    data: Annotated[str, typer.Argument(help=f"One of {', '.join(PLANS)}.")] = "cifar10",
    out: Annotated[Path, typer.Option(help="Where weights and checkpoint go.")] = Path("weights"),
    epochs: Annotated[int | None, typer.Option(min=1, help="By default the recipe's.")] = None,
    seed: int = Recipe.seed,
) -> None:
    """Train a network on a dataset's training images and measure it on its test images.

    A run that was stopped goes on after its last whole epoch. It uses a GPU where there is one.
    """
    if data not in PLANS:
        raise typer.BadParameter(f"there is no recipe for {data!r}, only for {', '.join(PLANS)}")
    widths, recipe = PLANS[data]
    recipe = replace(recipe, epochs=epochs or recipe.epochs, seed=seed)
    ds = datasets.load(data, split="train", fallback=False)
    model = _untrained(ds, widths, seed)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    losses = train(model, ds, recipe, checkpoint=out / f"{data}.checkpoint")
    temperature = calibrate(model, ds, recipe)
    weights = {key: _halved(value) for key, value in model.state_dict().items()}
    # what is measured is what is kept
    model.load_state_dict(weights)
    measured = evaluate(model, datasets.load(data, split="test", fallback=False))
    about = {
        "data": {key: ds.attrs[key] for key in ("name", "source", "sha256")},
        "classes": [str(name) for name in ds["class"].values],
        "recipe": asdict(recipe),
        "losses": [round(loss, 4) for loss in losses],
        "temperature": temperature,
        "test": measured,
    }
    _save(weights, about, out / f"{data}.safetensors")
    typer.echo(json.dumps({"temperature": temperature, **measured}, indent=1))


def _untrained(ds: xr.Dataset, widths: tuple[int, ...], seed: int) -> SmallResNet:
    """A network that normalises by the mean and the standard deviation of these images."""
    torch.manual_seed(seed)
    pixels = ds["image"].values / np.float32(255)
    mean, std = [[round(float(v), 4) for v in f(pixels, axis=(0, 1, 2))] for f in (np.mean, np.std)]
    return SmallResNet(ds.sizes["channel"], ds.sizes["class"], widths, mean, std)


def _halved(value: torch.Tensor) -> torch.Tensor:
    """Half precision, for what is no whole number."""
    return (value.half() if value.is_floating_point() else value).cpu().contiguous()


def _save(weights: dict[str, torch.Tensor], about: dict[str, object], path: Path) -> None:
    """Write the weights, and what they are in the file's own header."""
    from safetensors.torch import save_file

    save_file(weights, path, metadata={"about": json.dumps(about)})


if __name__ == "__main__":
    app()
