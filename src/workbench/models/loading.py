"""The networks whose weights come with the package."""

import json
from importlib.resources import files

from workbench._extras import need
from workbench.models.resnet import SmallResNet

#: Names of the shipped networks; their model card is README.md beside the weights.
SHIPPED = ("cifar10",)


def load(name: str) -> SmallResNet:
    """A trained network, ready to predict.

    Parameters
    ----------
    name
        ``"cifar10"``: a :class:`SmallResNet` for 32×32 RGB images. The model card tells its data,
        recipe and measured accuracy.

    Returns
    -------
    SmallResNet
        In evaluation mode, on the CPU, float32; ``classes`` names its outputs.

    Raises
    ------
    ValueError
        No network of that name is shipped.

    Examples
    --------
    >>> load("cifar10").classes[3]
    'cat'
    """
    if name not in SHIPPED:
        raise ValueError(f"there is no shipped network {name!r}; there is {', '.join(SHIPPED)}")
    safetensors = need("safetensors", extra="networks")
    path = files("workbench.models") / "weights" / f"{name}.safetensors"
    with safetensors.safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        # Kept in half precision; whole numbers, the batch norms' counters, stay what they are.
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    model = SmallResNet(about["channels"], len(about["classes"]), about["widths"])
    model.load_state_dict(weights)
    model.classes = about["classes"]
    return model.eval()
