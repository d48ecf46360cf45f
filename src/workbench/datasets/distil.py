"""Dataset distillation: a few made images with soft labels that stand for a whole dataset."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench._extras import need
from workbench._samples import unit_range
from workbench.datasets.errors import BadDataError

Method = Literal["linear", "label-solve", "kip"]
#: Of the diagonal's mean: the ridge of the linear classifier.
RIDGE = 1e-6


def distil(
    ds: xr.Dataset,
    per_class: int = 1,
    method: Method = "kip",
    *,
    steps: int = 1_000,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> xr.Dataset:
    """Dataset distillation: a few images and soft labels to learn from in place of all.

    What they are good for is the kernel that they were made for
    (:func:`predict_distilled`). Another network learns little from them; measure it.

    Parameters
    ----------
    ds
        An image dataset with ``label``.
    per_class
        Images a class.
    method
        ``"linear"``: one image a class from which least squares gives *exactly* the ridge
        classifier of the whole dataset (Chen, Huang and Weng 2024, NeurIPS, Theorem 4.1).

        ``"label-solve"``: random images, with the labels that fit the dataset best, in closed form
        (Nguyen, Chen and Lee 2021, arXiv:2011.00050).

        ``"kip"``: images and labels both learnt (the same paper), for the neural tangent kernel of
        a network with one hidden layer.
    steps
        For ``"kip"``.
    seed
        Of the images to start from and the batches.
    device
        Where torch computes, ``"cuda"`` for a GPU.
    progress
        Show a bar.

    Returns
    -------
    xarray.Dataset
        ``image`` float32 (sample, y, x, channel), where 0 to 1 is black to white, but values may
        lie beyond; ``soft_label`` float32 (sample, class), which may be negative; ``label``, the
        class that the image stands for. ``attrs`` names the method.

    Raises
    ------
    BadDataError
        `method` is not known, a label is -1, a class has fewer than `per_class` images, or
        ``"linear"`` is asked for more than one image a class.

    Examples
    --------
    >>> from workbench.datasets import load
    >>> digits = load("digits", split="test")
    >>> ten = distil(digits, 1, "label-solve")
    >>> ten.sizes["sample"], predict_distilled(ten, digits).sizes["class"]
    (10, 10)
    """
    _check(ds, per_class, method)
    label, classes = ds["label"].values, ds.sizes["class"]
    image = ds["image"].values
    pixels = unit_range(image.reshape(-1, image.shape[-1]))
    scale = {"mean": pixels.mean(axis=0).tolist(), "std": pixels.std(axis=0).tolist()}
    x, y = _rows(ds, scale), np.eye(classes, dtype=np.float32)[label]
    if method == "linear":
        kept, soft = np.arange(classes), np.eye(classes)
        gram = x.T @ x
        gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        points = np.linalg.pinv(np.linalg.solve(gram, x.T @ y))
    else:
        order = np.random.default_rng(seed).permutation(len(label))
        rows = np.concatenate([order[label[order] == k][:per_class] for k in range(classes)])
        kept, ntk = label[rows], _ntk()
        to = {"dtype": ntk.torch.float32, "device": device}
        wide, wanted = (ntk.torch.tensor(v, **to) for v in (x, y - 1 / classes))
        support = wide[rows]
        if method == "kip":
            support = ntk.inducing_points(wide, wanted, support, steps, seed, progress)
        soft = ntk.solve_labels(wide, wanted, support).cpu().numpy()
        points = support.cpu().numpy()
    made = points.reshape(len(points), *image.shape[1:]) * scale["std"] + scale["mean"]
    return xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"), made.astype(np.float32)),
            "soft_label": (("sample", "class"), soft.astype(np.float32)),
            "label": ("sample", kept.astype(np.int64)),
        },
        coords={"sample": np.arange(len(points)), "class": ds["class"]},
        attrs={**ds.attrs, "distilled": method, "seed": seed, "n_available": len(label), **scale},
    )


def predict_distilled(distilled: xr.Dataset, ds: xr.Dataset) -> xr.DataArray:
    """What is learnt from distilled images, asked about others.

    Least squares for ``"linear"``, else regression with the neural tangent kernel.

    Parameters
    ----------
    distilled
        What :func:`distil` returned, or real images of the same form: with ``soft_label`` and the
        ``attrs`` of one.
    ds
        An image dataset of the same size and channels.

    Returns
    -------
    xarray.DataArray
        float64 (sample, class): scores, the largest of which is the answer.
    """
    points, x = _rows(distilled, distilled.attrs), _rows(ds, distilled.attrs)
    if points.shape[1] != x.shape[1]:
        raise BadDataError(f"images of {x.shape[1]} values, distilled ones of {points.shape[1]}")
    soft = distilled["soft_label"].values
    if distilled.attrs["distilled"] == "linear":
        scores = x @ np.linalg.pinv(points) @ soft
    else:
        ntk = _ntk()
        scores = ntk.regress(*(ntk.torch.from_numpy(v) for v in (x, points, soft))).numpy()
    coords = {"class": distilled["class"], "sample": ds["sample"]}
    return xr.DataArray(scores, coords, ("sample", "class"), name="score")


def _rows(ds: xr.Dataset, scale: Mapping[str, Any]) -> NDArray[np.float32]:
    """The images, each channel standardised, a row each."""
    image = unit_range(ds["image"].values)
    rows = (image - np.float32(scale["mean"])) / np.float32(scale["std"])
    return rows.reshape(len(image), -1).astype(np.float32)


def _ntk() -> Any:
    need("torch", extra="networks")
    return import_module("workbench.datasets.ntk")


def _check(ds: xr.Dataset, per_class: int, method: str) -> None:
    if method not in get_args(Method):
        raise BadDataError(f"method={method!r} is not one of {', '.join(get_args(Method))}")
    if method == "linear" and per_class != 1:
        raise BadDataError(f"per_class={per_class}: one image a class is all that linear can use")
    label = ds["label"].values
    if (label < 0).any():
        raise BadDataError(f"{(label < 0).sum()} samples have no label (-1); leave them out")
    counts = np.bincount(label, minlength=ds.sizes["class"])
    if not 1 <= per_class <= counts.min():
        name = ds["class"].values[counts.argmin()]
        raise BadDataError(f"per_class={per_class}: class {name} has {counts.min()} images")
