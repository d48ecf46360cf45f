"""Training of a small network: recipe, augmentation, checkpoints, and temperature scaling."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

from workbench.models.inference import evaluating
from workbench.models.resnet import SmallResNet


def augment(images: Tensor, recipe: "Recipe", rng: torch.Generator) -> Tensor:
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
    down = torch.randint(0, 2 * s + 1, (n, 1), generator=rng) + torch.arange(height)
    right = torch.randint(0, 2 * s + 1, (n, 1), generator=rng) + torch.arange(width)
    if recipe.flip:
        turned = torch.rand(n, 1, generator=rng) < 0.5
        right = torch.where(turned, right.flip(1), right)
    sample = torch.arange(n)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[sample, down[:, :, None], right[:, None, :]]
    if recipe.cutout:
        top, left = (torch.randint(0, side, (n, 1), generator=rng) for side in (height, width))
        hidden = _within(torch.arange(height) - top, recipe.cutout)[:, :, None]
        hidden = hidden & _within(torch.arange(width) - left, recipe.cutout)[:, None, :]
        moved = moved.masked_fill(hidden[..., None], 128)
    return moved.permute(0, 3, 1, 2)


def cutmix(
    images: Tensor, labels: Tensor, classes: int, rng: torch.Generator
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
    side = torch.rand((), generator=rng).sqrt()
    middle = torch.rand(2, generator=rng)
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


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a training run goes.

    Stochastic gradient descent with Nesterov momentum; the learning rate rises to its peak over
    the first fifth of the steps and falls to zero (Smith and Topin 2017, arXiv:1708.07120). A share
    `mixed` of the batches is cut together from pairs of images, whose labels are mixed by area
    (CutMix: Yun et al. 2019, arXiv:1905.04899), but none in the `last_plain` epochs, in which the
    network sees what it will be asked about. After the cycle come `averaged` epochs more at
    `average_rate`, mixed again, and the weights become the mean of those of all their steps
    (Izmailov et al. 2018, arXiv:1803.05407).
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
    averaged: int = 0
    average_rate: float = 0.03
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
    model.to(memory_format=_memory_format(model)).train()  # type: ignore[call-overload]
    state = _State(model, recipe, steps=-(-len(labels) // recipe.batch_size))
    if checkpoint and checkpoint.exists():
        state.restore(checkpoint)
    for epoch in range(len(state.losses), recipe.epochs + recipe.averaged):
        state.losses.append(_epoch(state, images, labels, epoch))
        if checkpoint:
            state.save(checkpoint)
    if recipe.averaged:
        state.settle(images)
    return state.losses


class _State:
    """What changes while a network is trained."""

    def __init__(self, model: SmallResNet, recipe: Recipe, steps: int) -> None:
        self.model = model
        self.recipe = recipe
        self.losses: list[float] = []
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
        self._parts: dict[str, Any] = {
            "model": model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }
        if recipe.averaged:
            self.average = self._parts["average"] = AveragedModel(model)

    def step(self, averaging: bool) -> None:
        """Move the weights by their gradients, and the rate or the average along."""
        if averaging:
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.average_rate
        self.optimizer.step()
        if averaging:
            self.average.update_parameters(self.model)
        else:
            self.schedule.step()

    def settle(self, images: Tensor) -> None:
        """Give the network the mean of its weights, and the batch statistics that belong to it."""
        self.model.load_state_dict(self.average.module.state_dict())
        device = next(self.model.parameters()).device
        some = torch.split(images, self.recipe.batch_size)
        batches = (part.to(device).float() / 255 for part in some)
        update_bn(batches, self.model)

    def save(self, path: Path) -> None:
        content = {
            "recipe": asdict(self.recipe),
            "losses": self.losses,
            **{name: part.state_dict() for name, part in self._parts.items()},
        }
        part = path.with_suffix(".part")
        torch.save(content, part)
        part.replace(path)

    def restore(self, path: Path) -> None:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content["recipe"] != asdict(self.recipe):
            raise ValueError(f"{path} was made with {content['recipe']}; delete it to start anew")
        self.losses = content["losses"]
        for name, part in self._parts.items():
            part.load_state_dict(content[name])


def _memory_format(model: SmallResNet) -> torch.memory_format:
    """Channels last is faster; on several threads torch 2.13 crashes with it in narrow layers."""
    narrow = any(len(p) < 16 for p in model.parameters() if p.ndim == 4)
    return torch.contiguous_format if narrow else torch.channels_last


def _epoch(state: _State, images: Tensor, labels: Tensor, epoch: int) -> float:
    """Show every image once, and return the mean loss."""
    recipe = state.recipe
    rng = torch.Generator().manual_seed(recipe.seed * 10_000 + epoch)
    order = torch.randperm(len(labels), generator=rng)
    total = 0.0
    averaging = epoch >= recipe.epochs
    plain = not averaging and epoch >= recipe.epochs - recipe.last_plain
    mixed = 0.0 if plain else recipe.mixed
    device = next(state.model.parameters()).device
    with tqdm(
        total=len(labels), desc=f"epoch {epoch + 1}/{recipe.epochs + recipe.averaged}", unit="image"
    ) as bar:
        for chosen in torch.split(order, recipe.batch_size):
            batch = augment(images[chosen], recipe, rng).to(device).float() / 255
            wanted = labels[chosen].to(device)
            if recipe.mixed and torch.rand((), generator=rng) < mixed:
                batch, wanted = cutmix(batch, wanted, state.model.fc.out_features, rng)
            loss = _step(state, batch, wanted, averaging)
            total += loss * len(chosen)
            bar.update(len(chosen))
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    return total / len(labels)


def _step(state: _State, batch: Tensor, wanted: Tensor, averaging: bool) -> float:
    """Move the weights once, and return the mean loss of the batch."""
    recipe = state.recipe
    batch = batch.contiguous(memory_format=_memory_format(state.model))
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=recipe.bfloat16):
        logits = state.model(batch).float()
    loss = F.cross_entropy(logits, wanted, label_smoothing=recipe.label_smoothing)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    state.step(averaging)
    return loss.item()


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
    rng = torch.Generator().manual_seed(recipe.seed)
    chosen = torch.randperm(ds.sizes["sample"], generator=rng)[:n].numpy()
    part = ds.isel(sample=np.sort(chosen))
    images = torch.from_numpy(part["image"].transpose("sample", "channel", "y", "x").values)
    labels = torch.from_numpy(part["label"].values)
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        batches = (augment(some, recipe, rng).float() / 255 for some in torch.split(images, 500))
        logits = torch.cat([model(batch.to(device)).cpu() for batch in batches])
        choices = torch.arange(25, 401) / 100
        losses = torch.stack([F.cross_entropy(logits / choice, labels) for choice in choices])
        best = float(choices[losses.argmin()])
        model.fc.weight.div_(best)
        model.fc.bias.div_(best)
    return round(best, 2)
