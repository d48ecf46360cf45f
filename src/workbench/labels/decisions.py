"""Outcome of a review: corrected labels, agreement, tags."""

import os
from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._extras import need
from workbench.labels.store import Store, flags_of, given_labels, opened

#: What a sample can have come to. As tags they go to FiftyOne and come back.
STATUSES = ("confirmed", "changed", "none", "excluded", "unclear", "disputed")
#: What the store holds in place of a class number where the image does not belong to the data.
EXCLUDED = -2
#: What stands for "nobody could tell" where answers are compared.
UNCLEAR = -3
_ANSWERS = {"confirmed": "given", "none": "none", "unclear": "unclear", "excluded": "exclude"}
Where = Store | str | os.PathLike[str]


def decisions(ds: xr.Dataset, store: Where) -> pd.DataFrame:
    """What the reviewers decided, one row a reviewed sample.

    The answer of most reviewers counts; one who could not tell does not vote. Where no answer
    has the most votes the sample is disputed and keeps its given label.

    Parameters
    ----------
    ds
        The dataset that was reviewed.
    store
        The file of decisions.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``sample`` in the dataset's order: ``status`` (one of ``STATUSES``), ``given``
        and ``label`` (class numbers, -1 for none), ``reviewers`` (how many), ``score`` of the
        issue, ``time`` of the last decision.

    Raises
    ------
    StoreError
        There is no such store, it is of another dataset, or it cannot be read.
    """
    with opened(store, ds) as opened_store:
        current = opened_store.current()
    table = settle(current, positions(id_index(ds), current["sample"]), given_labels(ds))
    table.index = pd.Index(ds["sample"].values[table.index], name="sample")
    return table


def settle(current: pd.DataFrame, at: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """What :func:`decisions` returns, indexed by position; `at` is the position of each row."""
    placed = current.assign(at=at)
    table = placed.groupby("at").agg(
        reviewers=("reviewer", "nunique"), score=("score", "max"), time=("time", "max")
    )
    here = table.index.to_numpy(dtype=np.int64)
    winner = _winners(placed).reindex(here)
    disputed = winner["disputed"].eq(True).to_numpy()
    told = winner["label"].notna().to_numpy()
    label = winner["label"].where(told & ~disputed, given[here]).to_numpy(dtype=np.int64)
    status = np.select(
        [disputed, ~told, label == given[here], label == -1, label == EXCLUDED],
        ["disputed", "unclear", "confirmed", "none", "excluded"],
        "changed",
    )
    table.insert(0, "status", status.astype(object))
    table.insert(1, "given", given[here])
    table.insert(2, "label", np.maximum(label, -1))
    return table


def repeated(current: pd.DataFrame) -> pd.Series:
    """Which decisions answer a question that was asked again, unannounced."""
    return current["source"].str.startswith("repeat ").astype(bool)


def _winners(current: pd.DataFrame) -> pd.DataFrame:
    """The label with the most votes for every position, and whether another has as many."""
    votes = current[current["action"] != "unclear"].groupby(["at", "label"]).size()
    frame = (
        votes.rename("votes").reset_index().sort_values(["at", "votes"], ascending=[True, False])
    )
    most = frame.groupby("at")["votes"].transform("max")
    tied = frame[frame["votes"] == most].groupby("at").size() > 1
    return frame.drop_duplicates("at").set_index("at").assign(disputed=tied)


def id_index(ds: xr.Dataset) -> pd.Index:
    """The samples' ids as the store keeps them, as text."""
    return pd.Index([str(value) for value in ds["sample"].values])


def positions(index: pd.Index, ids: pd.Series) -> np.ndarray:
    """Where in the dataset samples of the store are."""
    return np.asarray(index.get_indexer(pd.Index(ids)), dtype=np.int64)


def apply_decisions(ds: xr.Dataset, store: Where) -> xr.Dataset:
    """The dataset with the labels that the review found.

    Parameters
    ----------
    ds
        The dataset that was reviewed. It stays as it is.
    store
        The file of decisions.

    Returns
    -------
    xarray.Dataset
        `ds` with corrected ``label`` (-1 where no class fits); ``label_given``, the labels as they
        were; ``review`` (sample,), text: what :func:`decisions` calls ``status``, empty where
        nobody looked. Where images have several labels, ``labels`` and ``labels_given``.
        ``attrs`` counts ``reviewed`` and ``corrected``.

    Raises
    ------
    StoreError
        There is no such store, it is of another dataset, or it cannot be read.

    Examples
    --------
    >>> fixed = apply_decisions(ds, "review.db")  # doctest: +SKIP
    >>> int((fixed.label != fixed.label_given).sum())  # doctest: +SKIP
    15
    """
    table = decisions(ds, store)
    given = given_labels(ds)
    at = pd.Index(ds["sample"].values).get_indexer(table.index)
    label = given.copy()
    review = np.full(len(given), "", dtype="<U9")
    label[at] = table["label"]
    review[at] = table["status"]
    name = "labels" if "labels" in ds else "label"
    new, old = (_as_given(ds[name], numbers) for numbers in (label, given))
    fixed = ds.assign({name: new, f"{name}_given": old, "review": ("sample", review)})
    return fixed.assign_attrs(reviewed=len(table), corrected=int((label != given).sum()))


def _as_given(labels: xr.DataArray, numbers: NDArray[np.int64]) -> xr.DataArray:
    """Numbers of the store as the labels of a dataset, with dimensions and attributes of these."""
    if labels.ndim == 1:
        return labels.copy(data=numbers)
    flags = flags_of(numbers.clip(0), labels.sizes["class"])
    return labels.transpose("sample", "class").copy(data=flags)


def review_tags(ds: xr.Dataset, store: Where) -> dict[str, xr.DataArray]:
    """Tag to bool (sample,): what the samples have come to, for ``show.to_fiftyone(tags=...)``."""
    review = apply_decisions(ds, store)["review"]
    return {status: review == status for status in STATUSES if (review == status).any()}


def from_tags(seen: xr.Dataset) -> pd.Series:
    """Decisions that were made in the FiftyOne App, for :func:`review_batch`.

    Parameters
    ----------
    seen
        What ``show.from_fiftyone(view, ds)`` returned: ``label``, ``changed`` and ``tags``.

    Returns
    -------
    pandas.Series
        Indexed by sample: the new class number where the label was edited; ``"given"``, ``"none"``
        or ``"unclear"`` where the sample carries the tag ``confirmed``, ``none`` or ``unclear``.
        An edited label counts more than a tag. Other samples are left out.

    Raises
    ------
    ValueError
        `seen` was read without the dataset, so that nobody knows which labels changed.

    Examples
    --------
    >>> seen = show.from_fiftyone(session.view, ds)  # doctest: +SKIP
    >>> review_batch(ds, issues, from_tags(seen), source="fiftyone")  # doctest: +SKIP
    """
    if "changed" not in seen:
        raise ValueError("give the dataset to from_fiftyone as well, so that changes are known")
    answers: dict[object, int | str] = {}
    for tag, answer in _ANSWERS.items():
        if tag in seen["tag"].values:
            answers |= dict.fromkeys(seen["sample"].values[seen["tags"].sel(tag=tag)], answer)
    changed = seen["changed"].values
    answers |= dict(
        zip(seen["sample"].values[changed], seen["label"].values[changed].tolist(), strict=True)
    )
    return pd.Series(answers, name="decision", dtype=object).rename_axis("sample")


def agreement(ds: xr.Dataset, store: Where) -> pd.DataFrame:
    """How far every two reviewers agree on what both have reviewed.

    Parameters
    ----------
    ds
        The dataset that was reviewed.
    store
        The file of decisions.

    Returns
    -------
    pandas.DataFrame
        One row a pair: ``first``, ``second``, ``n`` samples both decided on, ``agree`` the share
        of equal answers, ``kappa`` (Cohen 1960), which is 0 for the agreement that chance alone
        would bring and 1 for full agreement; NaN where both gave one and the same answer
        throughout, or share no sample. No class and cannot tell are answers too. A reviewer who
        was asked again is a second one, "..., asked again".
    """
    cohen = need("sklearn.metrics", extra="labels").cohen_kappa_score
    with opened(store, ds) as opened_store:
        current = opened_store.current()
    answer = current["label"].where(current["action"] != "unclear", UNCLEAR).astype(np.int64)
    reviewer = current["reviewer"] + np.where(repeated(current), ", asked again", "")
    current = current.assign(answer=answer, reviewer=reviewer).drop_duplicates(
        ["sample", "reviewer"]
    )
    wide = current.pivot(index="sample", columns="reviewer", values="answer")
    rows = []
    for first, second in combinations(wide.columns, 2):
        both = wide[[first, second]].dropna().astype(np.int64)
        a = both[first].to_numpy()
        b = both[second].to_numpy()
        varied = len(np.unique(np.r_[a, b])) > 1
        rows.append(
            {
                "first": first,
                "second": second,
                "n": len(both),
                "agree": float((a == b).mean()) if len(both) else np.nan,
                "kappa": float(cohen(a, b)) if varied else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=["first", "second", "n", "agree", "kappa"])
