"""Images that come with scikit-learn and scikit-image, and the stand-ins made of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workbench._extras import need
from workbench.datasets.dataset import SplitImages
from workbench.datasets.errors import DataNotFoundError

SPLITS = ("train", "test")
DIGITS = tuple("0123456789")
PATCHES_PER_PHOTO = 120
_SIDE = 32
# class: the package, its file, the part of the photograph that shows the class as fractions
# (left, top, right, bottom), and the length in pixels that its shorter side is reduced to
_PHOTOS: dict[str, tuple[str, str, tuple[float, float, float, float], int]] = {
    "brick": ("skimage", "data/brick.png", (0, 0, 1, 1), 512),
    "cat": ("skimage", "data/chelsea.png", (0, 0, 1, 1), 300),
    "coffee": ("skimage", "data/coffee.png", (0, 0, 1, 1), 400),
    "flower": ("sklearn", "datasets/images/flower.jpg", (0.2, 0, 1, 1), 427),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg", (0, 0, 1, 1), 512),
    "grass": ("skimage", "data/grass.png", (0, 0, 1, 1), 512),
    "gravel": ("skimage", "data/gravel.png", (0, 0, 1, 1), 512),
    "retina": ("skimage", "data/retina.jpg", (0.15, 0.15, 0.85, 0.85), 512),
    "temple": ("sklearn", "datasets/images/china.jpg", (0, 0.3, 1, 1), 299),
    "tissue": ("skimage", "data/ihc.png", (0, 0, 1, 1), 512),
}
PHOTOS = tuple(_PHOTOS)


def digits(splits: Sequence[str]) -> list[SplitImages]:
    """Return scikit-learn's 1,797 digits, 8 x 8 x 1, with 0 to 16 scaled to 0 to 255.

    The first 1,198 in their order are "train" and the last 599 "test". The order follows the
    writers, so the two splits are mostly by different hands.
    """
    data = need("sklearn.datasets", "images").load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    cut = {"train": slice(None, 1198), "test": slice(1198, None)}
    return [_part(split, images[cut[split]], data.target[cut[split]]) for split in splits]


def digits_like_mnist(splits: Sequence[str]) -> list[SplitImages]:
    """Return the digits enlarged to 20 x 20 in the middle of 28 x 28, as MNIST's are."""
    parts = digits(splits)
    return [_part(part.split, _enlarged(part), part.label) for part in parts]


def photos(splits: Sequence[str]) -> list[SplitImages]:
    """Return 32 x 32 RGB patches of ten photographs, 120 of each, one class a photograph.

    The patches lie on a grid, do not overlap, and come one of each class at a time. Every third
    is "test". Both splits show the same photographs, so accuracy on "test" means little.
    """
    stack = np.stack([_patches(name) for name in _PHOTOS], axis=1)  # (patch, class, y, x, channel)
    third = np.arange(PATCHES_PER_PHOTO) % 3 == 2
    parts = []
    for split in splits:
        images = stack[third if split == "test" else ~third]
        label = np.tile(np.arange(len(_PHOTOS)), len(images))
        parts.append(_part(split, images.reshape(-1, *images.shape[2:]), label))
    return parts


def _part(split: str, images: NDArray[np.uint8], label: NDArray[Any]) -> SplitImages:
    sha = hashlib.sha256(images.tobytes() + label.astype("<i8").tobytes()).hexdigest()
    return SplitImages(split, label.astype(np.int64), lambda rows: images[rows], sha)


def _enlarged(part: SplitImages) -> NDArray[np.uint8]:
    small = part.images(np.arange(len(part.label)))[..., 0]
    large = np.zeros((len(small), 28, 28, 1), np.uint8)
    for canvas, image in zip(large, small, strict=True):
        enlarged = Image.fromarray(image).resize((20, 20), Image.Resampling.BILINEAR)
        canvas[4:24, 4:24, 0] = np.asarray(enlarged)
    return large


def _patches(name: str) -> NDArray[np.uint8]:
    """Cut a photograph into a grid and keep evenly spaced cells of it."""
    package, file, box, side = _PHOTOS[name]
    path = Path(need(package, "images").__file__).parent / file
    if not path.is_file():  # never by scikit-image's own loader, which would download it
        raise DataNotFoundError(f"this version of {package} does not come with {file}")
    with Image.open(path) as image:
        shown = image.convert("RGB")
    width, height = shown.size
    left, top, right, bottom = box
    shown = shown.crop(
        (round(left * width), round(top * height), round(right * width), round(bottom * height))
    )
    if (scale := side / min(shown.size)) < 1:
        shown = shown.resize((round(shown.width * scale), round(shown.height * scale)))
    rows = shown.height // _SIDE
    columns = shown.width // _SIDE
    pixels = np.asarray(shown)[: rows * _SIDE, : columns * _SIDE]
    grid = pixels.reshape(rows, _SIDE, columns, _SIDE, 3).swapaxes(1, 2)
    spread = np.linspace(0, rows * columns - 1, PATCHES_PER_PHOTO).round().astype(int)
    patches: NDArray[np.uint8] = grid.reshape(-1, _SIDE, _SIDE, 3)[spread]
    return patches
