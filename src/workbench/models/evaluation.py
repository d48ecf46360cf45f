"""How good a network's predictions are."""

import numpy as np
import torch
import xarray as xr
from torch import nn

from workbench.models.activations import batches, evaluating


def evaluate(model: nn.Module, ds: xr.Dataset, progress: bool = True) -> dict[str, float | int]:
    """Accuracy and calibration on a labelled dataset.

    Parameters
    ----------
    model
        Takes float images (sample, channel, y, x) in [0, 1] and returns logits.
    ds
        An image dataset with ``label``.
    progress
        Show a bar.

    Returns
    -------
    dict
        ``n``; ``accuracy``; ``expected_calibration_error`` over 15 bins of equal width (Guo et
        al. 2017, arXiv:1706.04599, Eq. 3).
    """
    with evaluating(model), torch.inference_mode():
        found = [model(batch).softmax(1) for batch in batches(ds, 500, progress)]
    confidence, predicted = torch.cat(found).max(1)
    right = predicted.numpy() == ds["label"].values
    return {
        "n": len(right),
        "accuracy": round(float(right.mean()), 4),
        "expected_calibration_error": round(calibration_error(confidence.numpy(), right), 4),
    }


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy, over bins of confidence, by their size.

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.9]), np.array([True, False])), 3)
    0.4
    """
    bin_of = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gap = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(right))
