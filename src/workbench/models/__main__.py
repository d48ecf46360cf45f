"""Train a network: ``python -m workbench.models train ./photos``, or a shipped one, ``cifar10``."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast

import typer

from workbench import datasets
from workbench.models.augmentation import Recipe
from workbench.models.inference import evaluate
from workbench.models.resnet import SmallResNet
from workbench.models.training import RECIPES, build, calibrate, recipe_of, save, train

#: The widths and the recipe of the shipped networks.
PLANS = {
    "cifar10": ((32, 64, 128, 128, 192), Recipe(epochs=70, mixed=0.5, last_plain=8, averaged=6)),
    "mnist": ((8, 16, 32, 32, 64), Recipe(epochs=15, shift=2, flip=False, cutout=0)),
}
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Train networks on image datasets."""


@app.command("train")
def train_command(
    data: Annotated[str, typer.Argument(help="A folder, a table, a store or a dataset's name.")],
    model: Annotated[
        str, typer.Option(help=f"{', '.join(RECIPES)}, or a torchvision or timm name.")
    ] = "small-resnet",
    out: Annotated[Path, typer.Option(help="For the weights, the log and the snapshots.")] = Path(
        "weights"
    ),
    epochs: Annotated[int | None, typer.Option(min=1, help="By default the recipe's.")] = None,
    validate: Annotated[
        float, typer.Option(help="This share of the images is measured on, not trained on.")
    ] = 0.2,
    seed: int = Recipe.seed,
) -> None:
    """Train a network and measure it on images that it has not seen.

    A run that was stopped goes on after its last whole epoch. It uses a GPU where there is one.
    """
    if data in PLANS and model == "small-resnet":
        _train_shipped(data, out, epochs, seed)
        return
    recipe = recipe_of(model)
    recipe = replace(recipe, epochs=epochs or recipe.epochs, seed=seed)
    trained = train(model, data, recipe, out=out, validate=validate)
    typer.echo(trained.log.iloc[-1].to_json())


def _train_shipped(data: str, out: Path, epochs: int | None, seed: int) -> None:
    """Train one of the networks that come with the package; keep them in half precision."""
    widths, recipe = PLANS[data]
    recipe = replace(recipe, epochs=epochs or recipe.epochs, seed=seed)
    ds = datasets.load(data, split="train", fallback=False)
    model = build("small-resnet", ds, None, recipe, widths=widths)
    losses = train(model, ds, recipe, out=out / data).log["loss"]
    temperature = calibrate(cast(SmallResNet, model), ds, recipe)
    # what is measured is what is kept
    model.half().float()
    measured = evaluate(model, datasets.load(data, split="test", fallback=False))
    save(
        model,
        out / f"{data}.safetensors",
        recipe=recipe,
        half=True,
        data={key: ds.attrs[key] for key in ("name", "source", "sha256")},
        losses=losses.round(4).tolist(),
        temperature=temperature,
        test=measured,
    )
    typer.echo(json.dumps({"temperature": temperature, **measured}, indent=1))


if __name__ == "__main__":
    app()
