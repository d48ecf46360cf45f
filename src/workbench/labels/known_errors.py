"""Label noise with known truth: injected, composed into scenes, or published of MNIST's test."""

import json
import os
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from workbench.labels.probabilities import Source, aligned, class_numbers

Kind = Literal["uniform", "pair", "confusion", "annotator"]
KINDS: tuple[Kind, ...] = ("uniform", "pair", "confusion", "annotator")


def inject_noise(
    labels: ArrayLike | xr.DataArray,
    kind: Kind = "uniform",
    rate: float = 0.1,
    seed: int = 0,
    *,
    classes: int | None = None,
    probabilities: Source | None = None,
) -> xr.Dataset:
    """Make a share of the labels wrong, and keep the true ones.

    Parameters
    ----------
    labels
        int (sample,): the true class numbers.
    kind
        ``"uniform"``: any sample, to any other class. ``"pair"``: any sample, to the next class,
        the last to the first. ``"confusion"``: classes are confused as a model confuses them, in
        proportion to the confusion matrix of `probabilities`. ``"annotator"``: samples are drawn
        the more often the less a model is sure of the true class, and go to the classes that it
        holds likely: an annotator who errs on hard images.
    rate
        Share of the labels to make wrong, exactly, up to rounding to whole samples.
    seed
        Fixes the draw.
    classes
        How many there are; by default one more than the largest label, or the columns of
        `probabilities`.
    probabilities
        (sample, class), of a model that knows the true labels; for ``"confusion"`` and
        ``"annotator"``.

    Returns
    -------
    xarray.Dataset
        ``label`` int64, the noisy labels; ``label_true`` int64; ``is_wrong`` bool; all (sample,).

    Raises
    ------
    ValueError
        `kind` is not known, `rate` is not in [0, 1), `probabilities` are missing or of another
        length, there is one class only, or fewer samples can be confused than `rate` asks for.

    Examples
    --------
    >>> noisy = inject_noise([0, 1, 2, 0, 1, 2, 0, 1, 2, 0], kind="pair", rate=0.3)
    >>> int(noisy.is_wrong.sum()), set(((noisy.label - noisy.label_true) % 3).values.tolist())
    (3, {0, 1})
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not known; it can be one of {', '.join(KINDS)}")
    if not 0 <= rate < 1:
        raise ValueError(f"rate={rate} must be a share of the labels, from 0 to below 1")
    likely: NDArray[np.float64] | None = None
    if probabilities is not None:
        true, found = aligned(labels, probabilities)
        likely = np.asarray(found.values, dtype=np.float64)
    else:
        if kind in ("confusion", "annotator"):
            raise ValueError(f"kind={kind!r} needs the probabilities of a model")
        true = class_numbers(labels, classes)
    k = likely.shape[1] if likely is not None else classes or int(true.max()) + 1
    if k < 2:
        raise ValueError("labels of one class cannot be made wrong; say how many classes there are")
    rng = np.random.default_rng(seed)
    weight, target = _plan(kind, true, k, likely)
    wrong = _draw(weight, round(rate * len(true)), rng)
    label = true.copy()
    label[wrong] = _targets(target[wrong] if kind == "annotator" else target[true[wrong]], rng)
    values = {"label": label, "label_true": true, "is_wrong": label != true}
    coords = {"sample": labels["sample"]} if isinstance(labels, xr.DataArray) else {}
    noisy = xr.Dataset({name: ("sample", value) for name, value in values.items()}, coords=coords)
    if isinstance(labels, xr.DataArray):
        noisy["label"].attrs = noisy["label_true"].attrs = dict(labels.attrs)
    return noisy


def _plan(
    kind: Kind, true: NDArray[np.int64], k: int, likely: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How readily each sample goes wrong, and where to: a row a class, or one a sample."""
    other = 1 - np.eye(k)
    if kind == "annotator" and likely is not None:
        target = likely * other[true]
        return target.sum(axis=1) + 1e-6, target + 1e-9 * other[true]
    if kind == "confusion" and likely is not None:
        counts = np.zeros((k, k))
        np.add.at(counts, (true, likely.argmax(axis=1)), 1)
        share = counts * other / counts.sum(axis=1, keepdims=True).clip(1)
        return share.sum(axis=1)[true], share
    target = np.roll(np.eye(k), 1, axis=1) if kind == "pair" else other
    return np.ones(len(true)), target


def _draw(weight: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Positions of `n` samples without replacement (Efraimidis and Spirakis 2006, algorithm A)."""
    if n > np.count_nonzero(weight):
        raise ValueError(
            f"only {np.count_nonzero(weight)} of {len(weight)} samples are of a class that the "
            f"model confuses with another; {n} cannot be made wrong"
        )
    with np.errstate(divide="ignore"):
        key = np.log(rng.random(len(weight))) / weight
    return np.argsort(-key)[:n]


def _targets(weight: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One class a row, drawn in proportion to its weight."""
    edges = weight.cumsum(axis=1)
    drawn = rng.random(len(weight)) * edges[:, -1] if len(weight) else np.zeros(0)
    found: NDArray[np.int64] = (edges <= drawn[:, None]).sum(axis=1).astype(np.int64)
    return found


_FOLDER = "label_errors"
_FILES = ("mnist_test_set_pyx.npy", "mnist_mturk.json")
#: Of five people; with fewer for it a label counts as wrong.
_MAJORITY = 3


def published_errors(ds: xr.Dataset) -> xr.Dataset | None:
    """Out-of-sample probabilities and human verdicts on the labels of MNIST's test images.

    They are those of Northcutt, Athalye and Mueller 2021 (arXiv:2103.14749): five people each
    looked at the 100 images most likely to be mislabelled, and held 15 labels for wrong. Nobody
    looked at the others, which count as right.

    Returns
    -------
    xarray.Dataset or None
        ``probabilities`` float64 (sample, class); ``is_wrong`` and ``checked`` bool (sample,).
        None if `ds` is not of MNIST's test images, or ``$WORKBENCH_DATA/label_errors`` does not
        hold both files of the repository cleanlab/label-errors.

    Examples
    --------
    >>> from workbench.datasets import load
    >>> published_errors(load("digits", n=20)) is None
    True
    """
    folder = Path(os.environ.get("WORKBENCH_DATA", "")).expanduser() / _FOLDER
    of_test = ds.attrs.get("name") == "mnist" and "split" in ds and (ds["split"] == "test").all()
    there = all((folder / name).is_file() for name in _FILES)
    if not of_test or "stand_in_for" in ds.attrs or not there:
        return None
    probabilities = np.load(folder / _FILES[0])
    asked = json.loads((folder / _FILES[1]).read_text(encoding="utf-8"))
    votes = {row["id"]: row["mturk"]["given"] for row in asked}
    ids = ds["sample"].values
    given = [votes.get(int(i)) for i in ids]
    return xr.Dataset(
        {
            "probabilities": (("sample", "class"), probabilities[ids]),
            "is_wrong": ("sample", [v is not None and v < _MAJORITY for v in given]),
            "checked": ("sample", [v is not None for v in given]),
        },
        coords={"sample": ds["sample"], "class": ds["class"]},
    )


#: Tiles of a scene, (rows, columns).
TILES = (2, 3)
SCENE_KINDS = ("right", "wrong", "missing", "out of distribution")


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
    scenes = (
        _draw_scene(images, label, true, classes, rng).repeat(zoom, axis=1).repeat(zoom, axis=2)
    )
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
    spoilt = np.repeat(SCENE_KINDS[1:], [round(share * n) for share in shares])
    kind = rng.permutation(np.concatenate([spoilt, np.repeat(SCENE_KINDS[:1], n - len(spoilt))]))
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


def _draw_scene(
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
