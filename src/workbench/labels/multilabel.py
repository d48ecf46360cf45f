"""Wrong and missing labels where an image has several."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from workbench._extras import need
from workbench._samples import same_samples
from workbench.labels.noise_models import (
    best_f1_cut,
    calibrating_temperature,
    fit_class_model,
    smoothed,
    weighed,
)
from workbench.labels.probabilities import Source, as_array, class_flags, in_order
from workbench.labels.ranking import losses

#: cleanlab's filters that are compared; the first is its default.
FILTERS = ("prune_by_noise_rate", "prune_by_class", "confident_learning", "predicted_neq_given")
QUALITIES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def find_multilabel_issues(labels: ArrayLike | xr.DataArray, probabilities: Source) -> pd.DataFrame:
    """Rank the samples by how probably one of their labels is wrong or missing.

    Each class is taken against the rest, with the model of noise by class that
    :func:`workbench.labels.find_issues` describes, cut for the largest expected F1. What is
    missing, an object that is there and not named, is scored apart from what is wrong, a name
    without the object. An image that shows none of the classes is best found by its loss.

    Parameters
    ----------
    labels
        bool (sample, class), as ``ds.labels``.
    probabilities
        (sample, class), each in [0, 1], rows of any sum, of models that did not see the sample.

    Returns
    -------
    pandas.DataFrame
        One row a sample, worst first, indexed by ``sample``: ``given``, ``wrong`` and
        ``missing``, tuples of class numbers; ``self_confidence``, ``normalized_margin`` and
        ``confidence_weighted_entropy``, cleanlab's scores of all labels of a sample together
        (low is bad); ``loss``, the mean cross-entropy of the classes; one ``flag_...`` for each
        of cleanlab's filters, the first its default; ``wrong_score`` and ``missing_score``, the
        worst class of each kind; ``score``, the larger, and ``is_issue``.

    Raises
    ------
    ValueError
        The shapes or the samples differ, a label is neither 0 nor 1, a probability is NaN or
        outside [0, 1].

    Examples
    --------
    >>> labels = [[1, 0], [1, 1], [0, 1]] * 3 + [[1, 0]]
    >>> p = [[.9, .1], [.9, .8], [.2, .9]] * 3 + [[.1, .2]]
    >>> found = find_multilabel_issues(labels, p)
    >>> int(found.index[0]), found.wrong.iloc[0]
    (9, (0,))
    """
    given, p = _aligned(labels, probabilities)
    score, issue = _by_class(given, p)
    wrong = np.where(given, score, 0.0)
    missing = np.where(given, 0.0, score)
    table: dict[str, Any] = {
        "given": _tuples(given),
        "wrong": _tuples(issue & given),
        "missing": _tuples(issue & ~given),
        **_cleanlab(given, p),
        "loss": losses(given, p),
        "wrong_score": wrong.max(axis=1),
        "missing_score": missing.max(axis=1),
        "score": score.max(axis=1),
        "is_issue": issue.any(axis=1),
    }
    named = (s for s in (labels, probabilities) if isinstance(s, xr.DataArray))
    ids = next((s["sample"].values for s in named if "sample" in s.coords), np.arange(len(p)))
    frame = pd.DataFrame(table, index=pd.Index(ids, name="sample"))
    return frame.sort_values("score", ascending=False, kind="stable")


def multilabel_joint(labels: ArrayLike | xr.DataArray, probabilities: Source) -> xr.DataArray:
    """How many samples of each class were given it and have it: cleanlab's joint, one-versus-rest.

    Returns
    -------
    xarray.DataArray
        float64 (class, given, true), a 2 × 2 table of samples for each class, whose sums by
        ``given`` are those of the labels; ``given`` and ``true`` are 0 (without) and 1 (with).

    Examples
    --------
    >>> labels = [[1, 0], [1, 1], [0, 1], [0, 0]]
    >>> joint = multilabel_joint(labels, [[.9, .1], [.9, .8], [.2, .9], [.1, .2]])
    >>> joint.sel({"class": 0}).values.tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    given, p = _aligned(labels, probabilities)
    count = need("cleanlab.count", extra="labels")
    joint = np.array([np.diag([len(p) - n, n]) for n in given.sum(axis=0)])
    varied = _varied(given)
    if varied.any():
        joint[varied] = count.compute_confident_joint(
            _lists(given[:, varied]), p[:, varied], multi_label=True
        )
    coords: dict[str, Any] = {"given": [0, 1], "true": [0, 1]}
    for source in (labels, probabilities):
        if isinstance(source, xr.DataArray) and "class" in source.coords:
            coords.setdefault("class", source["class"].values)
    coords.setdefault("class", np.arange(p.shape[1]))
    return xr.DataArray(
        np.asarray(joint, dtype=np.float64), dims=("class", "given", "true"), coords=coords
    )


def _by_class(
    given: NDArray[np.bool_], p: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Score and cut of every label, each class against the rest.

    The cut lies half-way between that of the largest expected F1 and one half, as in
    :func:`find_issues`: below a quarter nothing is flagged, however little there is to find. From
    labels that are all alike nothing can be learnt of how they go wrong; there the probability
    itself is the score.
    """
    score = np.where(given, 1 - p, p)
    cut = np.full(p.shape[1], 0.5)
    for k in np.flatnonzero(_varied(given)):
        own = given[:, k].astype(np.int64)
        pair = weighed(smoothed(np.column_stack([1 - p[:, k], p[:, k]])), own)
        model = fit_class_model(pair, own, 2, calibrating_temperature(pair, 2))
        score[:, k] = model.wrong(pair, own)
        cut[k] = (best_f1_cut(score[:, k]) + 0.5) / 2
    return score, score > cut


def _cleanlab(given: NDArray[np.bool_], p: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Scores and flags by cleanlab's multi-label functions."""
    rank = need("cleanlab.multilabel_classification.rank", extra="labels")
    search = need("cleanlab.multilabel_classification.filter", extra="labels").find_label_issues
    lists = _lists(given)
    varied = _varied(given)
    flags: dict[str, NDArray[Any]] = {
        f"flag_{name}": np.zeros(len(p), dtype=bool) for name in FILTERS
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = {name: rank.get_label_quality_scores(lists, p, method=name) for name in QUALITIES}
        if varied.any():
            some = _lists(given[:, varied])
            for name in FILTERS:
                found = search(some, p[:, varied], filter_by=name, n_jobs=1)
                flags[f"flag_{name}"] = found.astype(bool)
    return scores | flags


def _varied(given: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The classes that some samples have and some have not; cleanlab refuses the others."""
    return np.asarray(given.any(axis=0) & ~given.all(axis=0))


def _aligned(
    labels: ArrayLike | xr.DataArray, probabilities: Source
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels and probabilities (sample, class), matched by ids and names where both have them."""
    found = as_array(probabilities)
    if found.dims == ("sample", "class"):
        found = same_samples(found, labels, ("the probabilities", "labels"))
        if isinstance(labels, xr.DataArray) and "class" in labels.coords:
            found = in_order(found, labels["class"].values.tolist())
    p = _shares(found)
    given = class_flags(labels, len(p))
    if given.shape != p.shape:
        raise ValueError(f"labels of shape {given.shape}, probabilities of shape {p.shape}")
    return given, p


def _shares(probabilities: ArrayLike | xr.DataArray) -> NDArray[np.float64]:
    found = np.asarray(probabilities, dtype=np.float64)
    if found.ndim != 2 or found.size == 0:
        raise ValueError(f"probabilities must have the shape (sample, class), not {found.shape}")
    odd = ~((found >= 0) & (found <= 1))  # NaN is neither
    if odd.any():
        row = int(odd.any(axis=1).argmax())
        raise ValueError(
            f"{np.count_nonzero(odd.any(axis=1))} rows of the probabilities hold NaN or values "
            f"outside [0, 1], the first at position {row}: {found[row]}"
        )
    return found


def _lists(given: NDArray[np.bool_]) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in given]


def _tuples(flags: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    return [tuple(np.flatnonzero(row).tolist()) for row in flags]
