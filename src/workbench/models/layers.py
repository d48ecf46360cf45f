"""The layers of a network, by name."""

from difflib import get_close_matches

from torch import nn

from workbench.models.sealed import Sealed


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Name to module of all layers; the network itself has the name ``""``.

    Raises
    ------
    ValueError
        The network was read from a file that hides them (TorchScript, torch.export, ONNX).
    """
    if isinstance(model, Sealed):
        raise ValueError(f"{model.kind} files hide their layers; load a state dict instead")
    return dict(model.named_modules())


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer of that name.

    Raises
    ------
    ValueError
        There is none; the nearest names are listed. Or the network hides its layers.
    """
    layers = layers_of(model)
    if name not in layers:
        near = get_close_matches(name, layers, n=3) or list(layers)[1:6]
        raise ValueError(f"the model has no layer {name!r}; there is {', '.join(near)}")
    return layers[name]
