"""Train a small network on an image dataset, and be able to go on after an interruption."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from workbench.models.resnet import SmallResNet


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a training run goes.

    Stochastic gradient descent with Nesterov momentum; the learning rate rises to its peak over
    the first fifth of the steps and falls to zero (Smith and Topin 2017, arXiv:1708.07120). A share
    `mixed` of the batches is cut together from pairs of images, whose labels are mixed by area
    (CutMix: Yun et al. 2019, arXiv:1905.04899), but none in the `last_plain` epochs, in which the
    network sees what it will be asked about.
    """

    epochs: int = 30
    batch_size: int = 256
    peak_rate: float = 0.25
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 4
    flip: bool = True
    cutout: int = 8
    mixed: float = 0.0
    last_plain: int = 0
    bfloat16: bool = True
    seed: int = 0


def train(
    model: SmallResNet, ds: xr.Dataset, recipe: Recipe, checkpoint: Path | None = None
) -> list[float]:
    """Train a network in place, and return the mean loss of every epoch.

    The order of the images, their shifts and flips depend on the seed and the epoch alone, so a
    run that was stopped and resumed sees what an uninterrupted one sees. Sums on several threads
    can still differ in their last bits.

    Parameters
    ----------
    model
        Changed in place, on the device where it lies; left in training mode.
    ds
        An image dataset that fits in memory, with ``label`` and no -1 among them.
    recipe
        How to train.
    checkpoint
        A file that is written after every epoch. If it exists, training goes on from there.

    Raises
    ------
    ValueError
        A label is -1, or the checkpoint belongs to another recipe.
    """
    labels = torch.from_numpy(ds["label"].values)
    if (labels < 0).any():
        raise ValueError(f"{int((labels < 0).sum())} samples have no label; leave them out")
    values = ds["image"].transpose("sample", "channel", "y", "x").values
    images = torch.from_numpy(np.ascontiguousarray(values))
    model.to(memory_format=_layout(model)).train()  # type: ignore[call-overload]
    state = _State(model, recipe, steps=-(-len(labels) // recipe.batch_size))
    if checkpoint and checkpoint.exists():
        state.restore(checkpoint)
    for epoch in range(len(state.losses), recipe.epochs):
        state.losses.append(_epoch(state, images, labels, epoch))
        if checkpoint:
            state.save(checkpoint)
    return state.losses


class _State:
    """What changes while a network is trained."""

    def __init__(self, model: SmallResNet, recipe: Recipe, steps: int) -> None:
        self.model, self.recipe, self.losses = model, recipe, list[float]()
        # Biases and batch norms are not shrunk: they do not overfit.
        shrunk = [p for p in model.parameters() if p.ndim > 1]
        kept = [p for p in model.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": shrunk, "weight_decay": recipe.weight_decay}]
        groups.append({"params": kept})
        self.optimizer = torch.optim.SGD(
            groups, lr=recipe.peak_rate, momentum=recipe.momentum, nesterov=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            recipe.peak_rate,
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            pct_start=0.2,
            anneal_strategy="linear",
            cycle_momentum=False,
            div_factor=10,
            final_div_factor=1e4,
        )

    def save(self, path: Path) -> None:
        content = {
            "recipe": asdict(self.recipe),
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        part = path.with_suffix(".part")
        torch.save(content, part)
        part.replace(path)

    def restore(self, path: Path) -> None:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content["recipe"] != asdict(self.recipe):
            raise ValueError(f"{path} was made with {content['recipe']}; delete it to start anew")
        self.losses = content["losses"]
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])


def _layout(model: SmallResNet) -> torch.memory_format:
    """Channels last is faster; on several threads torch 2.13 crashes with it in narrow layers."""
    narrow = any(len(p) < 16 for p in model.parameters() if p.ndim == 4)
    return torch.contiguous_format if narrow else torch.channels_last


def _epoch(state: _State, images: Tensor, labels: Tensor, epoch: int) -> float:
    """Show every image once, and return the mean loss."""
    recipe = state.recipe
    dice = torch.Generator().manual_seed(recipe.seed * 10_000 + epoch)
    order = torch.randperm(len(labels), generator=dice)
    total = 0.0
    mixed = recipe.mixed if epoch < recipe.epochs - recipe.last_plain else 0.0
    place = next(state.model.parameters()).device
    with tqdm(total=len(labels), desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="image") as bar:
        for chosen in torch.split(order, recipe.batch_size):
            batch = augment(images[chosen], recipe, dice).to(place).float() / 255
            wanted = labels[chosen].to(place)
            if recipe.mixed and torch.rand((), generator=dice) < mixed:
                batch, wanted = cutmix(batch, wanted, state.model.fc.out_features, dice)
            loss = _step(state, batch, wanted)
            total += loss * len(chosen)
            bar.update(len(chosen))
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    return total / len(labels)


def _step(state: _State, batch: Tensor, wanted: Tensor) -> float:
    """Move the weights once, and return the mean loss of the batch."""
    recipe = state.recipe
    batch = batch.contiguous(memory_format=_layout(state.model))
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=recipe.bfloat16):
        logits = state.model(batch).float()
    loss = F.cross_entropy(logits, wanted, label_smoothing=recipe.label_smoothing)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.schedule.step()
    return loss.item()


def augment(images: Tensor, recipe: Recipe, dice: torch.Generator) -> Tensor:
    """Shift every image by up to `recipe.shift` pixels, edges mirrored, and flip half of them.

    Then grey a square of `recipe.cutout` pixels around a random spot (DeVries and Taylor 2017,
    arXiv:1708.04552).

    Parameters
    ----------
    images
        uint8 (sample, channel, y, x).

    Returns
    -------
    torch.Tensor
        uint8, of the same shape.
    """
    n, _, height, width = images.shape
    s = recipe.shift
    padded = F.pad(images.float(), (s, s, s, s), mode="reflect").to(images.dtype) if s else images
    down = torch.randint(0, 2 * s + 1, (n, 1), generator=dice) + torch.arange(height)
    right = torch.randint(0, 2 * s + 1, (n, 1), generator=dice) + torch.arange(width)
    if recipe.flip:
        turned = torch.rand(n, 1, generator=dice) < 0.5
        right = torch.where(turned, right.flip(1), right)
    sample = torch.arange(n)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[sample, down[:, :, None], right[:, None, :]]
    if recipe.cutout:
        top, left = (torch.randint(0, side, (n, 1), generator=dice) for side in (height, width))
        hidden = _within(torch.arange(height) - top, recipe.cutout)[:, :, None]
        hidden = hidden & _within(torch.arange(width) - left, recipe.cutout)[:, None, :]
        moved = moved.masked_fill(hidden[..., None], 128)
    return moved.permute(0, 3, 1, 2)


def cutmix(
    images: Tensor, labels: Tensor, classes: int, dice: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Paste the same box of another image of the batch into every image (arXiv:1905.04899).

    The box covers a share of the image that is drawn evenly from 0 to 1, less what lies outside.

    Parameters
    ----------
    images
        float (sample, channel, y, x).
    labels
        int64 (sample,).
    classes
        How many there are.

    Returns
    -------
    tuple of torch.Tensor
        The images, and float32 probabilities (sample, class) by the area of each label's image.
    """
    height, width = images.shape[2:]
    side = torch.rand((), generator=dice).sqrt()
    middle = torch.rand(2, generator=dice)
    top, left = ((m - side / 2).clamp(min=0) for m in middle)
    bottom, right = ((m + side / 2).clamp(max=1) for m in middle)
    down = slice(round(float(top) * height), round(float(bottom) * height))
    across = slice(round(float(left) * width), round(float(right) * width))
    mixed = images.clone()
    mixed[:, :, down, across] = images.roll(1, 0)[:, :, down, across]
    pasted = (down.stop - down.start) * (across.stop - across.start) / (height * width)
    wanted = F.one_hot(labels, classes).float()
    return mixed, wanted.lerp(wanted.roll(1, 0), pasted)


def _within(offset: Tensor, side: int) -> Tensor:
    """Whether an offset from the centre of a square lies inside it."""
    return (offset >= -(side // 2)) & (offset < side - side // 2)
