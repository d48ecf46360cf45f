"""Measure receptive fields by gradients, to confirm what was computed."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from workbench.gradcam.fields import Extent, Field

_AS_IT_IS = {
    "relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "hardtanh", "hardswish",
    "hardsigmoid", "batch_norm", "group_norm", "instance_norm", "layer_norm",
}  # fmt: skip
_OUT_OF_PLACE: dict[str, Any] = {
    "add_": torch.add, "__iadd__": torch.add, "mul_": torch.mul, "__imul__": torch.mul,
    "sub_": torch.sub, "__isub__": torch.sub,
}  # fmt: skip


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
        except RuntimeError:
            # Behind the layers a linear layer may want the usual size.
            if set(kept) != set(layers):
                raise
    found = {name: _extent(kept[name], known[name], image) for name in known}
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
        if name in _OUT_OF_PLACE:
            return _OUT_OF_PLACE[name](*args, **options)
        if name == "conv2d":
            return _convolve(*args, **options)
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
