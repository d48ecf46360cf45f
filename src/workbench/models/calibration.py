"""How far a network's probabilities can be taken at their word."""

import numpy as np
import torch
import xarray as xr
from torch.nn import functional as F

from workbench.models.augmentation import augment
from workbench.models.batching import evaluating
from workbench.models.resnet import SmallResNet
from workbench.models.training import Recipe


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy, over bins of confidence, by their size.

    Guo et al. 2017, arXiv:1706.04599, Eq. 3.

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.9]), np.array([True, False])), 3)
    0.4
    """
    bin_of = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gap = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(right))


def calibrate(model: SmallResNet, ds: xr.Dataset, recipe: Recipe, n: int = 10_000) -> float:
    """Divide a network's logits by one temperature, which its last layer takes up.

    The temperature is that of the smallest cross-entropy (Guo et al. 2017, section 4.2) on `n` of
    the training images, changed as the recipe says: the network has seen them, but a shift and a
    hidden square make them about as hard as images that it has not. No test image is used.

    Parameters
    ----------
    model
        Its last layer is changed in place; what it predicts stays the same.
    ds
        The training images, with ``label``.
    recipe
        How they are changed.
    n
        How many of them.

    Returns
    -------
    float
        The temperature, to 0.01; above 1 the network was too sure of itself.
    """
    dice = torch.Generator().manual_seed(recipe.seed)
    chosen = torch.randperm(ds.sizes["sample"], generator=dice)[:n].numpy()
    part = ds.isel(sample=np.sort(chosen))
    images = torch.from_numpy(part["image"].transpose("sample", "channel", "y", "x").values)
    labels = torch.from_numpy(part["label"].values)
    place = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        batches = (augment(some, recipe, dice).float() / 255 for some in torch.split(images, 500))
        logits = torch.cat([model(batch.to(place)).cpu() for batch in batches])
        choices = torch.arange(25, 401) / 100
        losses = torch.stack([F.cross_entropy(logits / choice, labels) for choice in choices])
        best = float(choices[losses.argmin()])
        model.fc.weight.div_(best)
        model.fc.bias.div_(best)
    return round(best, 2)
