"""Receptive field of a tensor's units, and what each of torch's operations does to it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Extent:
    """Along one axis: the pixels [low, high) that the first unit sees, and the units' distance."""

    low: float = 0.0
    high: float = 1.0
    step: float = 1.0

    def windowed(self, kernel: int, stride: int, padding: int = 0, dilation: int = 1) -> "Extent":
        """After a window, such as a convolution's, was moved over the units."""
        reach = dilation * (kernel - 1) - padding
        low, high = self.low - padding * self.step, self.high + reach * self.step
        return Extent(low, high, self.step * stride)

    def enlarged(self, factor: float, reach: int) -> "Extent":
        """After `factor` units were made of each, from it and `reach` neighbours to each side."""
        low, high = self.low - reach * self.step, self.high + reach * self.step
        return Extent(low, high, self.step / factor)

    def joined(self, other: "Extent") -> "Extent":
        """Of a unit to which two branches lead."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Extent(low, high, max(self.step, other.step))

    def unbounded(self) -> "Extent":
        """Of a unit that sees everything."""
        return Extent(-math.inf, math.inf, self.step)


@dataclass(frozen=True)
class Field:
    """What a tensor's units see along y and x, and which of its axes, from behind, these are."""

    y: Extent = Extent()
    x: Extent = Extent()
    axes: tuple[int, int] = (-2, -1)

    def plane(self, tensor: Tensor) -> tuple[int, int]:
        """The tensor's size along y and x; zeros where it has too few axes."""
        if tensor.ndim < -min(self.axes):
            return (0, 0)
        return tensor.shape[self.axes[0]], tensor.shape[self.axes[1]]


#: A tensor's field; None where its plane is mixed or flattened away: it sees everything.
Known = Field | None
#: From the fields and tensors that went in, the result, arguments and options: the result's field.
Rule = Callable[[list[tuple[Known, Tensor]], Tensor, "Arguments"], Known]


class Arguments:
    """An operation's arguments, by place or by name."""

    def __init__(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._args = args
        self._options = options

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """The argument at that place, or of that name, or the default."""
        found = self._args[place] if place < len(self._args) else self._options.get(name)
        return default if found is None else found

    def pair(self, place: int, name: str, default: Any) -> tuple[Any, Any]:
        """An argument for y and for x."""
        value = self.get(place, name, default)
        values = tuple(value) if isinstance(value, list | tuple) and value else (value,)
        return values[0], values[-1]


def pointwise(before: list[tuple[Known, Tensor]], result: Tensor, _: Arguments) -> Known:
    """Every unit sees what the units at its place see: branches are joined.

    A branch without a plane, or with one unit for all places, such as the gate of a
    squeeze-and-excitation block, lets it see everything.
    """
    kept = [f for f, t in before if f is not None and f.plane(t) == f.plane(result)]
    if not kept or any(field.axes != kept[0].axes for field in kept):
        return None
    y, x = kept[0].y, kept[0].x
    for field in kept[1:]:
        y, x = y.joined(field.y), x.joined(field.x)
    if len(kept) < len(before):
        y, x = y.unbounded(), x.unbounded()
    return Field(y, x, kept[0].axes)


def _mixing(*_: Any) -> Known:
    return None


def _windowed(
    field: Known, kernel: Any, stride: Any, padding: Any, dilation: Any = (1, 1)
) -> Known:
    if field is None:
        return None
    y, x = zip(kernel, stride, padding, dilation, strict=True)
    return replace(field, y=field.y.windowed(*y), x=field.x.windowed(*x))


def _convolution(before: list[tuple[Known, Tensor]], _: Tensor, given: Arguments) -> Known:
    kernel = tuple(given.get(1, "weight").shape[-2:])
    dilation = given.pair(5, "dilation", 1)
    padding = given.pair(4, "padding", 0)
    if padding[0] in ("same", "valid"):
        same = padding[0] == "same"
        padding = tuple(d * (k - 1) // 2 * same for d, k in zip(dilation, kernel, strict=True))
    return _windowed(before[0][0], kernel, given.pair(3, "stride", 1), padding, dilation)


def _transposed(before: list[tuple[Known, Tensor]], _: Tensor, given: Arguments) -> Known:
    """Where windows overlap, a unit has several sources: ceil(kernel / stride) of them."""
    field = before[0][0]
    if field is None:
        return None
    kernel = tuple(given.get(1, "weight").shape[-2:])
    stride = given.pair(3, "stride", 1)
    padding = given.pair(4, "padding", 0)
    dilation = given.pair(7, "dilation", 1)

    def spread(extent: Extent, k: int, s: int, p: int, d: int) -> Extent:
        first = -((d * (k - 1) - p) // s)
        low, high = extent.low + first * extent.step, extent.high + (p // s) * extent.step
        return Extent(low, high, extent.step / s)

    y, x = zip(kernel, stride, padding, dilation, strict=True)
    return replace(field, y=spread(field.y, *y), x=spread(field.x, *x))


def _pooling(before: list[tuple[Known, Tensor]], _: Tensor, given: Arguments) -> Known:
    kernel = given.pair(1, "kernel_size", 1)
    stride = given.pair(2, "stride", None)
    stride = kernel if stride[0] is None else stride
    # The fifth argument is the dilation of maximum pooling, and ceil_mode of average pooling.
    dilation = given.pair(4, "dilation", 1)
    dilation = (1, 1) if isinstance(dilation[0], bool) else dilation
    return _windowed(before[0][0], kernel, stride, given.pair(3, "padding", 0), dilation)


def _power_pooling(before: list[tuple[Known, Tensor]], _: Tensor, given: Arguments) -> Known:
    kernel = given.pair(2, "kernel_size", 1)
    return _windowed(before[0][0], kernel, given.pair(3, "stride", kernel), (0, 0))


def _adaptive(before: list[tuple[Known, Tensor]], result: Tensor, _: Arguments) -> Known:
    field, tensor = before[0]
    if field is None:
        return None
    sizes = list(zip(field.plane(tensor), field.plane(result), strict=True))
    stride = [i // o for i, o in sizes]
    # Where the sizes do not divide, windows differ by a unit; the widest counts.
    kernel = [max(-(-(k + 1) * i // o) - k * i // o for k in range(o)) for i, o in sizes]
    return _windowed(field, kernel, stride, (0, 0))


def _enlarging(before: list[tuple[Known, Tensor]], result: Tensor, given: Arguments) -> Known:
    field, tensor = before[0]
    if field is None:
        return None
    mode = given.get(3, "mode", "nearest")
    reach = 0 if str(mode).startswith("nearest") else 2 if mode == "bicubic" else 1
    old = field.plane(tensor)
    new = field.plane(result)
    y, x = (e.enlarged(b / a, reach) for e, a, b in zip((field.y, field.x), old, new, strict=True))
    return replace(field, y=y, x=x)


def _shuffled(before: list[tuple[Known, Tensor]], _: Tensor, given: Arguments) -> Known:
    """Channels became units: all of a unit's see what it saw."""
    field = before[0][0]
    factor = given.get(1, "upscale_factor")
    if field is None:
        return None
    return replace(field, y=field.y.enlarged(factor, 0), x=field.x.enlarged(factor, 0))


def _unshuffled(before: list[tuple[Known, Tensor]], _: Tensor, given: Arguments) -> Known:
    factor = given.pair(1, "downscale_factor", 1)
    return _windowed(before[0][0], factor, factor, (0, 0))


def _sliced(before: list[tuple[Known, Tensor]], result: Tensor, given: Arguments) -> Known:
    """A slice of the plane begins at some unit and keeps every so many."""
    field, tensor = before[0]
    index = given.get(1, "index")
    index = index if isinstance(index, tuple) else (index,)
    if field is None or not all(isinstance(i, slice | EllipsisType) for i in index):
        return pointwise(before, result, given)
    rest = [slice(None)] * (tensor.ndim - sum(isinstance(i, slice) for i in index))
    at = index.index(...) if ... in index else len(index)
    slices = [*index[:at], *rest, *index[at + 1 :]]

    def cut(extent: Extent, axis: int) -> Extent:
        start, _, step = slices[axis].indices(tensor.shape[axis])
        return extent.windowed(1, step, -start)

    return replace(field, y=cut(field.y, field.axes[0]), x=cut(field.x, field.axes[1]))


def _pad(before: list[tuple[Known, Tensor]], _: Tensor, given: Arguments) -> Known:
    field = before[0][0]
    if field is None:
        return None
    pad = [*given.get(1, "pad"), *[0] * 8]
    y, x = (pad[2 * (-axis - 1)] for axis in field.axes)
    return replace(field, y=field.y.windowed(1, 1, y), x=field.x.windowed(1, 1, x))


def _permuted(before: list[tuple[Known, Tensor]], _: Tensor, given: Arguments) -> Known:
    field, tensor = before[0]
    dims = given.get(1, "dims")
    if isinstance(dims, int):
        dims = [given.get(i, "dims") for i in range(1, 1 + tensor.ndim)]
    return _moved(field, [d % tensor.ndim for d in dims])


def _transposing(before: list[tuple[Known, Tensor]], _: Tensor, given: Arguments) -> Known:
    field, tensor = before[0]
    order = list(range(tensor.ndim))
    a = given.get(1, "dim0")
    b = given.get(2, "dim1")
    order[a], order[b] = order[b], order[a]
    return _moved(field, order)


def _moved(field: Known, order: list[int]) -> Known:
    """After the tensor's axes were put into this order."""
    if field is None:
        return None
    n = len(order)
    y, x = (order.index(axis % n) - n for axis in field.axes)
    return replace(field, axes=(y, x))


def _linear(before: list[tuple[Known, Tensor]], result: Tensor, given: Arguments) -> Known:
    field = before[0][0]
    return None if field is None or -1 in field.axes else pointwise(before, result, given)


#: Operations that do something else to the plane than to keep it, by torch's names for them.
RULES: dict[str, Rule] = {
    "conv2d": _convolution,
    "conv_transpose2d": _transposed,
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "max_pool2d_with_indices"), _pooling),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _adaptive),
    **dict.fromkeys(("interpolate", "upsample"), _enlarging),
    "pixel_shuffle": _shuffled,
    "pixel_unshuffle": _unshuffled,
    "lp_pool2d": _power_pooling,
    "__getitem__": _sliced,
    "pad": _pad,
    "permute": _permuted,
    **dict.fromkeys(("transpose", "swapaxes"), _transposing),
    "linear": _linear,
    **dict.fromkeys(
        (
            "matmul",
            "__matmul__",
            "bmm",
            "einsum",
            "scaled_dot_product_attention",
            "softmax",
            "multi_head_attention_forward",
            "roll",
            "flip",
            "cumsum",
            "grid_sample",
            "fractional_max_pool2d",
            "fold",
            "unfold",
        ),
        _mixing,
    ),
}
