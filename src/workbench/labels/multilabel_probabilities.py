"""Probability of every class where an image has several, by models that never saw it."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from workbench._extras import need
from workbench.labels.probabilities import Factory, logistic, rows_of


def multilabel_out_of_fold(
    features_or_ds: xr.DataArray | xr.Dataset,
    labels: ArrayLike | xr.DataArray,
    model: Factory = logistic,
    folds: int = 5,
    seed: int = 0,
    *,
    progress: bool = True,
) -> xr.DataArray:
    """Probability of every class in every sample, by models that never saw the sample.

    One model a class and fold, of that class against the rest.

    Parameters
    ----------
    features_or_ds
        Feature vectors (sample, feature), or an image dataset, whose pixels are then the features.
    labels
        bool (sample, class).
    model
        Makes a scikit-learn classifier with ``predict_proba``; by default logistic regression.
    folds
        How many parts the samples are dealt into.
    seed
        Fixes the parts.
    progress
        Show a bar.

    Returns
    -------
    xarray.DataArray
        float64 (sample, class), each in [0, 1].

    Raises
    ------
    ValueError
        `labels` are not 0 and 1 in the shape (sample, class), or belong to other samples.

    Examples
    --------
    >>> x = xr.DataArray(np.arange(8.0)[:, None], dims=("sample", "feature"))
    >>> y = np.arange(8)[:, None] > [3, 8]
    >>> multilabel_out_of_fold(x, y, folds=2, progress=False).values[7].round().tolist()
    [1.0, 0.0]
    """
    given = class_flags(labels, features_or_ds.sizes["sample"])
    values = rows_of(features_or_ds)
    splitter = need("sklearn.model_selection", extra="images").KFold(
        folds, shuffle=True, random_state=seed
    )
    found = np.zeros(given.shape)
    with tqdm(
        total=folds * given.shape[1], desc="folds", unit="class", disable=not progress
    ) as bar:
        for train, test in splitter.split(values):
            for k in range(given.shape[1]):
                found[test, k] = _binary(model, values[train], given[train, k], values[test])
                bar.update()
    coords = {"sample": features_or_ds["sample"]} if "sample" in features_or_ds.coords else {}
    return xr.DataArray(found, dims=("sample", "class"), coords=coords, name="probabilities")


def class_flags(labels: ArrayLike | xr.DataArray, samples: int) -> NDArray[np.bool_]:
    """Labels as bool (sample, class), or an error that says what is no label."""
    found = np.asarray(labels)
    if found.ndim != 2 or len(found) != samples or found.shape[1] == 0:
        raise ValueError(
            f"labels must be 0 or 1 in the shape (sample, class), for {samples} samples; got the "
            f"shape {found.shape}"
        )
    odd = ~np.isin(found, (0, 1))
    if odd.any():
        row = int(odd.any(axis=1).argmax())
        raise ValueError(f"labels must be 0 or 1; position {row} holds {found[row][odd[row]][0]}")
    return found.astype(bool)


def _binary(
    model: Factory, train: NDArray[Any], given: NDArray[np.bool_], test: NDArray[Any]
) -> NDArray[np.float64]:
    """P(class) of the test rows; a class that no or every training sample has is not learnt."""
    if given.all() or not given.any():
        return np.full(len(test), float(given.all()))
    found: NDArray[np.float64] = model().fit(train, given).predict_proba(test)[:, 1]
    return found
