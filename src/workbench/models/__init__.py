"""Small networks for small images: shipped weights, training, activations."""

from workbench._extras import need

need("torch", extra="networks")

from workbench.models.activations import activations  # noqa: E402
from workbench.models.evaluation import evaluate  # noqa: E402
from workbench.models.loading import load  # noqa: E402
from workbench.models.resnet import SmallResNet  # noqa: E402

__all__ = ["SmallResNet", "activations", "evaluate", "load"]
