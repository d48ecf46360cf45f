"""Training patches around annotated objects, or over the whole image, with their annotations."""

import hashlib
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._extras import need
from workbench.datasets.boxes import CORNERS, as_table
from workbench.datasets.dataset import build
from workbench.datasets.errors import BadDataError
from workbench.datasets.images import full_size
from workbench.store.perturb import affine, clipped_boxes, moved_boxes, warped

#: Draws of background windows before the search for room is given up.
_ROUNDS = 50


class Split(NamedTuple):
    """Patches, the boxes in them, how much of the pixels is annotated, and how they were scaled."""

    ds: xr.Dataset
    boxes: pd.DataFrame
    balance: pd.DataFrame
    scale: "pd.Series[float]"


def split_regions(
    ds: xr.Dataset,
    boxes: pd.DataFrame,
    patch: int,
    *,
    size: float | None = None,
    no_scale: bool = False,
    cover: Literal["objects", "grid"] = "objects",
    background: int = 0,
    min_visible: float = 0.0,
    seed: int = 0,
) -> Split:
    """Cut square training patches out of annotated images.

    A window is moved, not shrunk, where it would leave the image; only where the image is smaller
    than the window the patch is padded with zeros, right and below, which are not `valid`. Every
    box that a window touches is cut to it; a polygon keeps its corners outside.

    Parameters
    ----------
    ds
        An image dataset. Images are read from ``path`` at full size where there is one.
    boxes
        As :func:`workbench.boxes.as_table` takes them.
    patch
        Side of every patch in pixels.
    size
        Objects are scaled so that √(width · height) becomes `size` pixels; by default the median
        of all objects.
    no_scale
        Cut out pixels as they are.
    cover
        ``"objects"``: one window around each object. ``"grid"``: windows side by side that cover
        every pixel, unscaled; the last of a row or column are moved back inside and overlap others.
    background
        Add so many windows of each image, drawn at random, that touch no box.
    min_visible
        Leave out annotations of which less than this share of the area is in the window.
    seed
        Fixes the background.

    Returns
    -------
    Split
        ``ds``: the patches, with `valid` (sample, y, x), ``row``, ``col`` and ``side`` of each
        window in its image, ``source`` (the image's id), and ``label``, the class of the object in
        the middle, -1 for background, or of a grid ``labels``, all classes in the window.
        ``boxes``: the table in the patches' pixels, with ``box`` (row in `boxes`) and ``visible``
        (share of the box's area). ``balance``: pixels within boxes (``positive``), outside
        (``negative``) and their ``ratio``, ``before`` over all images and ``after`` over all
        patches. ``scale``: ``min``, ``mean`` and ``max`` of what objects were enlarged by.

    Raises
    ------
    BadDataError
        Boxes that are no boxes, lie outside their image, or name an image that is not there; no
        boxes, and so nothing to cut.
    ValueError
        An option out of its range.

    Examples
    --------
    >>> from workbench import datasets
    >>> ds = datasets.load("photos", n=1)
    >>> box = {"x_min": 10, "y_min": 4, "x_max": 18, "y_max": 12, "label": "eye"}
    >>> split = split_regions(ds, as_table([{"sample": ds.sample.item(), **box}]), patch=16, size=4)
    >>> split.boxes[["x_min", "y_min", "x_max", "y_max"]].values.tolist()
    [[10.0, 4.0, 14.0, 8.0]]
    """
    _check_options(patch, size, cover, background, min_visible)
    table = as_table(boxes, ds)
    root = np.sqrt((table["x_max"] - table["x_min"]) * (table["y_max"] - table["y_min"]))
    if no_scale or cover == "grid":
        table["side"] = patch
    else:
        table["side"] = (patch * root / (size or root.median())).round().clip(1).fillna(patch)
    rng = np.random.default_rng(seed)
    own = table.groupby("sample", sort=False).indices
    cuts, before = [], np.zeros(2)
    for row, sample in enumerate(ds["sample"].values):
        pixels = full_size(ds, row)
        here = table.iloc[own.get(sample, [])]
        _check_inside(here, pixels)
        windows = _grid(pixels, patch) if cover == "grid" else _around(here, pixels)
        windows = pd.concat([windows, _background(here, windows, pixels, patch, background, rng)])
        windows.index = [f"{sample}/{name}" for name in windows.index]
        cuts += [(w, *_cut(pixels, here, w, patch, min_visible)) for _, w in windows.iterrows()]
        positive = _covered(clipped_boxes(here, *pixels.shape[:2]))
        before += positive, pixels.shape[0] * pixels.shape[1] - positive
    if not cuts:
        raise BadDataError("there is nothing to cut out: the table of boxes is empty")
    windows = pd.DataFrame([cut[0] for cut in cuts])
    found = pd.concat([cut[3] for cut in cuts], ignore_index=True)
    patches = _dataset(ds, windows, np.stack([cut[1] for cut in cuts]), found, cover)
    patches["valid"] = ("sample", "y", "x"), np.stack([cut[2] for cut in cuts])
    scale = patch / table["side"]
    return Split(
        patches,
        found,
        _balance(before, patches, found),
        pd.Series({"min": scale.min(), "mean": scale.mean(), "max": scale.max()}),
    )


def _around(boxes: pd.DataFrame, pixels: NDArray[Any]) -> pd.DataFrame:
    """A window around each object, inside the image where it can be."""
    at, side = boxes[CORNERS].to_numpy(), boxes["side"].to_numpy(np.int64)
    corner = np.floor((at[:, :2] + at[:, 2:] - side[:, None]) / 2).astype(np.int64)
    corner = np.minimum(corner, np.array(pixels.shape[1::-1]) - side[:, None]).clip(0)
    windows = pd.DataFrame(corner, boxes.index, columns=["col", "row"])
    return windows.assign(side=side, label=boxes["label"])


def _grid(pixels: NDArray[Any], side: int) -> pd.DataFrame:
    steps = [
        np.unique(np.minimum(np.arange(0, length, side), max(length - side, 0)))
        for length in pixels.shape[1::-1]
    ]
    corner = np.stack(np.meshgrid(*steps), axis=-1).reshape(-1, 2)
    names = [f"row {row} col {col}" for col, row in corner.tolist()]
    return pd.DataFrame(corner, names, columns=["col", "row"]).assign(side=side, label="")


def _background(
    boxes: pd.DataFrame,
    windows: pd.DataFrame,
    pixels: NDArray[Any],
    patch: int,
    wanted: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Windows as large as the usual one that touch no box, as far as there is room for them."""
    side = int(windows["side"].median()) if len(windows) else patch
    found = np.empty((0, 2), np.int64)
    room = np.array(pixels.shape[1::-1]) - side
    for _ in range(_ROUNDS if (room >= 0).all() else 0):
        if len(found) >= wanted:
            break
        drawn = rng.integers(0, room + 1, (4 * wanted, 2))
        free = [corner for corner in drawn if not _touched(boxes, corner, side).any()]
        found = rng.permutation(np.unique(np.array([*found, *free]).reshape(-1, 2), axis=0))
    if len(found) < wanted:
        text = f"an image has room for {len(found)} of {wanted} background windows of {side} pixels"
        warnings.warn(text, stacklevel=3)
    names = [f"background {i}" for i in range(min(wanted, len(found)))]
    table = pd.DataFrame(found[:wanted], names, columns=["col", "row"])
    return table.assign(side=side, label="")


def _touched(boxes: pd.DataFrame, corner: Any, side: int) -> NDArray[np.bool_]:
    """Which boxes share pixels with a window."""
    at = boxes[CORNERS].to_numpy()
    touched: NDArray[np.bool_] = (
        (at[:, :2] < np.add(corner, side)) & (at[:, 2:] > np.asarray(corner))
    ).all(axis=1)
    return touched


def _cut(
    pixels: NDArray[Any], boxes: pd.DataFrame, window: Any, patch: int, min_visible: float
) -> tuple[NDArray[Any], NDArray[np.bool_], pd.DataFrame]:
    """A window's pixels, which of them are in the image, and its boxes."""
    corner, factor = np.array([window["col"], window["row"]]), patch / window["side"]
    matrix = affine(np.eye(2) * factor, -corner * factor)
    image, valid = warped(pixels, matrix, patch, patch)
    near = boxes[_touched(boxes, corner, window["side"])].drop(columns="side")
    found = moved_boxes(near, matrix)
    found["box"], found["visible"] = near.index, _areas(found)
    found = clipped_boxes(found, patch, patch)
    found["visible"] = (_areas(found) / found["visible"]).fillna(1.0)  # a point has no area
    return image, valid, found[found["visible"] >= min_visible].assign(sample=window.name)


def _areas(boxes: pd.DataFrame) -> "pd.Series[float]":
    return (boxes["x_max"] - boxes["x_min"]) * (boxes["y_max"] - boxes["y_min"])


def _dataset(
    ds: xr.Dataset, windows: pd.DataFrame, image: NDArray[Any], boxes: pd.DataFrame, cover: str
) -> xr.Dataset:
    names = sorted({*windows["label"], *boxes["label"]} - {""})
    if cover == "objects":
        kind = {"label": pd.Index(names).get_indexer(windows["label"])}
    else:
        held = boxes.groupby("sample")["label"].agg(set).to_dict()
        member = [[name in held.get(window, ()) for name in names] for window in windows.index]
        kind = {"labels": np.array(member, np.bool_).reshape(len(windows), len(names))}
    sha = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    attrs = {**ds.attrs, "sha256": sha, "sha256_of": "the patches' pixels"}
    sample = windows.index.to_numpy(np.str_)
    patches = build(image, sample=sample, classes=names, attrs=attrs, **kind)
    columns = {
        name: ("sample", windows[name].to_numpy(np.int64)) for name in ("row", "col", "side")
    }
    source = np.array([name.rpartition("/")[0] for name in sample])
    return patches.assign(columns, source=("sample", source))


def _covered(boxes: pd.DataFrame) -> float:
    """Area that boxes cover together."""
    shapely = need("shapely", extra="store")
    return float(shapely.union_all(shapely.box(*boxes[CORNERS].to_numpy().T)).area)


def _balance(before: Any, ds: xr.Dataset, boxes: pd.DataFrame) -> pd.DataFrame:
    positive = sum(_covered(part) for _, part in boxes.groupby("sample"))
    after = [positive, float(ds["valid"].sum()) - positive]
    columns = ["positive", "negative"]
    table = pd.DataFrame([before, after], index=["before", "after"], columns=columns)
    return table.assign(ratio=table["positive"] / table["negative"])


def _check_inside(boxes: pd.DataFrame, pixels: NDArray[Any]) -> None:
    outside = boxes.index.difference(clipped_boxes(boxes, *pixels.shape[:2]).index)
    if len(outside):
        raise BadDataError(
            f"box {outside[0]} of sample {boxes['sample'].iloc[0]!r} lies outside its image of "
            f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
        )


def _check_options(
    patch: int, size: float | None, cover: str, background: int, min_visible: float
) -> None:
    if patch < 1:
        raise ValueError(f"patch={patch} must be 1 or more pixels")
    if size is not None and not size > 0:
        raise ValueError(f"size={size} must be more than 0")
    if cover not in ("objects", "grid"):
        raise ValueError(f'cover={cover!r} is neither "objects" nor "grid"')
    if size is not None and cover == "grid":
        raise ValueError('size belongs to cover="objects": a grid has no objects in its middle')
    if background < 0:
        raise ValueError(f"background={background} must be 0 or more")
    if not 0 <= min_visible <= 1:
        raise ValueError(f"min_visible={min_visible} must be a share, from 0 to 1")
