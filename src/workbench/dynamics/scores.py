"""Scores of samples by their training dynamics."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from workbench._samples import same_samples

Labels = ArrayLike | xr.DataArray


def el2n(logits: xr.DataArray, labels: Labels) -> xr.DataArray:
    """EL2N: the length of the error, ``|softmax - one-hot|`` (arXiv:2107.07075, Eq. 4).

    The mean over seeds and epochs; the paper takes early ones: ``logits.isel(epoch=slice(5))``.

    Parameters
    ----------
    logits
        (seed, epoch, sample, class), or without the first two; see :func:`record`.
    labels
        int (sample,).

    Returns
    -------
    xarray.DataArray
        float64 (sample,), 0 to √2, high is hard: √(1 - 1/K) for an even guess among K classes.

    Raises
    ------
    ValueError
        A label is no class, the samples are others, or an epoch is not recorded (NaN).

    Examples
    --------
    >>> even = xr.DataArray(np.zeros((1, 10)), dims=("sample", "class"))
    >>> el2n(even, [3]).round(6).values
    array([0.948683])
    """
    given = _given(logits, labels)
    wanted = np.eye(logits.sizes["class"])[given]
    each = [np.linalg.norm(_softmax(run) - wanted, axis=2).mean(axis=0) for run in _runs(logits)]
    return _along(logits, el2n=np.mean(each, axis=0))["el2n"]


def aum(logits: xr.DataArray, labels: Labels) -> xr.DataArray:
    """Area under the margin: the label's logit less the largest other (arXiv:2001.10528, Eq. 1).

    The mean over seeds and epochs. Parameters and errors as in :func:`el2n`.

    Returns
    -------
    xarray.DataArray
        float64 (sample,), *low* is bad; ``find_issues(..., opinions=[-aum])``.

    Examples
    --------
    >>> logits = xr.DataArray([[[3.0, 1.0]], [[0.0, 4.0]]], dims=("epoch", "sample", "class"))
    >>> aum(logits, [0]).values
    array([-1.])
    """
    given = _given(logits, labels)
    row, margins = np.arange(len(given)), []
    for run in _runs(logits):
        own = run[:, row, given]
        run[:, row, given] = -np.inf
        margins.append((own - run.max(axis=2)).mean(axis=0))
    return _along(logits, aum=np.mean(margins, axis=0))["aum"]


def forgetting(logits: xr.DataArray, labels: Labels) -> xr.Dataset:
    """Forgetting events: how often a sample goes from right to wrong (arXiv:1812.05159).

    Parameters and errors as in :func:`el2n`.

    Returns
    -------
    xarray.Dataset
        Along ``sample``: ``events``, the mean over the seeds, where a training that never learnt
        the sample counts as all epochs, more than can be forgotten; ``never_learnt``, the share
        of such trainings; ``unforgettable``: every training learnt it and never forgot it.

    Examples
    --------
    >>> right = np.array([0, 1, 1, 0, 1])
    >>> logits = xr.DataArray(np.c_[right, 1 - right][:, None], dims=("epoch", "sample", "class"))
    >>> forgetting(logits, [0]).events.values
    array([1.])
    """
    given = _given(logits, labels)
    events, never = [], []
    for run in _runs(logits):
        right = run.argmax(axis=2) == given
        never.append(~right.any(axis=0))
        events.append(np.where(never[-1], len(run), (right[:-1] & ~right[1:]).sum(axis=0)))
    return _along(
        logits,
        events=np.mean(events, axis=0),
        never_learnt=np.mean(never, axis=0),
        unforgettable=np.max(events, axis=0) == 0,
    )


def cartography(logits: xr.DataArray, labels: Labels) -> xr.Dataset:
    """Dataset cartography: the label's probability over the epochs (arXiv:2009.10795, Eqs. 1, 2).

    Parameters and errors as in :func:`el2n`. :func:`workbench.show.cartography` draws it.

    Returns
    -------
    xarray.Dataset
        Along ``sample``, means over the seeds: ``confidence``, the mean of the label's
        probability; ``variability``, its standard deviation; ``correctness``, how often it led.

    Examples
    --------
    >>> logits = xr.DataArray([[[9.0, -9]], [[-9.0, 9]]], dims=("epoch", "sample", "class"))
    >>> cartography(logits, [0]).round(3).to_array().values.ravel()
    array([0.5, 0.5, 0.5])
    """
    given = _given(logits, labels)
    row, parts = np.arange(len(given)), []
    for run in _runs(logits):
        own, right = _softmax(run)[:, row, given], run.argmax(axis=2) == given
        parts.append((own.mean(axis=0), own.std(axis=0), right.mean(axis=0)))
    confidence, variability, correctness = np.mean(parts, axis=0)
    return _along(logits, confidence=confidence, variability=variability, correctness=correctness)


def _given(logits: xr.DataArray, labels: Labels) -> NDArray[np.int64]:
    """The labels, checked."""
    labels = same_samples(labels, logits, ("the labels", "the logits"))
    given, classes = np.asarray(labels), logits.sizes["class"]
    outside = np.flatnonzero((given < 0) | (given >= classes) | (given != np.floor(given)))
    if len(outside):
        raise ValueError(
            f"{len(outside)} labels are none of the classes 0 to {classes - 1}, the first is "
            f"{given[outside[0]]} at position {outside[0]}"
        )
    return given.astype(np.int64)


def _runs(logits: xr.DataArray) -> Iterator[NDArray[np.float64]]:
    """Yield each training's logits (epoch, sample, class), one in memory at a time."""
    missing = {name: 1 for name in ("seed", "epoch") if name not in logits.dims}
    every = logits.expand_dims(missing).transpose("seed", "epoch", "sample", "class")
    for seed, run in enumerate(every):
        values = run.values.astype(np.float64)
        if np.isnan(values).any():
            epochs = int(np.isnan(values).any(axis=(1, 2)).sum())
            raise ValueError(
                f"{epochs} of {len(values)} epochs of training {seed} are not recorded; leave "
                'them out: logits.dropna("epoch")'
            )
        yield values


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _along(logits: xr.DataArray, **values: NDArray[np.generic]) -> xr.Dataset:
    coords = {"sample": logits["sample"]} if "sample" in logits.coords else {}
    return xr.Dataset({name: ("sample", value) for name, value in values.items()}, coords)
