"""Let a network take images in [0, 1], whatever it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Preprocess:
    """What is done to images before they reach a network: a resize, then (x - mean) / std.

    Attach it by ``model.register_forward_pre_hook``: the network keeps its class and the names of
    its layers, and gradients flow through to the image.

    Parameters
    ----------
    size
        Height and width that images of another size are brought to, whole: nothing is cut off, so
        a map of what the network saw lies over the entire image. None leaves the size alone.
    mean, std
        Of each channel, in [0, 1]. None leaves the values alone.
    interpolation
        ``"bilinear"`` or ``"bicubic"``, with antialiasing.

    Examples
    --------
    >>> model = nn.Conv2d(1, 1, 1)
    >>> _ = model.register_forward_pre_hook(Preprocess(size=(8, 8), mean=[0.5], std=[0.25]))
    >>> model(torch.rand(2, 1, 4, 4)).shape
    torch.Size([2, 1, 8, 8])
    """

    size: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: str = "bilinear"

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Prepare the first input, as a forward pre-hook."""
        return (self.apply(inputs[0]), *inputs[1:])

    def apply(self, x: Tensor) -> Tensor:
        """Resize and normalise images (sample, channel, y, x)."""
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, self.size, mode=self.interpolation, antialias=True)
            if self.interpolation == "bicubic":
                # it overshoots at edges
                x = x.clamp(0, 1)
        for values, step in ((self.mean, torch.sub), (self.std, torch.div)):
            if values is not None:
                if len(values) != x.shape[1]:
                    raise ValueError(f"the images have {x.shape[1]} channels, not {len(values)}")
                x = step(x, torch.tensor(values, dtype=x.dtype, device=x.device).view(1, -1, 1, 1))
        return x
