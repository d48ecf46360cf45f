"""Recordings of training: the logits of every sample after every epoch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import dask.array
import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import nn
from tqdm import tqdm

from workbench._extras import need
from workbench.models import predict
from workbench.models.augmentation import Recipe
from workbench.models.training import train

DIMS = ("seed", "epoch", "sample", "class")


class Recorder:
    """Record the logits of a training loop, one's own or Lightning's.

    In a plain loop, or in Lightning's ``on_train_batch_end`` and ``on_train_epoch_end``, call
    :meth:`batch` with positions and logits, and :meth:`epoch` after each epoch, which then is on
    disk.

    Parameters
    ----------
    samples
        Ids of the samples, ``ds["sample"]``.
    classes
        Their names, ``ds["class"]``, or their number.
    epochs, seeds
        How many epochs each training has, and one seed for each training.
    path
        A Zarr folder that is made; by default the recording stays in memory.

    Raises
    ------
    FileExistsError
        There is something at `path` already.

    Examples
    --------
    >>> recorder = Recorder(samples=["a", "b"], classes=3, epochs=1)
    >>> recorder.batch([1, 0], torch.tensor([[0.0, 1, 2], [3, 4, 5]]))
    >>> recorder.epoch()
    >>> recorder.logits.sel(sample="a", epoch=1, seed=0).values.tolist()
    [3.0, 4.0, 5.0]
    """

    def __init__(
        self,
        samples: ArrayLike | xr.DataArray,
        classes: int | Sequence[str] | xr.DataArray,
        epochs: int,
        seeds: Sequence[int] = (0,),
        path: str | Path | None = None,
    ) -> None:
        names = np.arange(classes) if isinstance(classes, int) else np.asarray(classes)
        coords = dict(
            zip(DIMS, (list(seeds), np.arange(1, epochs + 1), samples, names), strict=True)
        )
        shape = tuple(len(np.asarray(values)) for values in coords.values())
        self._path, self._done = path, 0
        self._batch = np.full(shape[2:], np.nan, np.float16)
        # of one training, one epoch a piece, so that an epoch is one file
        pieces = {"dtype": np.float16, "chunks": (1, 1, *shape[2:])}
        empty = dask.array.full(shape, np.nan, **pieces)  # type: ignore[no-untyped-call]
        made = xr.DataArray(empty, coords, DIMS, name="logits")
        if path is None:
            self._logits = made.compute()
            return
        need("zarr", extra="dynamics")
        if Path(path).exists():
            raise FileExistsError(f"{path} is there already; delete it, or record elsewhere")
        made.to_zarr(path, compute=False, zarr_format=2)

    def batch(self, positions: ArrayLike | torch.Tensor, logits: torch.Tensor) -> None:
        """Take in the logits (sample, class) of a batch, and where its samples lie."""
        with np.errstate(over="ignore"):
            values = logits.detach().float().cpu().numpy().astype(np.float16)
        if not np.isfinite(values).all():
            worst = float(logits.detach().abs().max())
            raise ValueError(f"logits up to {worst:.3g} do not fit into float16, or are NaN")
        self._batch[np.asarray(positions)] = values

    def epoch(self) -> None:
        """Keep the epoch's logits; raise where samples were left out of it."""
        missing = np.flatnonzero(np.isnan(self._batch[:, 0]))
        if len(missing):
            raise ValueError(
                f"{len(missing)} of {len(self._batch)} samples had no logits in this epoch, the "
                f"first at position {missing[0]}; record all of them (drop_last=False)"
            )
        shape = self.logits.shape
        if self._done == shape[0] * shape[1]:
            raise ValueError(f"all {shape[1]} epochs of {shape[0]} seeds are recorded")
        at = dict(zip(DIMS, divmod(self._done, shape[1]), strict=False))
        if self._path is None:
            self._logits[at] = self._batch
        else:
            region = {name: slice(i, i + 1) for name, i in at.items()}
            values = xr.DataArray(self._batch[None, None], dims=DIMS, name="logits")
            values.to_dataset().to_zarr(
                self._path, region={**region, "sample": slice(None), "class": slice(None)}
            )
        self._batch = np.full_like(self._batch, np.nan)
        self._done += 1

    @property
    def logits(self) -> xr.DataArray:
        """float16 (seed, epoch, sample, class); NaN where nothing is recorded yet."""
        if self._path is None:
            return self._logits
        recording: xr.DataArray = xr.open_zarr(self._path)["logits"]
        return recording


def record(
    network: Callable[[], nn.Module],
    ds: xr.Dataset,
    recipe: Recipe | None = None,
    seeds: Sequence[int] = (0,),
    *,
    path: str | Path | None = None,
    progress: bool = True,
) -> xr.DataArray:
    """Training dynamics: train a network once for each seed, and keep its logits of every epoch.

    After each epoch all images are shown as they are, not augmented.

    Parameters
    ----------
    network
        Makes a new network each time, ``lambda: SmallResNet(1, 10)``.
    ds
        An image dataset with ``label``.
    recipe
        How to train; its own seed is replaced.
    seeds
        One training each.
    path
        A Zarr folder to stream into; an interruption leaves there what was recorded.
    progress
        Show a bar.

    Returns
    -------
    xarray.DataArray
        float16 (seed, epoch, sample, class), epochs counted from 1.

    Raises
    ------
    TypeError
        `network` is a network, not what makes one.
    FileExistsError
        There is something at `path` already.
    """
    if isinstance(network, nn.Module) or not callable(network):
        raise TypeError(
            "network must make a new network for each seed, as lambda: SmallResNet(1, 10) does, "
            f"and is a {type(network).__name__}"
        )
    recipe = recipe or Recipe()
    epochs = recipe.epochs + recipe.averaged
    every = np.arange(ds.sizes["sample"])
    recorder = Recorder(ds["sample"], ds["class"], epochs, seeds, path)
    with tqdm(total=len(seeds) * epochs, unit="epoch", disable=not progress) as bar:

        def keep(_: int, model: nn.Module) -> None:
            logits = predict(model, ds, activation="none", progress=False).values
            recorder.batch(every, torch.from_numpy(logits))
            recorder.epoch()
            bar.update()

        for seed in seeds:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                train(network(), ds, replace(recipe, seed=seed), on_epoch=keep, progress=False)
    return recorder.logits
