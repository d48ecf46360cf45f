"""Train the shipped networks: ``python -m workbench.models train cifar10``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from workbench import datasets
from workbench.models.evaluation import evaluate
from workbench.models.resnet import SmallResNet
from workbench.models.training import Recipe, train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Train the networks that come with the package."""


@app.command("train")
def train_command(
    data: Annotated[str, typer.Argument(help="A dataset's name; today: cifar10.")] = "cifar10",
    out: Annotated[Path, typer.Option(help="Where weights and checkpoint go.")] = Path("weights"),
    epochs: Annotated[int, typer.Option(min=1)] = Recipe.epochs,
    seed: int = Recipe.seed,
) -> None:
    """Train a network on a dataset's training images and measure it on its test images.

    A run that was stopped goes on after its last whole epoch.
    """
    recipe = Recipe(epochs=epochs, seed=seed)
    torch.manual_seed(seed)
    ds = datasets.load(data, split="train", fallback=False)
    pixels = ds["image"].values / np.float32(255)
    mean, std = [[round(float(v), 4) for v in f(pixels, axis=(0, 1, 2))] for f in (np.mean, np.std)]
    del pixels
    names = [str(name) for name in ds["class"].values]
    widths = (32, 48, 96, 160, 256)
    model = SmallResNet(ds.sizes["channel"], len(names), widths, mean, std)
    out.mkdir(parents=True, exist_ok=True)
    losses = train(model, ds, recipe, checkpoint=out / f"{data}.checkpoint")
    measured = evaluate(model, datasets.load(data, split="test", fallback=False))
    about = {
        "data": {key: ds.attrs[key] for key in ("name", "source", "sha256")},
        "channels": ds.sizes["channel"],
        "classes": names,
        "widths": widths,
        "recipe": asdict(recipe),
        "losses": [round(loss, 4) for loss in losses],
        "test": measured,
    }
    _save(model, about, out / f"{data}.safetensors")
    typer.echo(json.dumps(measured, indent=1))


def _save(model: SmallResNet, about: dict[str, object], path: Path) -> None:
    """Write half-precision weights, and what they are in the file's own header."""
    from safetensors.torch import save_file

    weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    weights = {k: v.contiguous() for k, v in weights.items()}
    save_file(weights, path, metadata={"about": json.dumps(about)})


if __name__ == "__main__":
    app()
