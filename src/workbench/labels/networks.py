"""Train a network on some images and ask it about others."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from workbench.models.batching import batches, evaluating
from workbench.models.training import Recipe, train


def train_and_predict(
    model: Any, seen: xr.Dataset, asked: xr.Dataset, seed: int, recipe: Recipe | None = None
) -> NDArray[np.float64]:
    """Probabilities (sample, class) for `asked`, of a network trained on `seen`."""
    train(model, seen, recipe or replace(Recipe(), seed=seed))
    return predict(model, asked)


def predict(model: nn.Module, ds: xr.Dataset) -> NDArray[np.float64]:
    """Probabilities (sample, class) of a network that returns logits."""
    with evaluating(model), torch.inference_mode():
        found = [model(batch).double().softmax(1) for batch in batches(ds, 500, progress=False)]
    return np.asarray(torch.cat(found).numpy())
