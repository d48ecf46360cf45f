"""Training patches around annotated objects, or over the whole image, with their annotations."""

import hashlib
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._extras import need
from workbench.datasets.boxes import CORNERS, as_table, image_of
from workbench.datasets.dataset import build
from workbench.datasets.errors import BadDataError
from workbench.store.perturb import affine, clipped_boxes, warped

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
    [[5.0, 2.0, 9.0, 6.0]]
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
        pixels = image_of(ds, row)
        here = table.iloc[own.get(sample, [])]
        _check_inside(here, pixels)
        windows = _grid(pixels, patch) if cover == "grid" else _around(here, pixels)
        windows = pd.concat([windows, _background(here, windows, pixels, patch, background, rng)])
        windows.index = [f"{sample}/{name}" for name in windows.index]
        found = _boxes_in(here.drop(columns="side"), windows, patch)
        found = found[found["visible"] >= min_visible]
        cuts.append((windows, found, *_pixels_of(pixels, windows, patch)))
        positive = _covered(clipped_boxes(here, *pixels.shape[:2]))
        before += positive, pixels.shape[0] * pixels.shape[1] - positive
    windows, found = pd.concat([cut[0] for cut in cuts]), pd.concat([cut[1] for cut in cuts])
    if windows.empty:
        raise BadDataError("there is nothing to cut out: the table of boxes is empty")
    found = found.reset_index(drop=True)
    patches = _dataset(ds, windows, np.concatenate([cut[2] for cut in cuts]), found, cover)
    patches["valid"] = ("sample", "y", "x"), np.concatenate([cut[3] for cut in cuts])
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
        tried = np.column_stack([drawn, np.full(len(drawn), side)])
        free = drawn[~_touched(boxes, tried).any(axis=1)]
        found = rng.permutation(np.unique(np.vstack([found, free]), axis=0))
    if len(found) < wanted:
        text = f"an image has room for {len(found)} of {wanted} background windows of {side} pixels"
        warnings.warn(text, stacklevel=3)
    names = [f"background {i}" for i in range(min(wanted, len(found)))]
    table = pd.DataFrame(found[:wanted], names, columns=["col", "row"])
    return table.assign(side=side, label="")


def _touched(boxes: pd.DataFrame, windows: Any) -> NDArray[np.bool_]:
    """Which boxes (window, box) share pixels with windows (col, row, side)."""
    at, low = boxes[CORNERS].to_numpy(), np.asarray(windows)[:, None, :2]
    high = low + np.asarray(windows)[:, None, 2:]
    touched: NDArray[np.bool_] = ((at[:, :2] < high) & (at[:, 2:] > low)).all(axis=2)
    return touched


def _pixels_of(
    pixels: NDArray[Any], windows: pd.DataFrame, patch: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The pixels of each window, and which of them are in the image."""
    image = np.empty((len(windows), patch, patch, pixels.shape[2]), pixels.dtype)
    valid = np.empty(image.shape[:3], np.bool_)
    for i, (*corner, side) in enumerate(windows[["col", "row", "side"]].to_numpy()):
        factor = patch / side
        matrix = affine(np.eye(2) * factor, -np.array(corner) * factor)
        image[i], valid[i] = warped(pixels, matrix, patch, patch)
    return image, valid


def _boxes_in(boxes: pd.DataFrame, windows: pd.DataFrame, patch: int) -> pd.DataFrame:
    """The boxes of each window, cut to it and in its pixels."""
    place = windows[["col", "row", "side"]].to_numpy(np.float64)
    window, box = np.nonzero(_touched(boxes, place))
    corner, factor = place[window, :2], patch / place[window, 2:]
    whole = (boxes[CORNERS].to_numpy()[box] - np.tile(corner, 2)) * factor
    found = boxes.iloc[box].reset_index(drop=True)
    found[CORNERS] = whole.clip(0, patch)
    found["points"] = pd.Series(
        [
            None if own is None else (own - low) * scale
            for own, low, scale in zip(found["points"], corner, factor, strict=True)
        ],
        dtype=object,
    )
    found["sample"] = windows.index.to_numpy()[window]
    areas = [(at[:, 2:] - at[:, :2]).prod(axis=1) for at in (found[CORNERS].to_numpy(), whole)]
    # a point has no area, and is there
    share = np.divide(areas[0], areas[1], out=np.ones(len(found)), where=areas[1] > 0)
    return found.assign(box=boxes.index.to_numpy()[box], visible=share)


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
    return patches.assign({**columns, "source": ("sample", source)})


def _covered(boxes: pd.DataFrame) -> float:
    """Area that boxes cover together."""
    shapely = need("shapely", extra="images")
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
