"""Review without a front end: a table of answers through the same queue and store."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from workbench.labels.decisions import Where
from workbench.labels.session import Session
from workbench.labels.stopping import Left


def review_batch(
    ds: xr.Dataset,
    issues: pd.DataFrame,
    answers: pd.Series | Mapping[Any, Any],
    store: Where = "review.db",
    *,
    reviewer: str | None = None,
    page: int = 6,
    pages: int | None = None,
    until: float | None = None,
    audit: float = 0.2,
    seed: int = 0,
    source: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Review without a front end: a table of answers goes through the same queue and store.

    Parameters
    ----------
    ds, issues, store, reviewer, audit, seed
        As :func:`review` takes them.
    answers
        Sample id to answer: ``"given"``, ``"suggested"``, ``"none"``, ``"unclear"``, or a class
        by its name or number. Samples without one are left undecided.
    page
        Samples that are shown, and saved, together.
    pages
        Stop after so many.
    until
        Stop when at most this share of the dataset is still wrong, by the upper end of the 90 %
        interval.
    source
        Where answers come from that were not given along the queue, such as ``"fiftyone"``: they
        are all saved, and none of them counts as an audit draw.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        One row a page: ``reviewed``, ``found``, ``audited``, ``left``, ``low``, ``high`` (errors
        left, with the interval), ``expected`` and ``wrong``, the errors that the page was expected
        to hold and held.

    Raises
    ------
    ValueError
        An answer is none that there is, or is about a sample that is not in the dataset.
    StoreError
        The store cannot be used, or is of another dataset.

    Examples
    --------
    >>> review_batch(ds, issues, {17: "given", 18: 3}, "review.db")  # doctest: +SKIP
    """
    session = Session(ds, issues, store, reviewer, audit, seed)
    given = _located(session, answers)
    turn = given if source else (int(p) for p in session.queue.order if int(p) in given)
    waiting = [p for p in turn if not session.holds(p, given[p])]
    left, expected = session.progress(waiting[:page])
    rows = []
    starts = list(range(0, len(waiting), page))[:pages]
    for start in tqdm(starts, desc="review", unit="page", disable=not progress):
        if until is not None and left.share[2] <= until:
            break
        session.decide({p: given[p] for p in waiting[start : start + page]}, source)
        before, promised = left, expected
        left, expected = session.progress(waiting[start + page : start + 2 * page])
        rows.append(_row(left, promised, left.found - before.found))
    return pd.DataFrame(rows, columns=list(_row(left, 0.0, 0)))


def _located(session: Session, answers: pd.Series | Mapping[Any, Any]) -> dict[int, Any]:
    """Position to answer, each of them checked before the first is saved."""
    table = answers if isinstance(answers, pd.Series) else pd.Series(answers, dtype=object)
    at = pd.Index(session.ds["sample"].values).get_indexer(table.index)
    if (at < 0).any():
        raise ValueError(
            f"{(at < 0).sum()} of {len(at)} answers are about samples that are not in the "
            f"dataset; the first is {str(table.index[int(np.argmax(at < 0))])!r}"
        )
    return dict(zip(at.tolist(), table.tolist(), strict=True))


def _row(left: Left, expected: float, wrong: int) -> dict[str, float]:
    return {
        "reviewed": left.reviewed,
        "found": left.found,
        "audited": left.audited,
        "left": left.estimate,
        "low": left.low,
        "high": left.high,
        "expected": expected,
        "wrong": wrong,
    }
