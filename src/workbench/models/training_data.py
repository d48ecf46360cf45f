"""What a network is trained on, in batches on its device: labelled images or scenes with boxes."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.models.augmentation import Recipe, augment, cutmix, mixup
from workbench.models.fcn import FCN, Scenes, objects_of


class TrainingData:
    """What a network is trained on, in batches: labelled images or scenes, held or streamed."""

    def __init__(
        self, model: nn.Module, ds: Any, boxes: pd.DataFrame | None, recipe: Recipe
    ) -> None:
        self._model, self._recipe, self._stream = model, recipe, None
        if isinstance(ds, xr.Dataset):
            self.sha256 = content_sha256(ds, boxes)
            self._held = self._batches(ds, boxes)
            self.images = len(self._held)
            self.steps = -(-self.images // recipe.batch_size)
        else:
            self._stream, self.steps, self.sha256 = ds, len(ds), ds.sha256
            self.images = len(ds.rows)

    def _batches(self, ds: xr.Dataset, boxes: pd.DataFrame | None) -> Any:
        if isinstance(self._model, FCN):
            table = objects_of(ds, boxes)
            if table.empty and self._stream is None:
                raise ValueError(
                    "there are no boxes to learn from: give boxes=, a store, or data with a mask"
                )
            return Scenes(self._model, ds, table, self._recipe)
        return Labelled(ds, self._recipe, next(self._model.parameters()).device)

    def epoch(
        self, number: int, rng: torch.Generator | None, mix: bool = False
    ) -> Iterator[tuple[Tensor, Any, Callable[..., Tensor]]]:
        """Images from 0 to 1, what is wanted of them, and the loss; unchanged without `rng`."""
        if self._stream is None:
            held = iter([self._held])
        else:
            held = (self._batches(part, None) for part in self._stream.epoch(number))
        for each in held:
            for images, wanted in each.epoch(rng, mix):
                yield images, wanted, each.loss


class Labelled:
    """Labelled images in memory, on the GPU where there is room for them."""

    def __init__(self, ds: xr.Dataset, recipe: Recipe, device: torch.device) -> None:
        self._recipe, self._device = recipe, device
        self._classes = ds.sizes["class"]
        if "labels" in ds:
            labels = torch.from_numpy(ds["labels"].transpose("sample", "class").values).float()
        else:
            labels = torch.from_numpy(ds["label"].values)
            if (labels < 0).any():
                raise ValueError(f"{int((labels < 0).sum())} samples have no label; leave them out")
        _check_room(ds)
        values = ds["image"].transpose("sample", "channel", "y", "x").values
        images = torch.from_numpy(np.ascontiguousarray(values))
        if device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            images = images.to(device)
        self._images, self._labels = images, labels.to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def loss(self, output: Tensor, wanted: Tensor) -> Tensor:
        """Cross-entropy of the classes, or of each class by itself where an image has several."""
        if self._labels.ndim == 2:
            return F.binary_cross_entropy_with_logits(output, wanted)
        return F.cross_entropy(output, wanted, label_smoothing=self._recipe.label_smoothing)

    def epoch(self, rng: torch.Generator | None, mix: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Images from 0 to 1 and their labels; in order and unchanged without a generator."""
        n, recipe = len(self), self._recipe
        order = torch.arange(n) if rng is None else torch.randperm(n, generator=rng)
        for chosen in torch.split(order, recipe.batch_size):
            images = self._images[chosen.to(self._images.device)].to(self._device)
            wanted = self._labels[chosen.to(self._device)]
            if rng is not None:
                images = augment(images, recipe, rng)
            batch = images.float() / 255
            if rng is not None and (recipe.mixed or recipe.mixup):
                batch, wanted = self._mixed(batch, wanted, rng, mix)
            yield batch, wanted

    def _mixed(
        self, batch: Tensor, wanted: Tensor, rng: torch.Generator, mix: bool
    ) -> tuple[Tensor, Tensor]:
        cut = torch.rand((), generator=rng) < (self._recipe.mixed if mix else 0.0)
        if not mix or not (cut or self._recipe.mixup):
            return batch, wanted
        shares = wanted if wanted.ndim == 2 else F.one_hot(wanted, self._classes).float()
        if cut:
            return cutmix(batch, shares, rng)
        return mixup(batch, shares, self._recipe.mixup, rng)


def _check_room(ds: xr.Dataset) -> None:
    import psutil

    needed, free = ds["image"].nbytes, psutil.virtual_memory().available
    if ds["image"].chunks is not None and needed > free:
        raise ValueError(
            f"the images need {needed / 2**30:.1f} GiB and {free / 2**30:.1f} are free: "
            "store.write(ds, path), and train on store.stream(path, batch)"
        )


def content_sha256(ds: xr.Dataset, boxes: pd.DataFrame | None) -> str:
    """What tells this data from other data."""
    sha = hashlib.sha256("\0".join(map(str, ds["sample"].values)).encode())
    for name in ("label", "labels"):
        if name in ds:
            sha.update(np.ascontiguousarray(ds[name].values).tobytes())
    if "sha256" in ds.attrs:
        sha.update(str(ds.attrs["sha256"]).encode())
    else:
        sha.update(np.ascontiguousarray(ds["image"].values).tobytes())
    if boxes is not None:
        sha.update(boxes.to_csv().encode())
    return sha.hexdigest()
