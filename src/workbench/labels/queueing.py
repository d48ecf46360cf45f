"""The order in which samples are reviewed: the ranking, with an audit by lot mixed in."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

#: Behind the flagged samples every second one is drawn by lot: there errors are rare, and to
#: certify that takes draws.
_PERIOD_BEHIND = 2
#: Sets the audit's lots apart from everything else that is seeded with the same small number,
#: such as injected noise, which the draws must know nothing of.
_STREAM = 0x61756469


@dataclass(frozen=True)
class Queue:
    """Every sample once, and why it comes where it comes. Numbers are positions in the dataset.

    Attributes
    ----------
    order
        int64 (sample,): the positions in the order in which they are shown.
    audit
        bool (sample,), by position: drawn by lot from all that was not shown before.
    rank
        int64 (sample,), by position: 0 for the most suspicious.
    flagged
        bool (sample,), by position.
    score
        float64 (sample,), by position.
    lots
        int64 (sample,): the positions in the order of the lots, which the seed alone decides.
    """

    order: NDArray[np.int64]
    audit: NDArray[np.bool_]
    rank: NDArray[np.int64]
    flagged: NDArray[np.bool_]
    score: NDArray[np.float64]
    lots: NDArray[np.int64]


def make_queue(
    score: NDArray[np.float64], flagged: NDArray[np.bool_], audit: float = 0.2, seed: int = 0
) -> Queue:
    """Rank the samples by their score and mix draws by lot into the ranking.

    One in ``1 / audit`` samples is a draw until the flagged ones are through, every second one
    after that. Where the draws stand is settled before the first decision, so that what they find
    cannot depend on it; within each stretch of ``1 / audit`` samples it is by lot, so that a
    reviewer does not know which they are.

    Parameters
    ----------
    score
        (sample,): the higher, the more suspicious; ties by position.
    flagged
        bool (sample,): taken for errors; they come before the others.
    audit
        Share of draws among the flagged samples, 0 (no audit at all) to 0.5.
    seed
        Of the draws.

    Raises
    ------
    ValueError
        `audit` is out of range.

    Examples
    --------
    >>> queue = make_queue(np.array([0.1, 0.9, 0.5]), np.array([False, True, False]), audit=0)
    >>> queue.order
    array([1, 2, 0])
    """
    if not 0 <= audit <= 0.5:
        raise ValueError(f"audit={audit} is the share of samples drawn by lot, from 0 to 0.5")
    n = len(score)
    ranking = np.lexsort((-score, ~flagged))  # the last key is the first in rank
    rank = np.empty(n, dtype=np.int64)
    rank[ranking] = np.arange(n)
    rng = np.random.default_rng([_STREAM, seed])
    lots = rng.permutation(n)
    slots = _audit_slots(n, int(flagged.sum()), audit, rng)
    placed = np.zeros(n, dtype=bool)
    sources = iter(ranking.tolist()), iter(lots.tolist())
    order = np.empty(n, dtype=np.int64)
    for slot, by_lot in enumerate(slots.tolist()):
        position = next(p for p in sources[by_lot] if not placed[p])
        placed[position] = True
        order[slot] = position
    drawn = np.empty(n, dtype=bool)
    drawn[order] = slots
    return Queue(order, drawn, rank, flagged.astype(bool), score.astype(np.float64), lots)


def _audit_slots(n: int, flagged: int, audit: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which places of the queue are draws by lot: one, at random, in each stretch."""
    slots = np.zeros(n, dtype=bool)
    if audit == 0:
        return slots
    period = max(round(1 / audit), _PERIOD_BEHIND)
    turn = min(-(-flagged // (period - 1)) * period, n)
    starts = np.r_[np.arange(0, turn, period), np.arange(turn, n, _PERIOD_BEHIND)]
    lengths = np.where(starts < turn, period, _PERIOD_BEHIND)
    chosen = starts + rng.integers(lengths)
    slots[chosen[chosen < n]] = True
    return slots


def queue_of(ds: xr.Dataset, issues: pd.DataFrame, audit: float, seed: int) -> Queue:
    """The queue of a dataset; samples that `issues` leaves out come last.

    Raises
    ------
    ValueError
        `issues` lacks a column, names samples that are not in the dataset, or names one twice.
    """
    missing = [name for name in ("score", "suggested") if name not in issues]
    if missing:
        raise ValueError(
            f"issues has no column {' and no '.join(map(repr, missing))}; "
            "labels.find_issues makes a table that has"
        )
    at = pd.Index(ds["sample"].values).get_indexer(issues.index)
    if (at < 0).any():
        raise ValueError(
            f"{(at < 0).sum()} of {len(issues)} samples in issues are not in the dataset; the "
            f"first is {str(issues.index[int(np.argmax(at < 0))])!r}"
        )
    if issues.index.has_duplicates:
        twice = issues.index[issues.index.duplicated()][0]
        raise ValueError(f"issues has more than one row for sample {str(twice)!r}")
    score = np.full(ds.sizes["sample"], -np.inf)
    score[at] = issues["score"].to_numpy(dtype=np.float64)
    flagged = np.zeros(len(score), dtype=bool)
    if "is_issue" in issues:
        flagged[at] = issues["is_issue"].to_numpy(dtype=bool)
    if np.isnan(score).any():
        raise ValueError(f"{np.isnan(score).sum()} scores in issues are not numbers")
    queue = make_queue(score, flagged, audit, seed)
    return replace(queue, score=np.maximum(score, 0.0))
