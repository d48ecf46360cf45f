"""Scenes of several objects, composed from single ones, with label errors that are known."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

#: Tiles of a scene, (rows, columns).
TILES = (2, 3)
KINDS = ("right", "wrong", "missing", "out of distribution")


def compose_scenes(
    ds: xr.Dataset,
    n: int = 2_000,
    classes: int = 6,
    *,
    wrong: float = 0.05,
    missing: float = 0.05,
    out: float = 0.02,
    zoom: int = 1,
    seed: int = 0,
) -> xr.Dataset:
    """Compose images that hold several classes, and spoil a known share of their labels.

    Each scene has six tiles with one to four different objects, drawn from the first `classes`
    classes, the rest empty. A scene out of distribution shows objects of the other classes only
    and carries the labels of another scene.

    Parameters
    ----------
    ds
        A single-label image dataset with more classes than `classes`.
    n
        How many scenes.
    classes
        How many of the classes are labels, 2 or more.
    wrong
        Share of the scenes that are given one label more than they have.
    missing
        Share that lack one label, of scenes with at least two.
    out
        Share that are out of distribution.
    zoom
        Repeat each pixel so many times along y and x: a network made for photographs needs
        objects of more than 8 pixels.
    seed
        Fixes everything.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, y, x, channel), three channels; ``labels``, as given, and
        ``labels_true``, bool (sample, class); ``kind`` (sample,), one of "right", "wrong",
        "missing" and "out of distribution"; attrs of `ds`.

    Raises
    ------
    ValueError
        `ds` has no classes beyond `classes`, or the shares are no shares.

    Examples
    --------
    >>> from workbench import datasets
    >>> scenes = compose_scenes(datasets.load("digits"), n=100)
    >>> scenes.image.shape, int((scenes.kind == "missing").sum())
    ((100, 16, 24, 3), 5)
    """
    label = ds["label"].values
    if not 2 <= classes <= label.max():
        raise ValueError(f"classes={classes}: from 2 to {label.max()}, so that others are left")
    if min(wrong, missing, out) < 0 or wrong + missing + out >= 1:
        raise ValueError(f"wrong={wrong}, missing={missing} and out={out} must be shares of the n")
    rng = np.random.default_rng(seed)
    true = _presence(n, classes, rng)
    kind = _kinds(true, (wrong, missing, out), rng)
    given = true.copy()
    _flip(given, kind == "wrong", ~true, rng)
    _flip(given, kind == "missing", true, rng)
    strange = kind == "out of distribution"
    true[strange] = False
    images = ds["image"].transpose("sample", "y", "x", "channel").values
    if images.shape[3] == 1:
        images = images.repeat(3, axis=3)
    scenes = _draw(images, label, true, classes, rng).repeat(zoom, axis=1).repeat(zoom, axis=2)
    return xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"), scenes),
            "labels": (("sample", "class"), given),
            "labels_true": (("sample", "class"), true),
            "kind": ("sample", kind.astype(str)),
        },
        coords={"sample": np.arange(n), "class": ds["class"].values[:classes]},
        attrs=ds.attrs,
    )


def _presence(n: int, classes: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """One to four classes a scene."""
    rank = rng.random((n, classes)).argsort(axis=1).argsort(axis=1)
    found: NDArray[np.bool_] = rank < rng.integers(1, min(4, classes - 1) + 1, n)[:, None]
    return found


def _kinds(
    true: NDArray[np.bool_], shares: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.str_]:
    """What is spoilt in each scene; only one that holds several classes can lack one."""
    n, crowd = len(true), true.sum(axis=1) > 1
    spoilt = np.repeat(KINDS[1:], [round(share * n) for share in shares])
    kind = rng.permutation(np.concatenate([spoilt, np.repeat(KINDS[:1], n - len(spoilt))]))
    kind[(kind == "missing") & ~crowd] = "right"
    lacking = round(shares[1] * n) - np.count_nonzero(kind == "missing")
    kind[rng.choice(np.flatnonzero((kind == "right") & crowd), lacking, replace=False)] = "missing"
    return kind


def _flip(
    given: NDArray[np.bool_],
    rows: NDArray[np.bool_],
    candidates: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """Turn one of the candidate labels of each of these rows, in place."""
    lots = np.where(candidates, rng.random(given.shape), -1).argmax(axis=1)
    where = np.flatnonzero(rows)
    given[where, lots[where]] ^= True


def _draw(
    images: NDArray[np.generic],
    label: NDArray[np.int64],
    true: NDArray[np.bool_],
    classes: int,
    rng: np.random.Generator,
) -> NDArray[np.generic]:
    """Put one object of each class into a tile of its own; strangers where there is none."""
    height, width, channels = images.shape[1:]
    rows, columns = TILES
    scenes = np.zeros((len(true), rows, columns, height, width, channels), images.dtype)
    members = [np.flatnonzero(label == k) for k in range(classes)]
    others = np.flatnonzero(label >= classes)
    for scene, present in zip(scenes, true, strict=True):
        objects = [rng.choice(members[k]) for k in np.flatnonzero(present)]
        objects = objects or rng.choice(others, 2).tolist()
        tiles = rng.permutation(rows * columns)[: len(objects)]
        scene[tiles // columns, tiles % columns] = images[objects]
    joined = scenes.transpose(0, 1, 3, 2, 4, 5)
    return joined.reshape(len(true), rows * height, columns * width, channels)
