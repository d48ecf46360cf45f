"""What a layer of a network makes of each image."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable


def activations(
    model: nn.Module,
    ds: xr.Dataset,
    layer: str | None = None,
    *,
    batch_size: int = 256,
    progress: bool = True,
) -> xr.DataArray:
    """One vector for each image: the output of a layer, averaged over the image.

    Parameters
    ----------
    model
        Any torch module that takes float images (sample, channel, y, x) in [0, 1]. Its training
        mode is put back when this returns, and it keeps no hook.
    ds
        An image dataset; dask-backed images are loaded a batch at a time.
    layer
        A name out of ``model.named_modules()``. By default the penultimate layer: what goes into
        the last ``nn.Linear``.
    batch_size
        Images at a time.
    progress
        Show a bar.

    Returns
    -------
    xarray.DataArray
        float32 (sample, feature); ``attrs`` names the layer.

    Raises
    ------
    ValueError
        No layer of that name (the nearest are listed), no ``nn.Linear`` to stand before, or the
        layer's output is not one array a sample.

    Examples
    --------
    >>> from workbench.models import SmallResNet
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"),
    ...                            np.zeros((2, 32, 32, 3), np.uint8))})
    >>> activations(SmallResNet(), ds, "layer2", progress=False).shape
    (2, 96)
    """
    name, module, before = _layer(model, layer)
    seen: list[Tensor] = []
    found: list[np.ndarray] = []
    hook = module.register_forward_hook(_keep(seen, before))
    try:
        with evaluating(model), torch.inference_mode():
            for batch in batches(ds, batch_size, progress):
                seen.clear()
                model(batch.to(_device(model)))
                found.append(_vectors(seen, name, len(batch)))
    finally:
        hook.remove()
    coords = {"sample": ds["sample"]} if "sample" in ds.coords else {}
    return xr.DataArray(
        np.concatenate(found),
        dims=("sample", "feature"),
        coords=coords,
        name="features",
        attrs={"kind": "network", "layer": name},
    )


def batches(ds: xr.Dataset, batch_size: int, progress: bool = True) -> Iterator[Tensor]:
    """Yield the images as float tensors (sample, channel, y, x), integers scaled to [0, 1]."""
    image = ds["image"].transpose("sample", "channel", "y", "x")
    total = image.sizes["sample"]
    with tqdm(total=total, desc="network", unit="image", disable=not progress) as bar:
        for start in range(0, total, batch_size):
            values = image.isel(sample=slice(start, start + batch_size)).values
            scale = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
            yield torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32) / scale)
            bar.update(len(values))


def _layer(model: nn.Module, layer: str | None) -> tuple[str, nn.Module, bool]:
    """The layer's name, its module, and whether its input is meant, not its output."""
    modules = dict(model.named_modules())
    if layer is not None:
        if layer not in modules:
            near = get_close_matches(layer, modules, n=3) or list(modules)[1:6]
            raise ValueError(f"the model has no layer {layer!r}; there is {', '.join(near)}")
        return layer, modules[layer], False
    linear = [(name, module) for name, module in modules.items() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("the model has no nn.Linear to stand before; name a layer")
    name, module = linear[-1]
    return f"before {name}", module, True


def _keep(seen: list[Tensor], before: bool) -> "Callable[..., None]":
    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(inputs[0] if before else output)

    return hook


def _vectors(seen: list[Tensor], name: str, n: int) -> np.ndarray:
    """The layer's output for one batch as (sample, feature)."""
    value = seen[-1] if seen else None
    if not isinstance(value, Tensor) or value.ndim < 2 or len(value) != n:
        what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"layer {name!r} gives {what} for {n} images, not one array a sample")
    vectors = value.flatten(2).mean(2) if value.ndim > 2 else value
    result: np.ndarray = vectors.float().cpu().numpy()
    return result


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


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
