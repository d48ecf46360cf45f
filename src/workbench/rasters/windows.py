"""Where to cut: images with their boxes, and windows around objects, on a grid or in between."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.errors import RegionError
from workbench.rasters.regions import check_boxes

Ints = NDArray[np.int64]
#: Draws of background windows before the search for room is given up.
_ROUNDS = 50


@dataclass(frozen=True)
class Source:
    """One image and its boxes: whole pixels, and as left, top, right, bottom within the image."""

    name: str
    pixels: NDArray[Any]
    table: pd.DataFrame
    boxes: Ints

    @property
    def clipped(self) -> Ints:
        """Left, top, right, bottom of each box, as far as it is in the image."""
        high, wide = self.pixels.shape[:2]
        low, end = self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]
        return np.hstack([low.clip(0), np.minimum(end, [wide, high])])


def annotated(images: xr.Dataset | NDArray[Any], boxes: pd.DataFrame) -> Iterator[Source]:
    """Each image with its own boxes; raise ``RegionError`` where they do not belong to it."""
    at = check_boxes(boxes)
    if isinstance(images, xr.Dataset):
        if "sample" not in boxes:
            raise RegionError("boxes of an image dataset need a column 'sample', the image's id")
        known = pd.Index(images["sample"].values)
        rows = known.get_indexer(pd.Index(boxes["sample"]))
        if (rows < 0).any():
            missing = boxes["sample"].iloc[int(np.argmin(rows))]
            raise RegionError(f"a box is of the image {missing}, which the dataset does not hold")
        for position, name in enumerate(known):
            mine = rows == position
            pixels = np.asarray(images["image"].isel(sample=position).values)
            yield _source(str(name), pixels, boxes[mine].drop(columns="sample"), at[mine])
        return
    pixels = np.asarray(images)
    yield _source("", pixels if pixels.ndim > 2 else pixels[..., None], boxes, at)


def _source(name: str, pixels: NDArray[Any], table: pd.DataFrame, at: Ints) -> Source:
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(f"an image must be (y, x) or (y, x, channel); got {pixels.shape}")
    source = Source(name, pixels, table, at)
    gone = (source.clipped[:, :2] >= source.clipped[:, 2:]).any(axis=1)
    if gone.any():
        raise RegionError(
            f"box {table.index[int(np.argmax(gone))]!r} lies outside its image of "
            f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
        )
    return source


def make_windows(
    source: Source, size: int, scale: float | None, cover: str, background: int, dice: Any
) -> pd.DataFrame:
    """Windows of one image, indexed by their ids: ``col``, ``row``, ``side`` and ``source``.

    Where objects are labelled, ``label`` is that of the object in the middle.
    """
    table = _grid(source, size) if cover == "grid" else _around(source, size, scale)
    usual = int(table["side"].median()) if len(table) else size
    empty = pd.DataFrame(_background(source, usual, background, dice), columns=["col", "row"])
    empty = empty.assign(side=usual, name=[f"background {i}" for i in range(len(empty))])
    table = pd.concat([table, empty], ignore_index=True).assign(source=source.name)
    prefix = f"{source.name}/" if source.name else ""
    return table.set_axis([f"{prefix}{name}" for name in table.pop("name")])


def _around(source: Source, size: int, scale: float | None) -> pd.DataFrame:
    high, wide = source.pixels.shape[:2]
    side = np.full(len(source.boxes), size)
    if scale is not None:
        area = source.boxes[:, 2:].prod(axis=1)
        side = np.maximum(1, np.round(scale * np.sqrt(area)).astype(np.int64))
    corner = (2 * source.boxes[:, :2] + source.boxes[:, 2:] - side[:, None]) // 2
    corner = np.minimum(corner, np.array([wide, high]) - side[:, None]).clip(0)
    table = pd.DataFrame(corner, columns=["col", "row"])
    table = table.assign(side=side, name=[str(name) for name in source.table.index])
    if "label" in source.table:
        table["label"] = source.table["label"].astype(object).to_numpy()
    return table


def _grid(source: Source, size: int) -> pd.DataFrame:
    across, down = (_steps(length, size) for length in source.pixels.shape[1::-1])
    corner = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    names = [f"row {row} col {col}" for col, row in corner.tolist()]
    return pd.DataFrame(corner, columns=["col", "row"]).assign(side=size, name=names)


def _steps(length: int, size: int) -> Ints:
    """Where windows begin that cover a length."""
    return np.unique(np.minimum(np.arange(0, length, size), max(length - size, 0)))


def _background(source: Source, side: int, wanted: int, dice: Any) -> Ints:
    """Corners of windows that touch no box, as far as there is room for them."""
    found = np.empty((0, 2), np.int64)
    room = np.array(source.pixels.shape[1::-1]) - side
    for _ in range(_ROUNDS if (room >= 0).all() else 0):
        if len(found) >= wanted:
            break
        drawn = dice.integers(0, room + 1, (4 * wanted, 2))
        hit = np.unique(touching(np.hstack([drawn, drawn + side]), source.clipped)[0])
        found = np.unique(np.vstack([found, np.delete(drawn, hit, axis=0)]), axis=0)
        found = dice.permutation(found)
    if len(found) < wanted:
        what = f"image {source.name!r}" if source.name else "the image"
        warnings.warn(
            f"{what} has room for {len(found)} of {wanted} background windows of {side} pixels",
            stacklevel=4,
        )
    return np.asarray(found[:wanted])


def touching(windows: Ints, boxes: Ints) -> Any:
    """Pairs (window, box) that share pixels, in the order of the windows."""
    shapely = need("shapely", extra="rasters")
    found = shapely.STRtree(shapely.box(*boxes.T)).query(shapely.box(*windows.T))
    window, box = found[:, np.lexsort(found[::-1])]
    low = np.maximum(windows[window, :2], boxes[box, :2])
    shared = (low < np.minimum(windows[window, 2:], boxes[box, 2:])).all(axis=1)
    return window[shared], box[shared]
