"""Networks for images: shipped, by name or from a file; predictions, activations, training."""

from workbench._extras import need

need("torch", extra="networks")

from workbench.models.activations import activations  # noqa: E402
from workbench.models.evaluation import evaluate  # noqa: E402
from workbench.models.loading import load  # noqa: E402
from workbench.models.predicting import predict  # noqa: E402
from workbench.models.pretrained import WeightsNotFoundError  # noqa: E402
from workbench.models.resnet import SmallResNet  # noqa: E402
from workbench.models.sealed import Sealed  # noqa: E402

__all__ = [
    "load", "predict", "activations", "evaluate",
    "SmallResNet", "Sealed", "WeightsNotFoundError",
]  # fmt: skip
