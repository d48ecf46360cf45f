"""What is known of the wrong labels among MNIST's test images, for comparison."""

import json
import os
from pathlib import Path

import numpy as np
import xarray as xr

_FOLDER = "label_errors"
_FILES = ("mnist_test_set_pyx.npy", "mnist_mturk.json")
#: Of five people; with fewer for it a label counts as wrong.
_MAJORITY = 3


def published_errors(ds: xr.Dataset) -> xr.Dataset | None:
    """Out-of-sample probabilities and human verdicts on the labels of MNIST's test images.

    They are those of Northcutt, Athalye and Mueller 2021 (arXiv:2103.14749): five people each
    looked at the 100 images most likely to be mislabelled, and held 15 labels for wrong. Nobody
    looked at the others, which count as right.

    Parameters
    ----------
    ds
        An image dataset.

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
    votes = {row["id"]: row["mturk"]["given"] for row in json.loads(_text(folder / _FILES[1]))}
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


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
