"""What the units of a tensor see of the image."""

import math
from dataclasses import dataclass

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
