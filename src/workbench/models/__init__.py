"""Networks for images: shipped, by name or from a file; predictions, activations, training."""

# ruff: noqa: E402
from workbench._extras import need

need("torch", extra="networks")

from workbench.models.architectures import WeightsNotFoundError
from workbench.models.augmentation import Recipe
from workbench.models.fcn import FCN
from workbench.models.files import OpaqueModel
from workbench.models.inference import Embedder, activations, evaluate, predict
from workbench.models.loading import load
from workbench.models.resnet import SmallResNet
from workbench.models.training import Trained, recipe_of, save, train

__all__ = [
    "load",
    "predict",
    "activations",
    "Embedder",
    "evaluate",
    "train",
    "Recipe",
    "recipe_of",
    "Trained",
    "save",
    "FCN",
    "SmallResNet",
    "OpaqueModel",
    "WeightsNotFoundError",
]
