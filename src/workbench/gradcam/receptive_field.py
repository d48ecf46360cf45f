"""Receptive fields of layers, computed operation by operation and confirmed by gradients."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from workbench.gradcam.forward import undisturbed
from workbench.gradcam.receptive_field_rules import RULES, Arguments, Extent, Field, pointwise
from workbench.models.inference import place_of
from workbench.models.layers import Layers, find_layers, layers_of, layout_of

_AS_IT_IS = {
    "relu",
    "relu_",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "mish",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
}
_OUT_OF_PLACE: dict[str, Any] = {
    "add_": torch.add,
    "__iadd__": torch.add,
    "sub_": torch.sub,
    "__isub__": torch.sub,
}
_PRODUCTS = {"mul", "__mul__", "__rmul__", "mul_", "__imul__"}


def measure(
    model: nn.Module, modules: dict[str, nn.Module], fields: dict[str, Field]
) -> list[float | tuple[float, float]]:
    """The extent of the gradient of one unit of each layer by the image, in pixels.

    Parameters
    ----------
    model, modules
        The network, which is copied, and its layers by name.
    fields
        What was computed for them: it decides how large the image must be for a whole field, and
        which unit is taken. Of a layer that sees everything nothing can be measured: NaN.
    """
    known = {name: f for name, f in fields.items() if math.isfinite(f.y.high + f.x.high)}
    if not known:
        return [math.nan] * len(fields)
    twin = copy.deepcopy(model).eval().double()
    layers = {name: twin.get_submodule(name) for name in modules if name in known}
    sides = [_side([getattr(f, axis) for f in known.values()]) for axis in ("y", "x")]
    channels = next(m.in_channels for m in twin.modules() if isinstance(m, nn.Conv2d))
    device = next((p.device for p in model.parameters()), None)
    image = torch.zeros(1, channels, *sides, dtype=torch.double, device=device, requires_grad=True)
    kept: dict[str, Tensor] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, __, output, name=name: kept.update({name: output}))
    with torch.inference_mode(False), torch.enable_grad(), _Equal():
        try:
            twin.forward(image)
        except (RuntimeError, AssertionError) as error:
            # Behind the layers a linear layer may want the usual size; before them, a transformer.
            if missing := set(layers) - set(kept):
                warnings.warn(
                    f"the fields of {len(missing)} layers are not measured, for the network takes "
                    f"no image of {sides[0]}×{sides[1]} pixels: {error}",
                    stacklevel=3,
                )
    found = {name: _extent(kept[name], known[name], image) for name in kept}
    return [found.get(name, math.nan) for name in fields]


def _side(extents: list[Extent]) -> int:
    """A length that holds the field of the unit that is looked at in every layer."""
    most = max(extent.high + _unit(extent) * extent.step for extent in extents)
    step = math.ceil(max(extent.step for extent in extents))
    return step * (math.ceil(most / step) + 1)


def _unit(extent: Extent) -> int:
    """The first unit whose field begins within the image."""
    return max(0, math.ceil(-extent.low / extent.step))


def _extent(output: Tensor, field: Field, image: Tensor) -> float | tuple[float, float]:
    unit = output.movedim(field.axes, (-2, -1))[..., _unit(field.y), _unit(field.x)].sum()
    (gradient,) = torch.autograd.grad(unit, image, retain_graph=True)
    seen = (gradient != 0).flatten(0, 1).any(0).nonzero()
    y, x = (seen.amax(0) - seen.amin(0) + 1).tolist()
    return x if y == x else (y, x)


class _Equal(TorchFunctionMode):
    """While this is entered, nothing cancels out or is cut off.

    Convolutions weigh all channels and places equally, maximum pooling takes the mean, and
    nonlinearities and normalisations do nothing.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, options = getattr(func, "__name__", ""), dict(kwargs or {})
        if name in _AS_IT_IS:
            return args[0]
        if name in _PRODUCTS:  # of a gate with 0 nothing would be seen
            both = all(isinstance(factor, Tensor) for factor in args)
            return torch.add(*args) if both else torch.mul(*args)
        if name in _OUT_OF_PLACE:
            return _OUT_OF_PLACE[name](*args, **options)
        if name == "conv2d":
            return _convolve(*args, **options)
        size = Arguments(args, options).pair(1, "output_size", 1)
        if name.startswith("adaptive_") and size != (1, 1):
            raise RuntimeError("its adaptive pooling takes other windows there")
        if name in ("max_pool2d", "max_pool2d_with_indices"):
            return _mean_pool(*args, **options)
        if name == "lp_pool2d":
            return F.avg_pool2d(args[0], *args[2:], **options)
        if name == "linear":
            return args[0].mean(-1, keepdim=True).expand(*args[0].shape[:-1], len(args[1]))
        return func(*args, **options)


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """A convolution whose weights are all the same: one channel is computed for all."""
    del bias, groups
    ones = torch.ones_like(weight[:1, :1])
    found = F.conv2d(x.mean(1, keepdim=True), ones, None, stride, padding, dilation)
    return found.expand(-1, len(weight), -1, -1)


def _mean_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The sum over the same windows, as a convolution of each channel, which knows dilation."""
    del return_indices
    channels = x.shape[1]
    size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    ones = torch.ones(channels, 1, *size, dtype=x.dtype, device=x.device)
    pooled = F.max_pool2d(
        x[:1, :1].detach(), kernel_size, stride or size, padding, dilation, ceil_mode
    )
    # Enough at the end for a window that ceil_mode lets hang over.
    x = F.pad(x, (0, size[1], 0, size[0])) if ceil_mode else x
    found = F.conv2d(x, ones, None, stride or size, padding, dilation, channels)
    return found[:, :, : pooled.shape[2], : pooled.shape[3]]


class FieldTracker(TorchFunctionMode):
    """While this is entered, tensors that come from `image` have their fields kept.

    It stands in front of torch's functions and so sees every operation of the true graph: those of
    modules and plain functions, branches, loops. A tensor's field is that of its first unit. The
    statistics that group, layer and instance norms take over the plane are not counted.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.fields = WeakTensorKeyDictionary()
        self.fields[image] = Field()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = dict(kwargs or {})
        given = [t for t in _tensors((*args, *options.values())) if t in self.fields]
        before = [(self.fields[t], t) for t in given]
        output = func(*args, **options)
        if before:
            rule = RULES.get(getattr(func, "__name__", ""), pointwise)
            for result in _tensors((output,)):
                self.fields[result] = rule(before, result, Arguments(args, options))
        return output


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
        elif isinstance(value, Mapping):
            yield from _tensors(value.values())


def receptive_field(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    layers: Layers | None = None,
    *,
    object_size: float | None = None,
    confirm: bool = False,
) -> pd.DataFrame:
    """The receptive fields of layers, computed over the graph that the network really runs.

    Branches are joined, so that the widest counts; dilation, pooling, upsampling and padding are
    followed; what pools over the whole image, attends or flattens sees everything. The network is
    run once; a preset that ``models.load`` attached is left out.

    Parameters
    ----------
    model
        Any network for images.
    input_shape
        (channel, y, x) of an image.
    layers
        Names or modules; by default all whose output has a plane.
    object_size
        Length in pixels of what the network is to see whole: adds a column ``covers``.
    confirm
        Measure every field as well, as the extent of the gradient of one unit by the image, on an
        image large enough for it: adds a column ``measured``. Weights are made equal and positive
        and nonlinearities left out, so that no gradient vanishes by chance; the model itself is
        not changed.

    Returns
    -------
    pandas.DataFrame
        By layer, without `layers` in the order in which they run: ``size``, ``stride`` and
        ``padding`` in pixels of the image, ``output`` (y, x), and ``used``: whether the network's
        output depends on the plane, as it does not on patches behind a transformer's last
        attention, of which only the class token is read.
        The size is that of the whole field, which may be larger than the image, and ``inf`` for
        everything; the padding is how far the first unit's field begins outside of the image. A
        pair (y, x) where the two differ.

    Raises
    ------
    ValueError
        There is no such layer, it was not reached, or its output has no plane; or the network's
        file hides all of them.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
    >>> receptive_field(model, (3, 32, 32), confirm=True)[["size", "measured"]].values.tolist()
    [[7, 7], [11, 11]]
    """
    every = [name for name in layers_of(model) if name]
    modules = find_layers(model, every if layers is None else layers)
    found = _follow(model, modules, input_shape)
    if layers is not None:
        found = {name: found[name] for name in modules if name in found}
    if layers is not None and (flat := [name for name in modules if name not in found]):
        raise ValueError(f"layer {flat[0]!r} was not reached, or its output has no plane")
    rows = [
        {
            "size": _both(field, lambda extent: extent.high - extent.low),
            "stride": _both(field, lambda extent: extent.step),
            "padding": _both(field, lambda extent: -extent.low),
            "output": plane,
        }
        for field, plane in found.values()
    ]
    used = _used(model, {name: modules[name] for name in found}, input_shape)
    table = pd.DataFrame(rows, index=pd.Index(list(found), name="layer"))
    table["used"] = [name in used for name in found]
    if object_size is not None:
        table["covers"] = [min(np.atleast_1d(size)) >= object_size for size in table["size"]]
    if confirm:
        fields = {name: field for name, (field, _) in found.items()}
        measured = measure(model, {name: modules[name] for name in found}, fields)
        table["measured"] = pd.Series(measured, index=table.index)
    return table


def narrowest(table: pd.DataFrame) -> str:
    """The layer to explain by default: with the fewest units in its plane; of several, the last.

    Layers on which the output does not depend are passed over, and so are linear projections,
    such as the queries of an attention.

    Examples
    --------
    >>> narrowest(receptive_field(nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2)), (3, 8, 8)))
    '1'
    """
    used = table[table["used"]] if table["used"].any() else table
    return str(used["output"][::-1].map(math.prod).idxmin())


def _both(field: Field, what: Callable[[Extent], float]) -> float | tuple[float, float]:
    """A number for both axes, or one for each; whole numbers where they are."""
    y, x = (int(v) if v == (v // 1) else v for v in (what(field.y), what(field.x)))
    return x if y == x or y != y else (y, x)


def _follow(
    model: nn.Module, modules: dict[str, nn.Module], shape: tuple[int, int, int]
) -> dict[str, tuple[Field, tuple[int, int]]]:
    """The field and the plane of each layer's output; of a layer that runs often, of the last."""
    found: dict[str, tuple[Field, tuple[int, int]]] = {}
    with undisturbed(model):
        image = torch.zeros(1, *shape)
        image = image.to(place_of(model, image))
        tracker = FieldTracker(image)

        def see(name: str, output: Any) -> None:
            if not isinstance(output, Tensor) or output not in tracker.fields:
                return
            field = tracker.fields[output]
            found.pop(name, None)  # of several runs the last counts, also for the order
            if field is not None and math.prod(plane := field.plane(output)) > 1:
                found[name] = field, plane
            elif field is None and (grid := _grid(model, name, output, image)):
                everything = Extent(step=math.nan).unbounded()
                found[name] = Field(everything, everything), grid

        with tracker, _watched(modules, see):
            # `forward`, not a call: a preset's hook would resize the image.
            model.forward(image)
    return found


def _used(model: nn.Module, modules: dict[str, nn.Module], shape: tuple[int, int, int]) -> set[str]:
    """The layers on whose plane the output depends, by the gradient of a random sum of it."""
    rng = torch.Generator().manual_seed(0)
    kept: dict[str, Tensor] = {}
    with undisturbed(model), torch.enable_grad():
        image = torch.rand(1, *shape, generator=rng)
        image = image.to(place_of(model, image)).requires_grad_()
        with _watched(modules, lambda name, output: kept.update({name: output})):
            outputs = [t for t in _tensors((model.forward(image),)) if t.requires_grad]
        if not outputs:
            return set()
        sums = [(t * torch.randn(t.shape, generator=rng).to(t)).sum() for t in outputs]
        score = torch.stack(sums).sum()
        gradients = torch.autograd.grad(score, list(kept.values()), allow_unused=True)
    used = set()
    for (name, output), gradient in zip(kept.items(), gradients, strict=True):
        if gradient is None or isinstance(modules[name], nn.Linear):
            continue
        try:
            plane = layout_of(model, name, output, shape[1:], 1).to_maps(gradient)
        except ValueError:
            plane = gradient
        if plane.any():
            used.add(name)
    return used


def _grid(model: nn.Module, name: str, output: Tensor, image: Tensor) -> tuple[int, int] | None:
    try:
        y, x = layout_of(model, name, output, image.shape[-2:], len(image)).grid
    except ValueError:
        return None
    return (y, x) if y * x > 1 else None


@contextmanager
def _watched(modules: dict[str, nn.Module], see: Callable[[str, Any], Any]) -> Iterator[None]:
    """Have `see` called with the name and the output of each layer that runs."""
    with ExitStack() as stack:
        for name, module in modules.items():
            hook = partial(lambda name, _, __, output: see(name, output), name)
            stack.callback(module.register_forward_hook(hook).remove)
        yield
