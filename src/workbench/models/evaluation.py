"""How good a network's predictions are."""

import numpy as np
import xarray as xr
from torch import nn

from workbench.models.calibration import calibration_error
from workbench.models.predicting import predict


def evaluate(model: nn.Module, ds: xr.Dataset, progress: bool = True) -> dict[str, float | int]:
    """Accuracy and calibration on a labelled dataset.

    Parameters
    ----------
    model
        As :func:`workbench.models.predict` takes it.
    ds
        An image dataset with ``label``; samples without one (-1) are left out.
    progress
        Show a bar.

    Returns
    -------
    dict
        ``n``; ``accuracy``; ``expected_calibration_error`` over 15 bins of equal width (Guo et
        al. 2017, arXiv:1706.04599, Eq. 3).

    Raises
    ------
    ValueError
        No sample has a label, or the network's classes are not the dataset's.
    """
    ds = ds.isel(sample=np.flatnonzero(ds["label"].values >= 0))
    if not ds.sizes["sample"]:
        raise ValueError("no sample has a label")
    found = predict(model, ds, progress=progress)
    labels = ds["label"].values
    theirs = getattr(model, "classes", None)
    ours = ds["class"].values.tolist() if "class" in ds.coords else None
    if (theirs and ours and theirs != ours) or labels.max() >= found.sizes["class"]:
        raise ValueError(f"the network's classes are {theirs}, the dataset's {ours}")
    confidence, right = found.values.max(axis=1), found.values.argmax(axis=1) == labels
    return {
        "n": len(right),
        "accuracy": round(float(right.mean()), 4),
        "expected_calibration_error": round(calibration_error(confidence, right), 4),
    }
