"""Show a network the images of a dataset, a batch at a time."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm import tqdm

from workbench._samples import unit_range


def run(
    model: nn.Module, ds: xr.Dataset, batch_size: int, progress: bool = True
) -> Iterator[tuple[Any, int]]:
    """Yield what the network returns for each batch, and the number of images in the batch.

    Evaluation mode, no gradients, on the network's own device; its modes are put back at the end.
    """
    place = place_of(model, torch.empty(0))
    with evaluating(model), torch.inference_mode():
        for batch in batches(ds, batch_size, progress):
            yield _forward(model, batch.to(place)), len(batch)


def place_of(model: nn.Module, default: Tensor) -> Tensor:
    """A tensor on the device and in the precision of the network; `default` without parameters."""
    return next((p for p in model.parameters() if p.is_floating_point()), default)


def batches(ds: xr.Dataset, batch_size: int, progress: bool = True) -> Iterator[Tensor]:
    """Yield the images as float tensors (sample, channel, y, x), integers scaled to [0, 1].

    Raises
    ------
    KeyError
        ``ds`` has no ``image``.
    ValueError
        `batch_size` is below 1, there is no image, or a pixel is NaN or infinite.
    """
    if "image" not in ds:
        raise KeyError(f"the dataset has no variable 'image'; it has {sorted(map(str, ds))}")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: it must be at least 1")
    image = ds["image"].transpose("sample", "channel", "y", "x")
    total = image.sizes["sample"]
    if total == 0:
        raise ValueError("the dataset holds no image: 'sample' has length 0")
    warned = False
    with tqdm(total=total, desc="network", unit="image", disable=not progress) as bar:
        for start, stop in _pieces(image, batch_size):
            piece = image.isel(sample=slice(start, stop))
            values = piece.values
            if values.dtype.kind == "f":
                warned = _check(piece, values, warned)
            for part in np.array_split(values, -(-len(values) // batch_size)):
                yield torch.from_numpy(unit_range(part))
                bar.update(len(part))


def _pieces(image: xr.DataArray, batch_size: int) -> Iterator[tuple[int, int]]:
    """Which samples to load at once: whole chunks, so that dask computes each but once."""
    total = image.sizes["sample"]
    ends = range(batch_size, total + batch_size, batch_size)
    if image.chunks is not None:
        ends = np.cumsum(image.chunksizes["sample"]).tolist()
    start = 0
    for end in ends:
        if end - start >= batch_size or end >= total:
            yield start, min(end, total)
            start = end


def _check(image: xr.DataArray, values: np.ndarray, warned: bool) -> bool:
    """Refuse pixels that are no numbers; warn once of pixels beyond [0, 1]."""
    broken = ~np.isfinite(values).all(axis=(1, 2, 3))
    if broken.any():
        first = image["sample"][broken.argmax()].item()
        raise ValueError(f"sample {first!r} holds NaN or infinite pixels; fill or drop it")
    low, high = values.min(), values.max()
    if not warned and (low < 0 or high > 1):
        text = f"float images should lie in [0, 1] for a network; these run from {low} to {high}"
        warnings.warn(text, stacklevel=2)
        return True
    return warned


def _forward(model: nn.Module, batch: Tensor) -> Any:
    """Run the network; a grey image has its one channel repeated where three are wanted."""
    wants = channels_of(model)
    if (batch.shape[1], wants) == (1, 3):
        batch = batch.expand(-1, 3, -1, -1)
    try:
        return model(batch)
    except (RuntimeError, ValueError) as error:
        has = batch.shape[1]
        if wants in (has, None):
            raise
        raise ValueError(f"the images have {has} channels, the network takes {wants}") from error


def channels_of(model: nn.Module) -> int | None:
    """How many image channels a network takes, as far as itself or its first convolution tells."""
    known = getattr(model, "in_channels", None)
    if isinstance(known, int):
        return known
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return first.in_channels if first is not None else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout and batch statistics off, and every module back to what it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
