"""Cut from verified labels: what people said of a few samples, carried over to all."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from workbench._extras import need
from workbench.labels.audit import rank, strata
from workbench.labels.decisions import settle
from workbench.labels.noise_models import best_f1_cut
from workbench.labels.store import read_current

#: Weight of an imagined verdict at either end of the ranking, against one real verdict.
_IMAGINED = 0.5
#: Scores are kept this far from 0 and 1 before their logit is taken.
_EDGE = 1e-4


def recut(issues: pd.DataFrame, store: str | pd.Series) -> pd.DataFrame:
    """Rank and cut again with all verdicts known.

    A logistic regression of the verdicts on score and margin, each verdict weighted by the number
    of samples of its stratum that it stands for, gives every other sample its probability of a
    wrong label; the cut is that of the largest expected F1. Verified samples keep their verdict.

    Parameters
    ----------
    issues
        What :func:`find_issues` returned.
    store
        The file of decisions; or a Series indexed by sample: bool, whether the label is wrong, or
        the right class numbers, -1 for none.

    Returns
    -------
    pandas.DataFrame
        `issues` with new ``score`` and ``is_issue``, worst first; ``verified``, whether somebody
        has looked; ``stratum``, the part of the first ranking, which later audit draws go by.
        ``attrs`` holds the number ``verified``, and ``threshold``.

    Raises
    ------
    ValueError
        There is no verdict, or one is about a sample that `issues` does not hold.

    Examples
    --------
    >>> score = np.linspace(0.95, 0.05, 40)
    >>> table = pd.DataFrame({"given": 0, "score": score, "is_issue": score > 0.8})
    >>> table["normalized_margin"] = -score
    >>> found = recut(table, pd.Series([True, True, False], index=[0, 19, 30]))
    >>> bool(found.is_issue.sum() > table.is_issue.sum())
    True
    """
    verdicts = store if isinstance(store, pd.Series) else _verdicts(issues, store)
    at = issues.index.get_indexer(verdicts.index)
    if not len(at):
        raise ValueError("there is no verdict yet: review some samples of audit_sample first")
    if (at < 0).any():
        raise ValueError(
            f"{(at < 0).sum()} of {len(at)} verdicts are about samples that issues does not hold; "
            f"the first is {str(verdicts.index[int(np.argmax(at < 0))])!r}"
        )
    known = np.zeros(len(issues), dtype=bool)
    known[at] = True
    wrong = np.zeros(len(issues), dtype=bool)
    values = verdicts.to_numpy()
    wrong[at] = values if values.dtype == bool else values != issues["given"].to_numpy()[at]
    stratum = issues.get("stratum")
    if stratum is None:
        flagged = issues["is_issue"].to_numpy()
        ranked = rank(issues["score"].to_numpy(), flagged)
        stratum = pd.Series(strata(flagged, ranked), issues.index)
    score = probability_wrong(
        issues["score"].to_numpy(),
        issues["normalized_margin"].to_numpy(dtype=np.float64),
        (known, wrong, stratum.to_numpy()),
    )
    threshold = best_f1_cut(score)
    table = issues.assign(
        score=score,
        is_issue=np.where(known, wrong, score >= max(threshold, 1e-9)),
        verified=known,
        stratum=stratum,
    )
    table.attrs |= {**issues.attrs, "verified": int(known.sum()), "threshold": float(threshold)}
    return table.sort_values("score", ascending=False, kind="stable")


def probability_wrong(
    score: NDArray[np.float64],
    margin: NDArray[np.float64],
    verdicts: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]],
) -> NDArray[np.float64]:
    """P(wrong) of every sample by the verdicts on some: known, wrong and stratum, each (sample,).

    At either end of the ranking stands an imagined verdict of little weight, so that verdicts that
    are all alike do not settle everything.
    """
    known, wrong, stratum = verdicts
    linear = need("sklearn.linear_model", extra="labels")
    share = score.clip(_EDGE, 1 - _EDGE)
    x = np.column_stack([np.log(share / (1 - share)), margin])
    x = (x - x.mean(axis=0)) / x.std(axis=0).clip(1e-9)
    seen = np.bincount(stratum[known], minlength=stratum.max() + 1)
    stands_for = np.bincount(stratum) / seen.clip(1)
    weight = stands_for[stratum[known]]
    weight *= len(weight) / weight.sum()
    ends = np.array([score.argmax(), score.argmin()])
    model = linear.LogisticRegression(C=10.0).fit(
        np.concatenate([x[known], x[ends]]),
        np.r_[wrong[known], True, False],
        sample_weight=np.r_[weight, _IMAGINED, _IMAGINED],
    )
    found: NDArray[np.float64] = model.predict_proba(x)[:, 1]
    found[known] = wrong[known]
    return found


def _verdicts(issues: pd.DataFrame, store: ArrayLike) -> pd.Series:
    """The right class numbers by sample, as far as the reviewers agree on them."""
    current = read_current(str(store))
    index = pd.Index(issues.index.map(str))
    at = index.get_indexer(pd.Index(current["sample"]))
    here = current[at >= 0]
    table = settle(here, at[at >= 0], issues["given"].to_numpy())
    table = table[~table["status"].isin(["unclear", "disputed"])]
    return pd.Series(table["label"].to_numpy(), index=issues.index[table.index])
