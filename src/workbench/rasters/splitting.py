"""Training crops around annotated objects, or over the whole image, with their annotations.

Where to cut: images with their boxes, and windows around objects, on a grid or in between.
"""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from workbench._extras import need
from workbench.datasets.dataset import build
from workbench.datasets.table import single
from workbench.rasters.crop import sampled
from workbench.rasters.errors import RegionError
from workbench.rasters.regions import BOX, check_boxes

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


class Split(NamedTuple):
    """Crops, the annotations in them, and how much of the pixels is annotated."""

    ds: xr.Dataset
    annotations: pd.DataFrame
    balance: pd.DataFrame


def split_regions(
    images: xr.Dataset | NDArray[Any],
    boxes: pd.DataFrame,
    size: int,
    *,
    scale: float | None = None,
    cover: Literal["objects", "grid"] = "objects",
    background: int = 0,
    min_visible: float = 0.0,
    seed: int = 0,
) -> Split:
    """Cut square training crops out of annotated images.

    A window is moved, not shrunk, where it would leave the image; only where the image is smaller
    than the window it is padded with zeros, right and below, which are not `valid`. Every box that
    a window touches is clipped to it and moved into its coordinates.

    Parameters
    ----------
    images
        One image, (y, x) or (y, x, channel), or an image dataset. Chips that
        :func:`workbench.rasters.plan` cuts out of a raster are one.
    boxes
        One annotation a row: ``col``, ``row``, ``width``, ``height`` in whole pixels, for a
        dataset also ``sample``, the id of the image; any other column is carried along, and
        ``label`` becomes the class.
    size
        Side of every crop in pixels.
    scale
        The side of a window is `scale` times the square root of its object's area, and the window
        is resampled to `size`: objects then look equally large. None: `size` pixels as they are.
    cover
        ``"objects"``: one window around each object. ``"grid"``: windows side by side that cover
        every pixel; the last of a row or column are moved back inside and overlap others.
    background
        Add so many windows of each image, drawn at random, that touch no box.
    min_visible
        Leave out annotations of which less than this share of the area is in the window.
    seed
        Fixes the background.

    Returns
    -------
    Split
        ``ds``: the image dataset of crops, with `valid` (sample, y, x), ``row``, ``col`` and
        ``side`` of each window in its image, ``source`` (the image's id), and of the ``label``
        column the class of the object in the middle (``label``, -1 for background) or, of a grid,
        of all objects in the window (``labels``). ``annotations``: ``sample``, ``box`` (index in
        `boxes`), ``col``, ``row``, ``width``, ``height`` in the crop's pixels, ``visible`` (share
        of the box's area) and the other columns. ``balance``: pixels within boxes (``positive``),
        outside (``negative``) and their ``ratio``, ``before`` over all images and ``after`` over
        all crops.

    Raises
    ------
    RegionError
        Boxes that are no boxes, lie outside their image, or name an image that is not there; no
        boxes, and so nothing to crop.
    ValueError
        An option out of its range, or an image of another shape.

    Examples
    --------
    >>> boxes = pd.DataFrame({"col": [60], "row": [40], "width": [8], "height": [6]})
    >>> split = split_regions(np.zeros((64, 64, 3), np.uint8), boxes, size=16)
    >>> split.ds[["row", "col"]].to_array().values.ravel().tolist()
    [35, 48]
    >>> split.annotations[["col", "row", "width", "height"]].values.tolist()
    [[12.0, 5.0, 4.0, 6.0]]
    """
    _check_options(size, scale, cover, background, min_visible)
    dice = np.random.default_rng(seed)
    windows, marks, pixels = [], [], []
    before = np.zeros(2)
    for source in annotated(images, boxes):
        windows.append(make_windows(source, size, scale, cover, background, dice))
        marks.append(_annotations(source, windows[-1], size, min_visible))
        pixels.append(_crops(source, windows[-1], size))
        positive = _covered(source.clipped)
        before += positive, source.pixels.shape[0] * source.pixels.shape[1] - positive
    image, valid = (np.concatenate(parts) for parts in zip(*pixels, strict=True))
    if not len(image):
        raise RegionError("there is nothing to crop: the table of boxes is empty")
    table, annotations = pd.concat(windows), pd.concat(marks, ignore_index=True)
    ds = build(
        image,
        sample=table.index.to_numpy(np.str_),
        **_classes(table, annotations, boxes, cover),
        attrs=_attributes(images, image),
    )
    ds = ds.assign({name: ("sample", table[name].to_numpy()) for name in ("row", "col", "side")})
    ds["source"] = "sample", table["source"].to_numpy(np.str_)
    ds["valid"] = ("sample", "y", "x"), valid
    return Split(ds, annotations, _balance(before, ds, annotations))


def _annotations(
    source: Source, windows: pd.DataFrame, size: int, min_visible: float
) -> pd.DataFrame:
    """The boxes of each window, clipped and in its coordinates."""
    corner, side = windows[["col", "row"]].to_numpy(), windows["side"].to_numpy()
    bounds, at = np.hstack([corner, corner + side[:, None]]), source.clipped
    window, box = touching(bounds, at)
    low = np.maximum(at[box, :2], bounds[window, :2])
    shape = np.minimum(at[box, 2:], bounds[window, 2:]) - low
    visible = shape.prod(axis=1) / source.boxes[box, 2:].prod(axis=1)
    factor = (size / side[window])[:, None]
    values = np.hstack([(low - corner[window]) * factor, shape * factor])
    table = pd.DataFrame(values, columns=BOX)
    table.insert(0, "sample", windows.index.to_numpy()[window])
    table.insert(1, "box", source.table.index.to_numpy()[box])
    table["visible"] = visible
    others = source.table.drop(columns=BOX).iloc[box].set_axis(table.index)
    table = pd.concat([table, others], axis=1)
    enough: pd.DataFrame = table[visible >= min_visible]
    return enough


def _crops(
    source: Source, windows: pd.DataFrame, size: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The windows' pixels at one size, and which of them are in the image."""
    image = np.zeros((len(windows), size, size, source.pixels.shape[2]), source.pixels.dtype)
    valid = np.zeros(image.shape[:3], np.bool_)
    high, wide = source.pixels.shape[:2]
    for i, (col, row, side) in enumerate(windows[["col", "row", "side"]].to_numpy().tolist()):
        cut = source.pixels[row : row + side, col : col + side]
        there = sampled(0, side, size)
        valid[i] = (row + there < high)[:, None] & (col + there < wide)
        if cut.shape[:2] != (side, side):
            missing = [(0, side - length) for length in cut.shape[:2]]
            cut = np.pad(cut, [*missing, (0, 0)])
        image[i] = cut if side == size else resized(cut, size)
    return image, valid


def resized(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    """A square image at another size, by averaging where it shrinks; integers are rounded."""
    result = np.empty((size, size, pixels.shape[2]), pixels.dtype)
    for channel in range(pixels.shape[2]):
        plane = Image.fromarray(pixels[..., channel].astype(np.float32))
        values = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        result[..., channel] = values if pixels.dtype.kind == "f" else np.rint(values)
    return result


def _classes(
    windows: pd.DataFrame, annotations: pd.DataFrame, boxes: pd.DataFrame, cover: str
) -> dict[str, Any]:
    """Class names, and the class in the middle of each window, or all classes of a grid's."""
    if "label" not in boxes:
        return {"classes": ()}
    names = _numbered(boxes["label"], None)[1]
    if cover == "objects":
        return {"classes": names, "label": _numbered(windows["label"], names)[0]}
    member = np.zeros((len(windows), len(names)), np.bool_)
    label = _numbered(annotations["label"], names)[0]
    rows = windows.index.get_indexer(pd.Index(annotations["sample"]))
    member[rows[label >= 0], label[label >= 0]] = True
    return {"classes": names, "labels": member}


def _numbered(column: "pd.Series[Any]", names: list[str] | None) -> tuple[Any, list[str]]:
    texts = column.astype(object).where(column.notna(), None)
    return single(texts.tolist(), "the column label", names)


def _covered(boxes: NDArray[Any]) -> float:
    """Area that boxes (left, top, right, bottom) cover together."""
    shapely = need("shapely", extra="rasters")
    return float(shapely.union_all(shapely.box(*boxes.T)).area)


def _balance(
    before: NDArray[np.float64], ds: xr.Dataset, annotations: pd.DataFrame
) -> pd.DataFrame:
    low, shape = annotations[["col", "row"]].to_numpy(), annotations[["width", "height"]]
    bounds = np.hstack([low, low + shape.to_numpy()])
    groups = annotations.groupby("sample", sort=False).indices.values()
    positive = sum(_covered(bounds[rows]) for rows in groups)
    after = [positive, float(ds["valid"].sum()) - positive]
    table = pd.DataFrame(
        [before, after], index=["before", "after"], columns=["positive", "negative"]
    )
    table["ratio"] = table["positive"] / table["negative"]
    return table


def _attributes(images: xr.Dataset | NDArray[Any], image: NDArray[Any]) -> dict[str, Any]:
    attrs = dict(images.attrs) if isinstance(images, xr.Dataset) else {"name": "image"}
    sha = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    return {**attrs, "sha256": sha, "sha256_of": "the crops' pixels"}


def _check_options(
    size: int, scale: float | None, cover: str, background: int, min_visible: float
) -> None:
    if size < 1:
        raise ValueError(f"size={size} must be 1 or more pixels")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale={scale} must be more than 0")
    if cover not in ("objects", "grid"):
        raise ValueError(f'cover={cover!r} is neither "objects" nor "grid"')
    if scale is not None and cover == "grid":
        raise ValueError('scale belongs to cover="objects": a grid has no objects in its middle')
    if background < 0:
        raise ValueError(f"background={background} must be 0 or more")
    if not 0 <= min_visible <= 1:
        raise ValueError(f"min_visible={min_visible} must be a share, from 0 to 1")
