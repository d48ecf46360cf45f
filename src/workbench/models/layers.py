"""Layers of a network by name, and where their outputs hold the image's plane."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from workbench.models.files import OpaqueModel

Layers = str | nn.Module | Sequence[str | nn.Module]
#: Tokens before those of the image that are looked for where a model does not tell their number.
_MOST_PREFIX_TOKENS = 8
_CHANNELS_FIRST = (_ConvNd, _BatchNorm, nn.GroupNorm, nn.AdaptiveAvgPool1d, nn.AvgPool1d)
_CHANNELS_LAST = (nn.LayerNorm, nn.Linear)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Name to module of all layers; the network itself has the name ``""``.

    Raises
    ------
    ValueError
        The network was read from a file that hides them (TorchScript, torch.export, ONNX), or
        ``torch.compile`` made it, whose layers cannot be watched.
    """
    if isinstance(model, OpaqueModel):
        raise ValueError(f"{model.kind} files hide their layers; load a state dict instead")
    if hasattr(model, "_orig_mod"):
        raise ValueError(
            "this network was made by torch.compile, whose layers cannot be watched: "
            "give the one that it was made from, model._orig_mod"
        )
    return dict(model.named_modules())


def find_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Name to module of the layers asked for, in the order given.

    `layers` is a name out of ``model.named_modules()``, a module, or a sequence of these.

    Raises
    ------
    ValueError
        The model has no such layer; the nearest names are listed. Or it hides them all.
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
    known = layers_of(model)
    names = {id(module): name for name, module in known.items()}
    chosen = {}
    for layer in asked:
        if not isinstance(layer, str | nn.Module):
            raise TypeError(f"a layer is a name or a module, not a {type(layer).__name__}")
        name = names.get(id(layer)) if isinstance(layer, nn.Module) else layer
        if name is None:
            raise ValueError(f"this {type(layer).__name__} is not a part of the model")
        if name not in known:
            near = get_close_matches(name, known, n=3) or list(known)[1:6]
            raise ValueError(f"the model has no layer {name!r}; there is {', '.join(near)}")
        chosen[name] = known[name]
    return chosen


@dataclass(frozen=True)
class OutputLayout:
    """How a layer's output holds channels and plane, and how to bring it to (n, k, y, x).

    A video's plane is (t, y, x). ``told`` outputs are laid out by a function, without a way back.
    """

    kind: Literal["channels first", "channels last", "tokens", "told"]
    grid: tuple[int, ...]
    prefix: int = 0
    told: Callable[[Tensor], Tensor] | None = None

    def to_maps(self, output: Tensor) -> Tensor:
        """The output as (sample, channel, y, x), without prefix tokens."""
        if self.told is not None:
            return self.told(output)
        if self.kind == "tokens":
            tokens = output[:, self.prefix :]
            return tokens.transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        return output.movedim(-1, 1) if self.kind == "channels last" else output

    def to_output(self, maps: Tensor, output: Tensor) -> Tensor:
        """(sample, channel, y, x) in the layer's own form, prefix tokens taken from `output`."""
        if self.kind == "told":
            raise ValueError("ablation writes into the layer, which needs more than `reshape`")
        if self.kind == "tokens":
            whole = output.expand(len(maps), *output.shape[1:]).clone()
            whole[:, self.prefix :] = maps.flatten(2).transpose(1, 2)
            return whole
        return maps.movedim(1, -1) if self.kind == "channels last" else maps


def layout_of(
    model: nn.Module, name: str, output: object, image: Sequence[int], n: int
) -> OutputLayout:
    """Find out how a layer's output holds the plane of the images.

    With four axes channels come first, as in convolutional networks, or last, as in Swin
    transformers. torch's own convolutions and normalisations say which by themselves; of other
    layers the two axes are the plane whose proportions are the image's, within what the rounding
    of one stride explains. Three axes are (sample, token, channel), as in vision transformers: the
    prefix tokens (class, distillation, registers) are dropped, as many as ``num_prefix_tokens`` of
    the model says where the rest then fills a grid of the image's proportions, or else the fewest
    after which it does; the grid is read row by row, or by the model's own ``reroll`` (Hiera).
    Five axes are a video's, with time before the plane.

    Parameters
    ----------
    model, name, output
        The network, the layer's name and what it gave.
    image
        (y, x) of the images as they reach the network's first layer.
    n
        How many images went in.

    Raises
    ------
    ValueError
        No pair of axes has the image's proportions, tokens fill no such grid, or the output does
        not belong to the images one by one (a table of positions, windows cut before attention).
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"layer {name!r} gives a {type(output).__name__}, not one tensor")
    shape = tuple(output.shape)
    if output.ndim in (3, 4, 5) and len(output) != n:
        raise ValueError(f"layer {name!r} gives {shape} for {n} images, not one output each")
    if output.ndim == 3:
        return _tokens(model, name, output, image)
    if output.ndim not in (4, 5):
        raise ValueError(f"layer {name!r} gives {shape}: it has no spatial output")
    module = model.get_submodule(name)
    first = _fits(shape[-2:], image)
    last = _fits(shape[-3:-1], image)
    closer = _mismatch(shape[-3:-1], image) - _mismatch(shape[-2:], image)
    # A subclass of LayerNorm may well put channels first, as torchvision's LayerNorm2d does.
    if isinstance(module, _CHANNELS_FIRST) or type(module) in _CHANNELS_LAST:
        first = isinstance(module, _CHANNELS_FIRST)
        last = not first and last
    elif first and last and abs(closer) > 1e-6:
        first = closer > 0
    elif first and last:
        inside = list(module.modules())
        first = any(isinstance(part, _CHANNELS_FIRST) for part in inside)
        first = first or not any(type(part) in _CHANNELS_LAST for part in inside)
    if first:
        return OutputLayout("channels first", shape[2:])
    if last:
        return OutputLayout("channels last", shape[1:-1])
    raise ValueError(
        f"layer {name!r} gives {shape}: no two axes have the proportions of the image's "
        f"{image[0]}×{image[1]}; tell how to lay them out by `reshape`"
    )


def _mismatch(grid: Sequence[int], image: Sequence[int]) -> float:
    """By how much the proportions differ: the logarithm of their ratio."""
    return abs(math.log(grid[0] * image[1] / (grid[1] * image[0])))


def _fits(grid: Sequence[int], image: Sequence[int]) -> bool:
    """Whether one stride explains the grid along both axes, each rounded by up to one unit."""
    lowest = max(side / (units + 1) for side, units in zip(image, grid, strict=True))
    highest = min(side / max(units - 1, 1e-9) for side, units in zip(image, grid, strict=True))
    return lowest < highest * (1 - 1e-9)


def _tiles(grid: Sequence[int], image: Sequence[int]) -> bool:
    """Whether patches of one size make the grid, both axes rounded down, or both up."""
    down = [(side / (n + 1), side / n) for side, n in zip(image, grid, strict=True)]
    up = [(side / n, side / max(n - 1, 1e-9)) for side, n in zip(image, grid, strict=True)]
    return any(max(a[0], b[0]) < min(a[1], b[1]) * (1 - 1e-9) for a, b in (down, up))


def _tokens(model: nn.Module, name: str, output: Tensor, image: Sequence[int]) -> OutputLayout:
    shape = tuple(output.shape)
    told = [n for m in model.modules() if isinstance(n := getattr(m, "num_prefix_tokens", 0), int)]
    first = isinstance(model.get_submodule(name), _CHANNELS_FIRST)
    for prefix in (max(told, default=0), *range(_MOST_PREFIX_TOKENS)):
        patches = shape[1] - prefix
        if patches <= 1 or first:
            continue
        grids = [(y, patches // y) for y in range(1, patches + 1) if patches % y == 0]
        if tiling := [grid for grid in grids if _tiles(grid, image)]:
            grid = min(tiling, key=lambda grid: _mismatch(grid, image))
            return _in_order(model, name, OutputLayout("tokens", grid, prefix))
    raise ValueError(
        f"layer {name!r} gives {shape}: its {shape[1]} tokens fill no grid of the image's "
        f"{image[0]}×{image[1]}; tell how to lay them out by `reshape`"
    )


def _in_order(model: nn.Module, name: str, layout: OutputLayout) -> OutputLayout:
    """Undo the order in which Hiera keeps its tokens, so that units to be pooled lie together."""
    owner = next((m for m in model.modules() if callable(getattr(m, "reroll", None))), None)
    if owner is None:
        return layout
    blocks = getattr(owner, "blocks", ())
    number = next((i for i, b in enumerate(blocks) if b is model.get_submodule(name)), None)
    if number is None:
        raise ValueError(
            f"layer {name!r}: this network keeps its tokens in an order of its own; "
            "take a whole block, such as blocks.0, or lay them out by `reshape`"
        )
    reroll: Any = owner.reroll
    return OutputLayout("told", layout.grid, told=lambda x: reroll(x, number).permute(0, 3, 1, 2))


def vectors_of(model: nn.Module, name: str, output: Any, image: Sequence[int], n: int) -> Tensor:
    """A layer's output averaged over the image or over all tokens, (sample, feature).

    Raises
    ------
    ValueError
        The output is not one array a sample, or no two of its axes are the image's plane.
    """
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != n:
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"layer {name!r} gives {what} for {n} images, not one array a sample")
    if output.ndim == 2:
        return output
    if output.ndim == 3:
        first = isinstance(model.get_submodule(name), _CHANNELS_FIRST)
        return output.mean(2 if first else 1)
    return layout_of(model, name, output, image, n).to_maps(output).flatten(2).mean(2)
