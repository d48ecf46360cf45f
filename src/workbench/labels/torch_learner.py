"""Train a network on some images and ask it about others."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from workbench.models import predict
from workbench.models.augmentation import Recipe
from workbench.models.training import train


class Learner:
    """Trains a new network on some images each time, and asks it about others.

    Parameters
    ----------
    make
        Makes the network.
    first
        One that it has made, to tell a new one from one that has learnt already.
    ds
        An image dataset with ``label``.
    classes
        How many outputs the network must have.
    seed
        Of the first weights, and of the training where there is no `recipe`.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        first: nn.Module,
        ds: xr.Dataset,
        classes: int,
        seed: int,
        recipe: Recipe | None,
    ) -> None:
        self._make, self._first, self._ds = make, first, ds
        self._classes, self._seed = classes, seed
        self._recipe = recipe or replace(Recipe(), seed=seed)
        one = ds.isel(sample=slice(1))
        outputs = predict(first, one, activation="none", progress=False).sizes["class"]
        if outputs != classes:
            raise ValueError(f"the network has {outputs} outputs for {classes} classes")

    def __call__(self, seen: NDArray[np.intp], asked: NDArray[np.intp]) -> NDArray[np.float64]:
        """Probabilities (asked, class), of a network trained on the samples at `seen`."""
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            model = self._make()
            if _places(model) & _places(self._first):
                raise ValueError(
                    "model gives the same network each time, which would be asked about images "
                    "that it has learnt; it must make a new one, as lambda: Net() does"
                )
            train(model, self._ds.isel(sample=seen), self._recipe, progress=False)
            found = predict(model, self._ds.isel(sample=asked), progress=False)
            return found.values.astype(np.float64)


def _places(model: nn.Module) -> set[int]:
    """Where its weights lie in memory."""
    return {weight.data_ptr() for weight in model.parameters()}
