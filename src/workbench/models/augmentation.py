"""Recipe of a training run, and the augmentation that it asks for, on the images' own device.

What is drawn at random comes from a generator on the CPU, so that a seed means the same anywhere.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a training run goes.

    The learning rate rises to its peak over the first fifth of the steps and falls to zero (Smith
    and Topin 2017, arXiv:1708.07120). After that cycle come `averaged` epochs more at
    `average_rate`, mixed again, and the weights become the mean of those of all their steps
    (Izmailov et al. 2018, arXiv:1803.05407).

    Parameters
    ----------
    epochs, batch_size, peak_rate, weight_decay, seed
        As everywhere.
    optimizer, momentum
        ``"sgd"`` with Nesterov momentum, or ``"adamw"``.
    label_smoothing
        The given class is asked for with 1 - ε + ε/K, every other one with ε/K.
    shift, flip, cutout
        Each image is moved by up to so many pixels, half of them are mirrored, and a square of so
        many pixels is greyed (DeVries and Taylor 2017, arXiv:1708.04552).
    angle, min_scale, max_scale, color
        Rotation by up to so many degrees, a scale between these, up to so much of 255 on each
        channel.
    mixed
        This share of the batches is cut together from pairs of images, whose labels are mixed by
        area (CutMix: Yun et al. 2019, arXiv:1905.04899).
    mixup
        α above 0 blends the other batches with themselves, λ from Beta(α, α) (Zhang et al. 2018,
        arXiv:1710.09412): the loss is λ · CE(one) + (1 - λ) · CE(other).
    last_plain
        Neither of the two in the last so many epochs of the cycle, in which the network sees what
        it will be asked about.
    bfloat16
        Compute in 16 bits where that is safe.
    pretrained
        Start a network of torchvision or timm from its published weights.
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
    angle: float = 0.0
    min_scale: float = 1.0
    max_scale: float = 1.0
    color: float = 0.0
    mixup: float = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    pretrained: bool = True

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1:
            raise ValueError(f"epochs={self.epochs} and batch_size={self.batch_size} must be >= 1")
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(f"min_scale={self.min_scale} must be above 0 and at most max_scale")
        if not (0 <= self.mixed <= 1 and 0 <= self.label_smoothing < 1 and self.mixup >= 0):
            raise ValueError(
                f"mixed={self.mixed} and label_smoothing={self.label_smoothing} must be shares, "
                f"mixup={self.mixup} 0 or more"
            )


def augment(images: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """Rotate, scale, shift, mirror, recolour and cut squares out of images, as the recipe says.

    Parameters
    ----------
    images
        uint8 (sample, channel, y, x).

    Returns
    -------
    torch.Tensor
        uint8, of the same shape, on the same device. Edges are mirrored where nothing is.
    """
    n, channels, height, width = images.shape
    if recipe.angle or (recipe.min_scale, recipe.max_scale) != (1, 1):
        images = warp(images, jitter(n, height, width, recipe, rng), "reflection")
    s = recipe.shift
    padded = F.pad(images.float(), (s, s, s, s), mode="reflect").to(images.dtype) if s else images
    down = torch.randint(0, 2 * s + 1, (n, 1), generator=rng) + torch.arange(height)
    right = torch.randint(0, 2 * s + 1, (n, 1), generator=rng) + torch.arange(width)
    if recipe.flip:
        turned = torch.rand(n, 1, generator=rng) < 0.5
        right = torch.where(turned, right.flip(1), right)
    sample = torch.arange(n)[:, None, None]
    place = (each.to(images.device) for each in (sample, down[:, :, None], right[:, None, :]))
    moved = padded.permute(0, 2, 3, 1)[tuple(place)]
    if recipe.cutout:
        top, left = (torch.randint(0, side, (n, 1), generator=rng) for side in (height, width))
        hidden = _within(torch.arange(height) - top, recipe.cutout)[:, :, None]
        hidden = hidden & _within(torch.arange(width) - left, recipe.cutout)[:, None, :]
        moved = moved.masked_fill(hidden[..., None].to(moved.device), 128)
    if recipe.color:
        added = recipe.color * (2 * torch.rand(n, 1, 1, channels, generator=rng) - 1)
        moved = (moved + added.to(moved.device)).round().clamp(0, 255).to(torch.uint8)
    return moved.permute(0, 3, 1, 2)


def jitter(
    n: int,
    height: int,
    width: int,
    recipe: Recipe,
    rng: torch.Generator,
    whole: bool = False,
) -> Tensor:
    """Draw an affine map for each image: rotation and scale about the middle.

    With `whole` the recipe's shift and flip too. float (n, 2, 3), from the pixels of an image
    to those of the changed one, pixel i from i to i + 1.
    """
    turn = (2 * torch.rand(n, generator=rng) - 1) * np.deg2rad(recipe.angle)
    low, high = float(np.log(recipe.min_scale)), float(np.log(recipe.max_scale))
    scale = torch.exp(low + (high - low) * torch.rand(n, generator=rng))
    cos, sin = scale * turn.cos(), scale * turn.sin()
    linear = torch.stack([cos, -sin, sin, cos], 1).view(n, 2, 2)
    middle = torch.tensor([width / 2, height / 2])
    moved = middle.expand(n, 2)
    if whole:
        if recipe.flip:
            linear[torch.rand(n, generator=rng) < 0.5, :, 0] *= -1
        moved = moved + recipe.shift * (2 * torch.rand(n, 2, generator=rng) - 1)
    return torch.cat([linear, (moved - linear @ middle)[:, :, None]], 2)


def warp(images: Tensor, matrix: Tensor, outside: str = "zeros") -> Tensor:
    """Images (sample, channel, y, x) under the maps of :func:`jitter`, bilinear, in their type."""
    height, width = images.shape[2:]
    half = torch.tensor([width / 2, height / 2])
    back = torch.linalg.inv(matrix[:, :, :2])
    # in units of half an image from its middle, as grid_sample counts
    theta = back * half / half[:, None]
    shift = (back @ (half - matrix[:, :, 2])[..., None])[..., 0] - half
    theta = torch.cat([theta, (shift / half)[:, :, None]], 2).to(images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode=outside, align_corners=False)
    return moved.round().to(images.dtype) if images.dtype == torch.uint8 else moved


def cutmix(images: Tensor, wanted: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paste the same box of another image of the batch into every image (arXiv:1905.04899).

    The box covers a share of the image that is drawn evenly from 0 to 1, less what lies outside.

    Parameters
    ----------
    images
        float (sample, channel, y, x).
    wanted
        float (sample, class): probabilities of the classes.

    Returns
    -------
    tuple of torch.Tensor
        The images, and the probabilities by the area of each label's image.
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
    return mixed, wanted.lerp(wanted.roll(1, 0), pasted)


def mixup(
    images: Tensor, wanted: Tensor, alpha: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend every image of the batch with another one, λ from Beta(α, α) (arXiv:1710.09412).

    Parameters and returns as :func:`cutmix`.
    """
    seed = int(torch.randint(2**31, (), generator=rng))
    other = 1 - float(np.random.default_rng(seed).beta(alpha, alpha))
    return images.lerp(images.roll(1, 0), other), wanted.lerp(wanted.roll(1, 0), other)


def _within(offset: Tensor, side: int) -> Tensor:
    """Whether an offset from the centre of a square lies inside it."""
    return (offset >= -(side // 2)) & (offset < side - side // 2)
