"""What a layer of a network makes of each image."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from torch import Tensor, nn

from workbench.models.batching import run
from workbench.models.layers import find_layer, layers_of

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
        No layer of that name (the nearest are listed), no ``nn.Linear`` to stand before, the
        layer's output is not one array a sample, or the network was read from a file that hides
        its layers (TorchScript, torch.export, ONNX). The same for bad images as in
        :func:`workbench.models.predict`.

    Examples
    --------
    >>> from workbench.models import SmallResNet
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"),
    ...                            np.zeros((2, 32, 32, 3), np.uint8))})
    >>> activations(SmallResNet(), ds, "layer2", progress=False).shape
    (2, 128)
    """
    name, module, before = _layer(model, layer)
    seen: list[Tensor] = []
    found: list[np.ndarray] = []
    hook = module.register_forward_hook(_keep(seen, before))
    try:
        for _, n in run(model, ds, batch_size, progress):
            found.append(_vectors(seen, name, n))
            seen.clear()
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


def _layer(model: nn.Module, layer: str | None) -> tuple[str, nn.Module, bool]:
    """The layer's name, its module, and whether its input is meant, not its output."""
    if layer is not None:
        return layer, find_layer(model, layer), False
    every = layers_of(model).items()
    linear = [(name, module) for name, module in every if isinstance(module, nn.Linear)]
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
