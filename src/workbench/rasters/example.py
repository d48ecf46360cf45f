"""A made-up aerial mosaic with known objects, to try things out on without data."""

import os
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from tqdm import tqdm

CRS = "EPSG:32632"
#: Metres on the ground.
PIXEL = 0.5
CORNER = (500_000.0, 5_600_000.0)
BLOCK = 512
#: Pixels by which a shadow falls to the right and below.
SHADOW = 3
#: Pixels between an object's middle and the edge of its cell, so that no two overlap.
_MARGIN = 17
#: The colours of the ground, between which it changes.
_GROUND = np.array([[92, 112, 62], [126, 118, 84], [148, 132, 104], [74, 92, 56]])


class Kind(NamedTuple):
    """A class of objects: its outline, half of its sides in pixels, and its colours."""

    boxy: bool
    long: tuple[int, int]
    short: tuple[int, int] | None
    colors: list[tuple[int, int, int]]


CLASSES = {
    "house": Kind(True, (9, 14), (6, 9), [(168, 84, 66), (140, 72, 60), (120, 120, 126)]),
    "pool": Kind(False, (7, 11), (4, 6), [(70, 165, 196), (82, 182, 200)]),
    "tank": Kind(False, (6, 12), None, [(205, 205, 200), (228, 228, 224)]),
    "tree": Kind(False, (5, 11), None, [(62, 124, 52), (92, 120, 50)]),
    "truck": Kind(True, (8, 11), (3, 4), [(222, 222, 216), (200, 60, 50), (60, 90, 180)]),
}


def write_example(
    path: str | os.PathLike[str],
    size: int = 8192,
    objects: int = 12_000,
    seed: int = 0,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Write a mosaic as a GeoTIFF, and return the table of the objects in it.

    Half-metre pixels in UTM zone 32 (EPSG:32632), three bands of uint8, tiles of 512 pixels,
    DEFLATE with predictor 2. Houses, pools, tanks, trees and trucks stand on textured ground, none
    over another. Drawn tile by tile, so that the raster is never in memory; the same arguments
    give the same pixels.

    Parameters
    ----------
    path
        Of the file to make. It must not exist.
    size
        Side in pixels.
    objects
        How many objects. One needs 34 x 34 pixels.
    seed
        Fixes the ground, the objects and where they are.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        One object a row, indexed by ``id``: ``x`` and ``y`` of its middle on the map, ``label``
        (its class), and ``col``, ``row``, ``width``, ``height`` of the box around it.

    Raises
    ------
    FileExistsError
        There is something at `path`.
    ValueError
        No room for so many objects, or a size below one tile.

    Examples
    --------
    >>> table = write_example("mosaic.tif", size=1024, objects=100)  # doctest: +SKIP
    """
    target = Path(path)
    if target.exists():
        raise FileExistsError(f"{target} exists; the example is written to a new file only")
    if size < BLOCK:
        raise ValueError(f"size={size} is too small: a mosaic is at least {BLOCK} pixels wide")
    things = _placed(size, objects, np.random.default_rng([seed, 0]))
    lattice = np.random.default_rng([seed, 1]).random((size // 64 + 3,) * 2)
    profile = {
        "driver": "GTiff",
        "width": size,
        "height": size,
        "count": 3,
        "dtype": "uint8",
        "crs": CRS,
        "transform": rasterio.Affine(PIXEL, 0, CORNER[0], 0, -PIXEL, CORNER[1]),
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "photometric": "rgb",
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 1,
        "num_threads": "all_cpus",
        "bigtiff": "if_safer",
    }
    corners = list(product(range(0, size, BLOCK), repeat=2))
    unfinished = target.with_name(target.name + ".part")
    with rasterio.open(unfinished, "w", **profile) as sink:
        for top, left in tqdm(corners, "draw", unit="tile", disable=not progress):
            land = _ground(lattice, top, left, size, np.random.default_rng([seed, 2, top, left]))
            high, wide = land.shape[:2]
            near = (things["row"] < top + high) & (things["col"] < left + wide)
            near &= things["row"] + things["height"] + SHADOW > top
            near &= things["col"] + things["width"] + SHADOW > left
            for thing in things[near].itertuples():
                draw(land, thing, top, left)
            pixels = land.clip(0, 255).astype(np.uint8).transpose(2, 0, 1)
            sink.write(pixels, window=rasterio.windows.Window(left, top, wide, high))
    unfinished.rename(target)
    x = CORNER[0] + things["x"] * PIXEL
    y = CORNER[1] - things["y"] * PIXEL
    return things[["label", "col", "row", "width", "height"]].assign(x=x, y=y)


def _placed(size: int, objects: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw a cell of a grid for each object, its place in the cell, class, shape and angle."""
    across = max(1, int(np.ceil(np.sqrt(objects))))
    cell = size / across
    if objects < 1 or cell < 2 * _MARGIN:
        most = (size // (2 * _MARGIN)) ** 2
        raise ValueError(f"objects={objects}: a mosaic of {size} pixels has room for 1 to {most}")
    row, column = np.divmod(np.sort(rng.permutation(across**2)[:objects]), across)
    x, y = np.stack([column, row]) * cell + rng.uniform(_MARGIN, cell - _MARGIN, (2, objects))
    label = rng.choice(list(CLASSES), objects)
    kinds = [CLASSES[name] for name in label]
    long = rng.uniform(*np.array([kind.long for kind in kinds]).T)
    short = rng.uniform(*np.array([kind.short or kind.long for kind in kinds]).T)
    short = np.where([kind.short is None for kind in kinds], long, short)
    angle = rng.uniform(0, np.pi, objects)
    # half of the box around the object: of a turned rectangle, or of a turned ellipse
    turned = np.abs([long * np.cos(angle), short * np.sin(angle)])
    upright = np.abs([long * np.sin(angle), short * np.cos(angle)])
    boxy = np.array([kind.boxy for kind in kinds])
    half_width = np.where(boxy, turned.sum(axis=0), np.hypot(*turned))
    half_height = np.where(boxy, upright.sum(axis=0), np.hypot(*upright))
    col = np.floor(x - half_width).astype(np.int64)
    row = np.floor(y - half_height).astype(np.int64)
    width = np.ceil(x + half_width).astype(np.int64) - col
    height = np.ceil(y + half_height).astype(np.int64) - row
    table = {"x": x, "y": y, "label": label, "col": col, "row": row, "width": width}
    table |= {"height": height, "long": long, "short": short, "angle": angle}
    return pd.DataFrame(table | {"hue": rng.integers(0, 6, objects)}).rename_axis("id")


def _ground(
    lattice: NDArray[Any], top: int, left: int, size: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A tile of soft patches in the colours of the ground, with some noise: (y, x, 3)."""
    y, x = np.mgrid[top : min(top + BLOCK, size), left : min(left + BLOCK, size)]
    detail = map_coordinates(lattice, [y / 64, x / 64], order=1)
    patches = map_coordinates(lattice, [y / 512, x / 512], order=1)
    kind = (0.75 * patches + 0.25 * detail) * 3
    land = np.stack([np.interp(kind, range(4), band) for band in _GROUND.T], axis=2)
    land += 24 * (detail[..., None] - 0.5) + rng.integers(-10, 11, (*y.shape, 1))
    return land


def draw(land: NDArray[Any], thing: Any, top: int, left: int) -> None:
    """Draw one object and its shadow onto a tile whose first pixel is at `top`, `left`."""
    first_row, first_column = max(thing.row - top, 0), max(thing.col - left, 0)
    end_row = max(thing.row + thing.height + SHADOW - top, 0)
    end_column = max(thing.col + thing.width + SHADOW - left, 0)
    canvas = land[first_row:end_row, first_column:end_column]
    y, x = np.mgrid[: canvas.shape[0], : canvas.shape[1]] + 0.5
    kind = CLASSES[thing.label]
    for shift in (SHADOW, 0):
        right = x + (first_column + left - thing.x - shift)
        down = y + (first_row + top - thing.y - shift)
        u = (right * np.cos(thing.angle) + down * np.sin(thing.angle)) / thing.long
        v = (down * np.cos(thing.angle) - right * np.sin(thing.angle)) / thing.short
        there = np.maximum(abs(u), abs(v)) <= 1 if kind.boxy else np.hypot(u, v) <= 1
        if shift:
            canvas[there] *= 0.6
    # a roof has two sides; what is round is lit from one
    light = np.where(v < 0, 1.15, 0.85) if kind.boxy else 1.1 - 0.35 * np.hypot(u + 0.3, v + 0.3)
    canvas[there] = np.array(kind.colors[thing.hue % len(kind.colors)]) * light[there][:, None]
