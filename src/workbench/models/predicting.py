"""What a network says each image is."""

from typing import Any, Literal

import numpy as np
import xarray as xr
from torch import Tensor, nn

from workbench.models.batching import run

Activation = Literal["softmax", "sigmoid", "none"]


def predict(
    model: nn.Module,
    ds: xr.Dataset,
    *,
    activation: Activation = "softmax",
    batch_size: int = 256,
    progress: bool = True,
) -> xr.DataArray:
    """Class probabilities of every image.

    Parameters
    ----------
    model
        What :func:`workbench.models.load` returns, or any torch module that takes float images
        (sample, channel, y, x) in [0, 1] and returns scores (sample, class). It runs where it
        lies, on the CPU or a GPU, and its training mode is put back.
    ds
        An image dataset. Integer images are scaled to [0, 1]; grey ones have their channel
        repeated for a network that takes three; dask-backed ones are loaded a few chunks at a time.
    activation
        What makes probabilities of the network's scores: ``"softmax"``, which leaves rows alone
        that are probabilities already (none negative, their sum 1); ``"sigmoid"`` for independent
        labels; ``"none"`` for the scores themselves.
    batch_size
        Images at a time.
    progress
        Show a bar.

    Returns
    -------
    xarray.DataArray
        float32 (sample, class); ``class`` holds the network's own ``classes`` where it has them,
        else numbers.

    Raises
    ------
    KeyError
        ``ds`` has no ``image``.
    ValueError
        The images have no pixels, NaN among them, or channels that the network does not take;
        the network's output is not one row of scores for each image, or is NaN.

    Examples
    --------
    >>> from workbench import datasets, models
    >>> ds = datasets.load("photos", n=20)
    >>> probability = models.predict(models.load("cifar10"), ds, progress=False)
    >>> probability.sizes["class"], str(probability["class"].values[3])
    (10, 'cat')
    """
    if activation not in ("softmax", "sigmoid", "none"):
        raise ValueError(f"activation={activation!r}: it must be 'softmax', 'sigmoid' or 'none'")
    rows = [_rows(output, n) for output, n in run(model, ds, batch_size, progress)]
    scores = np.concatenate(rows).astype(np.float64)
    if np.isnan(scores).any():
        bad = np.isnan(scores).any(axis=1)
        first = ds["sample"][bad.argmax()].item()
        raise ValueError(f"the network returns NaN for {bad.sum()} images, first {first!r}")
    names = getattr(model, "classes", None)
    coords: dict[str, Any] = {"class": np.arange(scores.shape[1])}
    if names is not None and len(names) == scores.shape[1]:
        coords["class"] = np.asarray(list(names), dtype=np.str_)
    if "sample" in ds.coords:
        coords["sample"] = ds["sample"]
    return xr.DataArray(
        _probabilities(scores, activation).astype(np.float32),
        dims=("sample", "class"),
        coords=coords,
        name="probability",
        attrs={"model": type(model).__name__, "activation": activation},
    )


def _rows(output: Any, n: int) -> np.ndarray:
    """The scores of one batch."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != n:
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the network gives {what} for {n} images, not one row of scores each")
    rows: np.ndarray = output.float().cpu().numpy()
    return rows


def _probabilities(scores: np.ndarray, activation: Activation) -> np.ndarray:
    if activation == "none":
        return scores
    if activation == "sigmoid":
        # tanh does not overflow
        return np.asarray((1 + np.tanh(scores / 2)) / 2)
    if scores.shape[1] == 1:
        raise ValueError("the network returns one score an image; say activation='sigmoid'")
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
