"""Localisation: pointing game and energy inside boxes, baseline maps, images with known boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from workbench._extras import need


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
    rng = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, 1, *grid, generator=rng)
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
        raise ValueError(
            f"{n} maps need boxes ({n}, 4): left, top, right, bottom; got {tuple(boxes.shape)}"
        )
    left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
    wrong = (left < 0) | (top < 0) | (left >= right) | (top >= bottom)
    wrong = wrong | (right > width) | (bottom > height)
    if wrong.any():
        first = int(wrong.flatten().nonzero()[0])
        raise ValueError(
            f"box {first}, {boxes[first].tolist()}, does not lie in the image of "
            f"{width}×{height} pixels"
        )
    y = torch.arange(height, device=maps.device)
    x = torch.arange(width, device=maps.device)
    rows = (y >= top) & (y < bottom)
    columns = (x >= left) & (x < right)
    return rows[:, :, None] & columns[:, None, :]


#: File of scikit-image's, size, and the box that we drew around the object: left, top, right,
#: bottom, in the file's pixels.
_PHOTOGRAPHS = {
    "cat": ("chelsea.png", (0, 0, 375, 290)),
    "horse": ("horse.png", (16, 7, 391, 315)),
    "motorcycle": ("motorcycle_left.png", (115, 130, 690, 440)),
    "rocket": ("rocket.jpg", (285, 165, 355, 400)),
}


def photographs(size: int = 224) -> xr.Dataset:
    """Four photographs that come with scikit-image, and boxes around what they show.

    Parameters
    ----------
    size
        Pixels a side; the photographs are stretched to a square, the boxes with them.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, y, x, channel) uint8, ``box`` (sample, edge) int64: left, top, right,
        bottom in pixels, right and bottom excluded. ``sample`` names what the photograph shows.

    Examples
    --------
    >>> ds = photographs(32)
    >>> ds["box"].sel(sample="horse").values.tolist()
    [1, 0, 32, 31]
    """
    folder = Path(need("skimage", "images").__file__).parent / "data"
    images, boxes = [], []
    for file, box in _PHOTOGRAPHS.values():
        with Image.open(folder / file) as photograph:
            scale = np.array([size / photograph.width, size / photograph.height] * 2)
            images.append(np.asarray(photograph.convert("RGB").resize((size, size))))
        edges = np.concatenate([np.floor(box * scale)[:2], np.ceil(box * scale)[2:]])
        boxes.append(edges.clip(0, size).astype(np.int64))
    return xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"), np.stack(images)),
            "box": (("sample", "edge"), np.stack(boxes)),
        },
        coords={"sample": list(_PHOTOGRAPHS), "edge": ["left", "top", "right", "bottom"]},
        attrs={
            "name": "four photographs",
            "source": "scikit-image",
            "resized_to": f"{size}×{size}",
        },
    )


def mosaics(
    images: Tensor, classes: Tensor | Sequence[int] | NDArray[np.int64], n: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Four images in a square, one of them of the class asked for, so that its place is known.

    The grid pointing game (Böhle et al. 2021, arXiv:2104.00032, section 4.2): a map of the
    class belongs on its tile, and nowhere else. The others are of other classes, three different
    ones where there are as many.

    Parameters
    ----------
    images
        (sample, channel, y, x).
    classes
        (sample,): of each image, best as the network itself predicts it.
    n
        How many mosaics.
    seed
        Fixes the draw.

    Returns
    -------
    tuple of torch.Tensor
        Mosaics (n, channel, 2y, 2x); for each the class (n,) of one tile, and the tile's box
        (n, 4): left, top, right, bottom.

    Raises
    ------
    ValueError
        All images are of one class.

    Examples
    --------
    >>> x, target, boxes = mosaics(torch.rand(8, 3, 4, 4), [0, 0, 1, 1, 2, 2, 3, 3], n=5)
    >>> x.shape, target.shape, boxes[0].diff().shape
    (torch.Size([5, 3, 8, 8]), torch.Size([5]), torch.Size([3]))
    """
    labels = np.asarray(classes)
    known = np.unique(labels)
    if len(known) < 2:
        raise ValueError("a mosaic needs images of two classes; all of these are of one")
    rng = np.random.default_rng(seed)
    height, width = images.shape[2:]
    made, targets, boxes = [], [], []
    for _ in range(n):
        asked = rng.choice(known)
        others = rng.choice(known[known != asked], 3, replace=len(known) < 4)
        place = int(rng.integers(4))
        four = np.insert(others, place, asked)
        tiles = images[[int(rng.choice(np.flatnonzero(labels == c))) for c in four]]
        made.append(torch.cat([torch.cat(list(tiles[:2]), 2), torch.cat(list(tiles[2:]), 2)], 1))
        targets.append(int(asked))
        y = height * (place // 2)
        x = width * (place % 2)
        boxes.append([x, y, x + width, y + height])
    return torch.stack(made), torch.tensor(targets), torch.tensor(boxes)
