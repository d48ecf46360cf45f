"""Training crops around annotated objects, or over the whole image, with their annotations."""

import hashlib
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from workbench._extras import need
from workbench.datasets.form import build
from workbench.datasets.labelling import single
from workbench.rasters.errors import RegionError
from workbench.rasters.regions import BOX
from workbench.rasters.resample import sampled
from workbench.rasters.windows import Source, annotated, make_windows, touching


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
