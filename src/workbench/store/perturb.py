"""Affine perturbation of images and, by the same matrix, of their boxes and polygons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from workbench.datasets.boxes import CORNERS, bounds

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Perturb:
    """How training images are changed at random, each time anew.

    Parameters
    ----------
    angle
        Rotation about the middle by up to so many degrees either way.
    min_scale, max_scale
        The image is enlarged about its middle by a factor between these, drawn on a logarithmic
        scale so that halving is as frequent as doubling.
    color
        Of each channel: up to so much is added or taken away, of 255; beyond 0 and 255 it is cut.
    hflip, vflip
        Mirror half of the images left to right, or upside down.

    Raises
    ------
    ValueError
        A number out of its range.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> Perturb(min_scale=2, max_scale=2).matrix(10, 10, rng) @ [5, 5, 1]
    array([5., 5., 1.])
    """

    angle: float = 0.0
    min_scale: float = 1.0
    max_scale: float = 1.0
    color: Sequence[float] = (0.0, 0.0, 0.0)
    hflip: bool = False
    vflip: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.angle <= 180:
            raise ValueError(f"angle={self.angle} must be degrees, from 0 to 180")
        if not 0 < self.min_scale <= self.max_scale < np.inf:
            raise ValueError(
                f"min_scale={self.min_scale} and max_scale={self.max_scale} must be above 0, "
                "the smaller first"
            )
        if any(not 0 <= value <= 255 for value in self.color):
            raise ValueError(f"color={self.color} must be numbers from 0 to 255, one a channel")

    def matrix(self, height: int, width: int, rng: np.random.Generator) -> Matrix:
        """Draw the map of an image's (x, y, 1) to the perturbed image's, pixel i from i to i+1."""
        turn = np.deg2rad(rng.uniform(-self.angle, self.angle))
        low, high = np.log(self.min_scale), np.log(self.max_scale)
        scale = np.exp(rng.uniform(low, high))
        flips = np.where(rng.random(2) < 0.5, [1 - 2 * self.hflip, 1 - 2 * self.vflip], 1)
        cos, sin = np.cos(turn), np.sin(turn)
        linear = scale * np.array([[cos, -sin], [sin, cos]]) * flips
        middle = np.array([width, height]) / 2
        return affine(linear, middle - linear @ middle)

    def colored(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Add the drawn amount to each channel of an image (y, x, channel)."""
        if not any(self.color):
            return image
        most = np.resize(np.asarray(self.color, np.float64), image.shape[2])
        added = rng.uniform(-most, most).round().astype(np.int16)
        return (image.astype(np.int16) + added).clip(0, 255).astype(np.uint8)


def affine(linear: Any, shift: Any) -> Matrix:
    """The 3 × 3 matrix of ``linear @ point + shift``."""
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, shift
    return matrix


def warped(
    image: NDArray[Any], matrix: Matrix, height: int, width: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """An image (y, x, channel) under a map, bilinear, and which pixels are of the image.

    Where it shrinks below a half it is averaged first. Pixels that are not of the image are 0.
    """
    back = np.linalg.inv(matrix)
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    at_x, at_y = (row[0] * x + row[1] * y + row[2] for row in back[:2])
    valid = (at_x >= 0) & (at_x < image.shape[1]) & (at_y >= 0) & (at_y < image.shape[0])
    block = max(1, int(np.sqrt(abs(np.linalg.det(back[:2, :2]))) + 1e-6))
    back = (np.diag([1 / block, 1 / block, 1]) @ back)[:2].ravel().tolist()
    color = image.dtype == np.uint8 and image.shape[2] == 3
    planes = [image] if color else np.split(image, image.shape[2], axis=2)
    moved = []
    for plane in planes:
        values = plane.squeeze(2) if plane.shape[2] == 1 else plane
        source = Image.fromarray(values if values.dtype == np.uint8 else values.astype(np.float32))
        source = source.reduce(block) if block > 1 else source
        size, kind = (width, height), Image.Transform.AFFINE
        moved.append(np.asarray(source.transform(size, kind, back, Image.Resampling.BILINEAR)))
    result = np.dstack(moved)
    rounded = result if result.dtype == image.dtype else np.rint(result)
    return rounded.astype(image.dtype), valid


def moved_boxes(boxes: pd.DataFrame, matrix: Matrix) -> pd.DataFrame:
    """Boxes and ``points`` under a map: a box becomes the box around its four mapped corners.

    A polygon's points are mapped one by one, and its box is the box around them.

    Examples
    --------
    >>> from workbench.datasets.boxes import as_table
    >>> quarter = affine([[0, -1], [1, 0]], [10, 0])
    >>> box = as_table([{"sample": 0, "x_min": 1, "y_min": 2, "x_max": 4, "y_max": 3}])
    >>> moved_boxes(box, quarter)[CORNERS].values.tolist()
    [[7.0, 1.0, 8.0, 4.0]]
    """
    corners = boxes[CORNERS].to_numpy(np.float64)[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    outlines = [_mapped(each, matrix) for each in corners]
    table = boxes.copy()
    points = [None if own is None else _mapped(own, matrix) for own in boxes["points"]]
    ends = [bounds(box if own is None else own) for box, own in zip(outlines, points, strict=True)]
    table[CORNERS] = np.array(ends, np.float64).reshape(-1, 4)
    table["points"] = pd.Series(points, table.index, dtype=object)
    return table


def clipped_boxes(boxes: pd.DataFrame, height: int, width: int) -> pd.DataFrame:
    """Boxes cut to an image; those of which nothing is left are not in the result."""
    whole = boxes[CORNERS].to_numpy(np.float64)
    at = whole.clip(0, [width, height] * 2)
    # a point is a box without extent
    inside = (at[:, :2] < at[:, 2:]).all(axis=1) | (at == whole).all(axis=1)
    kept: pd.DataFrame = boxes[inside].copy()
    kept[CORNERS] = at[inside]
    return kept


def _mapped(points: NDArray[np.float64], matrix: Matrix) -> NDArray[np.float64]:
    mapped: NDArray[np.float64] = points @ matrix[:2, :2].T + matrix[:2, 2]
    return mapped
