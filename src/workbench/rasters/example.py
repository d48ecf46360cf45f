"""A made-up aerial mosaic with known objects, to try things out on without data."""

import os
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from tqdm import tqdm

Floats = NDArray[np.float32]
SHADOW = 3
"""Pixels by which a shadow falls to the right and below."""
_ROOFS = np.array([[168, 84, 66], [140, 72, 60], [120, 120, 126], [176, 122, 92]], np.float32)
_CABS = np.array([[200, 60, 50], [60, 90, 180], [230, 220, 80]], np.float32)


def draw(land: Floats, thing: Any, top: int, left: int) -> None:
    """Draw one object and its shadow onto a tile whose first pixel is at `top`, `left`.

    `thing` has ``x``, ``y`` (pixels), ``long``, ``short`` (half of its sides), ``angle``, ``hue``
    and ``label``.
    """
    reach = int(np.hypot(thing.long, thing.short)) + SHADOW + 2
    rows, columns = (
        slice(max(int(at) - reach - start, 0), max(min(int(at) + reach - start, length), 0))
        for at, start, length in zip((thing.y, thing.x), (top, left), land.shape, strict=False)
    )
    canvas = land[rows, columns]
    y, x = np.mgrid[rows, columns] + 0.5
    x, y = x + (left - thing.x), y + (top - thing.y)
    shape, color = SHAPES[thing.label]
    u, v = _turned(thing, x - SHADOW, y - SHADOW)
    canvas[shape(u / thing.long, v / thing.short)] *= 0.6
    u, v = _turned(thing, x, y)
    u, v = u / thing.long, v / thing.short
    there = shape(u, v)
    canvas[there] = color(u[there], v[there], thing.hue)


def _turned(thing: Any, x: Any, y: Any) -> tuple[Any, Any]:
    cos, sin = np.cos(thing.angle), np.sin(thing.angle)
    return x * cos + y * sin, y * cos - x * sin


def _rectangle(u: Any, v: Any) -> Any:
    return (np.abs(u) <= 1) & (np.abs(v) <= 1)


def _oval(u: Any, v: Any) -> Any:
    return u * u + v * v <= 1


def _house(_: Any, v: Any, hue: int) -> Any:
    """A roof whose two sides differ in brightness, with a ridge."""
    light = np.where(v < 0, 1.15, 0.8)
    light = np.where(np.abs(v) < 0.1, 1.4, light)
    return _ROOFS[hue % len(_ROOFS)] * light[:, None]


def _pool(u: Any, v: Any, hue: int) -> Any:
    rim = (u * u + v * v > 0.7)[:, None]
    return np.where(rim, [214, 208, 196], [60 + 2 * hue, 150 + 3 * hue, 196])


def _tank(u: Any, v: Any, hue: int) -> Any:
    light = 205 + 2 * hue - 55 * np.hypot(u + 0.4, v + 0.4)
    return light[:, None] * np.array([1.0, 1.0, 0.98])


def _tree(u: Any, v: Any, hue: int) -> Any:
    light = 0.9 - 0.35 * np.hypot(u + 0.3, v + 0.3) + 0.12 * np.sin(9 * u + hue) * np.cos(9 * v)
    return light[:, None] * np.array([62 + 3 * hue, 124, 52])


def _truck(u: Any, _: Any, hue: int) -> Any:
    cab = (u > 0.5)[:, None]
    return np.where(cab, _CABS[hue % len(_CABS)], [222, 222, 216])


SHAPES: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any, int], Any]]] = {
    "house": (_rectangle, _house),
    "pool": (_oval, _pool),
    "tank": (_oval, _tank),
    "tree": (_oval, _tree),
    "truck": (_rectangle, _truck),
}
CRS = "EPSG:32632"
PIXEL = 0.5
"""Metres on the ground."""
CORNER = (500_000.0, 5_600_000.0)
BLOCK = 512
CLASSES = ("house", "pool", "tank", "tree", "truck")
#: Half of the longer and of the shorter side in pixels, smallest and largest.
_HALVES = {
    "house": ((9, 14), (6, 9)),
    "pool": ((7, 11), (4, 6)),
    "tank": ((6, 12), (6, 12)),
    "tree": ((5, 11), (5, 11)),
    "truck": ((8, 11), (3, 4)),
}
_GROUND = np.array([[92, 112, 62], [126, 118, 84], [148, 132, 104], [74, 92, 56]], np.float32)
#: The colours of the ground and what lies between them.
_SHADES = np.stack(
    [np.interp(np.linspace(0, 3, 256), range(4), band) for band in _GROUND.T], axis=1
).astype(np.float32)
#: Pixels between an object's middle and the edge of its cell, so that no two overlap.
_MARGIN = 17


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
    table = _placed(size, objects, np.random.default_rng([seed, 0]))
    unfinished = target.with_name(target.name + ".part")
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
        "interleave": "pixel",
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 1,
        "num_threads": "all_cpus",
        "photometric": "rgb",
        "bigtiff": "if_safer",
    }
    total = (-(-size // BLOCK)) ** 2
    tiles = tqdm(_tiles(size, table, seed), "draw", total, unit="tile", disable=not progress)
    with rasterio.open(unfinished, "w", **profile) as sink:
        for top, left, pixels in tiles:
            window = rasterio.windows.Window(left, top, pixels.shape[1], pixels.shape[0])
            sink.write(pixels.transpose(2, 0, 1), window=window)
    unfinished.rename(target)
    return _described(table)


def _placed(size: int, objects: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw a cell of a grid for each object, its place in the cell, class, shape and angle."""
    across = max(1, int(np.ceil(np.sqrt(objects))))
    cell = size / across
    if objects < 1 or cell < 2 * _MARGIN:
        most = (size // (2 * _MARGIN)) ** 2
        raise ValueError(f"objects={objects}: a mosaic of {size} pixels has room for 1 to {most}")
    column, row = np.divmod(np.sort(rng.permutation(across**2)[:objects]), across)[::-1]
    offset = rng.uniform(_MARGIN, cell - _MARGIN, (2, objects))
    label = rng.integers(0, len(CLASSES), objects)
    halves = np.array([_HALVES[name] for name in CLASSES], float)[label]
    long, short = (rng.uniform(halves[:, i, 0], halves[:, i, 1]) for i in (0, 1))
    round_ones = np.isin(label, [CLASSES.index("tank"), CLASSES.index("tree")])
    return pd.DataFrame(
        {
            "x": column * cell + offset[0],
            "y": row * cell + offset[1],
            "label": np.array(CLASSES)[label],
            "long": long,
            "short": np.where(round_ones, long, short),
            "angle": rng.uniform(0, np.pi, objects),
            "hue": rng.integers(0, 12, objects),
        }
    ).rename_axis("id")


def _described(table: pd.DataFrame) -> pd.DataFrame:
    """The table that a reader gets: map coordinates, class, and the box of each object."""
    low, high = _extents(table)
    return pd.DataFrame(
        {
            "x": CORNER[0] + table["x"] * PIXEL,
            "y": CORNER[1] - table["y"] * PIXEL,
            "label": table["label"],
            "col": low[0],
            "row": low[1],
            "width": high[0] - low[0],
            "height": high[1] - low[1],
        }
    )


def _extents(table: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one past the last (column, row) of each object's box."""
    cos, sin = np.abs(np.cos(table["angle"])), np.abs(np.sin(table["angle"]))
    boxy = table["label"].isin(["house", "truck"])
    reach = []
    for along, aside in ((cos, sin), (sin, cos)):
        oval = np.hypot(table["long"] * along, table["short"] * aside)
        reach.append(np.where(boxy, table["long"] * along + table["short"] * aside, oval))
    middle = table[["x", "y"]].to_numpy().T
    low, high = np.floor(middle - reach), np.ceil(middle + reach)
    return low.astype(np.int64), high.astype(np.int64)


def _tiles(
    size: int, table: pd.DataFrame, seed: int
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Top, left and pixels (y, x, 3) of each tile."""
    lattices = {
        step: np.random.default_rng([seed, 1, step]).random((size // step + 3,) * 2, np.float32)
        for step in (512, 64)
    }
    low, high = _extents(table)
    high += SHADOW
    for top, left in product(range(0, size, BLOCK), repeat=2):
        shape = min(BLOCK, size - top), min(BLOCK, size - left)
        land = _land(lattices, top, left, shape)
        rng = np.random.default_rng([seed, 2, top, left])
        land += rng.integers(-10, 11, (*shape, 1), dtype=np.int8)
        inside = (low[1] < top + shape[0]) & (high[1] > top)
        inside &= (low[0] < left + shape[1]) & (high[0] > left)
        for thing in table[inside].itertuples():
            draw(land, thing, top, left)
        yield top, left, land.clip(0, 255).astype(np.uint8)


def _land(lattices: dict[int, Floats], top: int, left: int, shape: tuple[int, int]) -> Floats:
    """Colours of the ground: soft patches of four kinds, brighter and darker in places."""
    patches, detail = (
        _between(lattice, step, top, left, shape) for step, lattice in lattices.items()
    )
    kind = (0.75 * patches + 0.25 * detail) * (len(_SHADES) - 1)
    land = np.take(_SHADES, kind.astype(np.int16), axis=0)
    land += (24 * (detail - 0.5))[..., None]
    return land


def _between(lattice: Floats, step: int, top: int, left: int, shape: tuple[int, int]) -> Floats:
    """Bilinear values between the points of a lattice."""
    points, weights = [], []
    for first, count in zip((top, left), shape, strict=True):
        start, end = first // step, (first + count) // step + 2
        at = np.arange(first, first + count) / step
        near = 1 - np.abs(at[:, None] - np.arange(start, end))
        points.append(slice(start, end))
        weights.append(near.clip(0).astype(np.float32))
    # not by BLAS, whose threads cost more than so small a product
    rows = np.einsum("ya,ab->yb", weights[0], lattice[tuple(points)])
    values: Floats = np.einsum("yb,xb->yx", rows, weights[1])
    return values
