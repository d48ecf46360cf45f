"""Scores of samples by the gradient of their loss."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from workbench.models import activations, predict
from workbench.models.inference import batches, evaluating, place_of


def grand(
    network: nn.Module,
    ds: xr.Dataset,
    *,
    full: bool = False,
    batch_size: int = 64,
    progress: bool = True,
) -> xr.DataArray:
    """GraNd: the length of each sample's gradient (Paul et al. 2021, arXiv:2107.07075, Eq. 3).

    Of a network at initialisation it is little more than the length of the input
    (Kirsch 2023, arXiv:2303.14753): ask one that has been trained for some epochs.

    Parameters
    ----------
    network
        Any torch module that ends in an ``nn.Linear``; asked in evaluation mode.
    ds
        An image dataset with ``label``.
    full
        The gradient of all weights, a backward pass a sample. By default that of the last layer
        alone, ``|softmax - one-hot| √(|h|² + 1)`` with its input h, which needs no gradient.
    batch_size
        Images at a time; `full` holds the gradients of as many.
    progress
        Show a bar.

    Returns
    -------
    xarray.DataArray
        float64 (sample,), high is hard.

    Raises
    ------
    ValueError
        The network has no ``nn.Linear``, or a label is no class of it.
    """
    labels = ds["label"].values
    probabilities = predict(network, ds, batch_size=batch_size, progress=progress).values
    classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, classes to {classes}")
    if full:
        lengths = _full(network, ds, batch_size, progress)
    else:
        h = activations(network, ds, batch_size=batch_size, progress=progress).values
        error = np.linalg.norm(probabilities.astype(np.float64) - np.eye(classes)[labels], axis=1)
        lengths = error * np.sqrt((h.astype(np.float64) ** 2).sum(axis=1) + 1)
    coords = {"sample": ds["sample"]} if "sample" in ds.coords else {}
    return xr.DataArray(lengths, dims="sample", coords=coords, name="grand")


def _full(network: nn.Module, ds: xr.Dataset, batch_size: int, progress: bool) -> np.ndarray:
    """The length of the gradient of all weights, for each sample."""
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    place = place_of(network, torch.empty(0))
    labels = torch.from_numpy(ds["label"].values).to(place.device)

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, values, (image[None],)), label[None])

    found, start = [], 0
    with evaluating(network):
        for batch in batches(ds, batch_size, progress):
            given = labels[start : start + len(batch)]
            each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, batch.to(place), given)
            squares = sum(g.double().flatten(1).square().sum(1) for g in each.values())
            found.append(torch.as_tensor(squares).sqrt().cpu().numpy())
            start += len(batch)
    return np.concatenate(found)
