"""Training images, changed at random so that a network sees none of them twice."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from workbench.models.training import Recipe


def augment(images: Tensor, recipe: "Recipe", dice: torch.Generator) -> Tensor:
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
