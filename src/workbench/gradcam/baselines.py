"""Boxes around objects, and the maps that any method has to beat."""

import torch
from torch import Tensor
from torch.nn import functional as F


def random_maps(n: int, size: tuple[int, int], grid: tuple[int, int], seed: int = 0) -> Tensor:
    """Noise on a coarse grid, resampled bilinearly: as smooth as a layer's map, and about nothing.

    Parameters
    ----------
    n
        How many.
    size
        (y, x) of the maps.
    grid
        (y, x) of the noise, which is uniform in [0, 1].
    seed
        Fixes the noise.

    Examples
    --------
    >>> random_maps(2, (8, 8), (4, 4)).shape
    torch.Size([2, 8, 8])
    """
    dice = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, 1, *grid, generator=dice)
    return F.interpolate(noise, size=size, mode="bilinear", align_corners=False)[:, 0]


def centre_maps(n: int, size: tuple[int, int]) -> Tensor:
    """A Gaussian blob in the middle, a quarter of the image wide: photographers centre objects.

    Examples
    --------
    >>> centre_maps(1, (5, 5))[0].argmax()
    tensor(12)
    """
    y, x = ((torch.arange(s) + 0.5) / s - 0.5 for s in size)
    blob = torch.exp(-(y[:, None] ** 2 + x**2) / (2 * 0.25**2))
    return blob.expand(n, -1, -1).clone()


def energy_inside(maps: Tensor, boxes: Tensor) -> Tensor:
    """The share of each map's positive part that lies in the object's box.

    The energy-based pointing game (Wang et al. 2020, arXiv:1910.01279, section 4.3).

    Parameters
    ----------
    maps
        (sample, y, x), at the image's resolution.
    boxes
        (sample, 4): left, top, right, bottom in pixels, right and bottom excluded.

    Returns
    -------
    torch.Tensor
        (sample,) in [0, 1]; 0 for a map that is nowhere positive.

    Examples
    --------
    >>> energy_inside(torch.ones(1, 4, 4), torch.tensor([[0, 0, 2, 4]]))
    tensor([0.5000])
    """
    inside = _inside(maps, boxes)
    positive = maps.clamp(min=0)
    total = positive.sum((1, 2))
    return (positive * inside).sum((1, 2)) / torch.where(total > 0, total, 1)


def points_inside(maps: Tensor, boxes: Tensor) -> Tensor:
    """Whether each map is largest in the object's box: the pointing game (Zhang et al. 2018).

    arXiv:1608.00507, without their tolerance of 15 pixels. Arguments as in
    :func:`energy_inside`; (sample,) bool, False for a map that is the same everywhere.
    """
    inside = _inside(maps, boxes).flatten(1)
    flat = maps.flatten(1)
    hit = inside.gather(1, flat.argmax(1, keepdim=True))[:, 0]
    return hit & (flat.amax(1) > flat.amin(1))


def _inside(maps: Tensor, boxes: Tensor) -> Tensor:
    """A mask (sample, y, x) of the boxes, checked."""
    n, height, width = maps.shape
    boxes = torch.as_tensor(boxes, device=maps.device)
    if boxes.shape != (n, 4):
        raise ValueError(f"{n} maps need boxes ({n}, 4): left, top, right, bottom; got "
                         f"{tuple(boxes.shape)}")  # fmt: skip
    left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
    wrong = (left < 0) | (top < 0) | (left >= right) | (top >= bottom)
    wrong = wrong | (right > width) | (bottom > height)
    if wrong.any():
        first = int(wrong.flatten().nonzero()[0])
        raise ValueError(f"box {first}, {boxes[first].tolist()}, does not lie in the image of "
                         f"{width}×{height} pixels")  # fmt: skip
    y, x = torch.arange(height, device=maps.device), torch.arange(width, device=maps.device)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return rows[:, :, None] & columns[:, None, :]
