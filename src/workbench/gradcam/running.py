"""Run a network on images without leaving a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from workbench.models.batching import batches, channels_of, evaluating, place_of


def images_for(model: nn.Module, x: Tensor | xr.Dataset) -> Tensor:
    """The images as the model takes them, checked, outside any graph.

    They get the model's device and precision; grey ones have their channel repeated for a model
    that takes three.
    """
    if isinstance(x, xr.Dataset):
        x = next(batches(x, max(1, x.sizes["sample"]), progress=False))
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 4 or not len(x):
        what = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"images are a float tensor (sample, channel, y, x), got {what}")
    bad = (~torch.isfinite(x)).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"NaN or infinite pixels in {len(bad)} images; the first is at {bad[0]}")
    if (x.shape[1], channels_of(model)) == (1, 3):
        x = x.expand(-1, 3, -1, -1)
    with torch.inference_mode(False):
        return (x.clone() if x.is_inference() else x.detach()).to(place_of(model, x))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients, whatever surrounds it; all as before afterwards."""
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        yield


def logits(output: Any) -> Tensor:
    """The model's output as a tensor: itself, or its ``logits``."""
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise ValueError(f"the model gives a {type(output).__name__}, not a tensor of scores")
    if not torch.isfinite(found).all():
        raise ValueError("the model's output holds NaN or infinities")
    return found
