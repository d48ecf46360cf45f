"""Which layers are meant, and where their outputs hold the plane of the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from workbench.models.inference import find_layer, layers_of

Layers = str | nn.Module | Sequence[str | nn.Module]
#: Tokens before those of the image that are looked for where a model does not tell their number.
_MOST_PREFIX_TOKENS = 8


def find_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Name to module of the layers asked for, in the order given.

    Parameters
    ----------
    model
        The network.
    layers
        A name out of ``model.named_modules()``, a module of the model, or a sequence of these.

    Raises
    ------
    ValueError
        The model has no such layer; the nearest names are listed. Or its file hides them all.
    TypeError
        Something else than a name or a module was given.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> list(find_layers(model, ["0", model[1]]))
    ['0', '1']
    """
    asked = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    if not asked:
        return {}
    names = {id(module): name for name, module in layers_of(model).items()}
    found = {}
    for layer in asked:
        if not isinstance(layer, str | nn.Module):
            raise TypeError(f"a layer is a name or a module, not a {type(layer).__name__}")
        name = names.get(id(layer)) if isinstance(layer, nn.Module) else layer
        if name is None:
            raise ValueError(f"this {type(layer).__name__} is not a part of the model")
        found[name] = find_layer(model, name)
    return found


@dataclass(frozen=True)
class OutputLayout:
    """How a layer's output holds channels and the plane, and how to bring it to (n, k, y, x)."""

    kind: Literal["channels first", "channels last", "tokens", "told"]
    grid: tuple[int, int]
    prefix: int = 0

    def to_maps(self, output: Tensor) -> Tensor:
        """The output as (sample, channel, y, x), without prefix tokens."""
        if self.kind == "tokens":
            tokens = output[:, self.prefix :]
            return tokens.transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        return output.permute(0, 3, 1, 2) if self.kind == "channels last" else output

    def to_output(self, maps: Tensor, output: Tensor) -> Tensor:
        """(sample, channel, y, x) in the layer's own form, prefix tokens taken from `output`."""
        if self.kind == "tokens":
            whole = output.expand(len(maps), *output.shape[1:]).clone()
            whole[:, self.prefix :] = maps.flatten(2).transpose(1, 2)
            return whole
        return maps.permute(0, 2, 3, 1) if self.kind == "channels last" else maps


def layout_of(model: nn.Module, name: str, output: object, x: Tensor) -> OutputLayout:
    """Find out how a layer's output for the images `x` holds the plane.

    Four axes are (sample, channel, y, x), unless only axes 1 and 2 have the image's proportions:
    then channels come last, as in Swin transformers. Three axes are (sample, token, channel), as
    in vision transformers: the prefix tokens (class, distillation, registers) are dropped, as many
    as ``num_prefix_tokens`` of the model says where the rest then fills a grid of the image's
    proportions, or else the fewest after which it does; the grid is read row by row.

    Raises
    ------
    ValueError
        The output has no spatial extent, its tokens fill no such grid, or it does not belong to
        the images one by one (a table of positions, windows that are cut before attention).
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"layer {name!r} gives a {type(output).__name__}, not one tensor")
    shape, image = tuple(output.shape), (x.shape[-2], x.shape[-1])
    if output.ndim in (3, 4) and len(output) != len(x):
        raise ValueError(f"layer {name!r} gives {shape} for {len(x)} images, not one output each")
    if output.ndim == 4:
        last = _mismatch(shape[2:], image) > math.log(2) and _mismatch(shape[1:3], image) < 0.05
        grid = shape[1:3] if last else shape[2:]
        layout = OutputLayout("channels last" if last else "channels first", (grid[0], grid[1]))
    elif output.ndim == 3:
        layout = _tokens(model, name, shape, image)
    else:
        raise ValueError(f"layer {name!r} gives {shape}: it has no spatial output")
    if math.prod(layout.grid) <= 1:
        raise ValueError(f"layer {name!r} gives {shape}: one position is no spatial output")
    return layout


def _tokens(
    model: nn.Module, name: str, shape: tuple[int, ...], image: tuple[int, int]
) -> OutputLayout:
    told = [n for m in model.modules() if isinstance(n := getattr(m, "num_prefix_tokens", 0), int)]
    for prefix in (max(told, default=0), *range(_MOST_PREFIX_TOKENS)):
        patches = shape[1] - prefix
        if patches <= 1:
            continue
        rows = max(1, round(math.sqrt(patches * image[0] / image[1])))
        if patches % rows == 0 and _mismatch((rows, patches // rows), image) < 0.05:
            return OutputLayout("tokens", (rows, patches // rows), prefix)
    raise ValueError(
        f"layer {name!r} gives {shape}: its {shape[1]} tokens fill no grid of the image's "
        f"{image[0]}×{image[1]}; tell how to lay them out by `reshape`"
    )


def _mismatch(grid: Sequence[int], image: Sequence[int]) -> float:
    """By how much the proportions differ: the logarithm of their ratio."""
    return abs(math.log(grid[0] * image[1] / (grid[1] * image[0])))
