"""One reviewer at work on one store: the queue, the decisions, and how much is left.

The order in which samples are reviewed: the ranking, with an audit by lot mixed in.

Review without a front end: a table of answers through the same queue and store.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from workbench.labels.audit import Audit, Left, expected_yield
from workbench.labels.decisions import Where, agreement, id_index, positions, settle
from workbench.labels.store import Decision, Store, given_labels, user_name

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


#: Answers that are no class.
WORDS = ("given", "suggested", "none", "unclear")


class Session:
    """What the widget and :func:`review_batch` do with a store.

    Samples are positions in the dataset here. An answer is ``"given"``, ``"suggested"``,
    ``"none"`` (no class fits), ``"unclear"``, or a class by its name or number.

    Parameters
    ----------
    ds, issues, store, reviewer, audit, seed
        As :func:`workbench.labels.review` takes them.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        issues: pd.DataFrame,
        store: Where,
        reviewer: str | None = None,
        audit: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.ds, self.issues = ds, issues
        self.given = given_labels(ds)
        self.classes = [str(name) for name in ds["class"].values]
        self.ids = id_index(ds)
        self.reviewer = reviewer or user_name()
        self.store = store if isinstance(store, Store) else Store(store, ds, seed)
        self.queue = queue_of(ds, issues, audit, self.store.seed)
        self.suggested = self._suggestions()
        self._held = self._own()
        self._cursor = 0

    def page(self, size: int, skip: Iterable[int] = ()) -> list[int]:
        """The next samples of the queue that this reviewer has not decided on, less `skip`."""
        order, skipped = self.queue.order, set(skip)
        while self._cursor < len(order) and int(order[self._cursor]) in self._held:
            self._cursor += 1
        found: list[int] = []
        for position in map(int, order[self._cursor :]):
            if len(found) == size:
                break
            if position not in self._held and position not in skipped:
                found.append(position)
        return found

    def decide(self, answers: Mapping[int, Any], source: str | None = None) -> None:
        """Save answers, all of them or none; `source` says where they come from, if not here.

        Raises
        ------
        ValueError
            An answer is none that there is, or none of this sample.
        StoreError
            They could not be saved.
        """
        made = [self._decision(position, answer, source) for position, answer in answers.items()]
        self.store.append(made, self.reviewer)
        for position, decision in zip(answers, made, strict=True):
            self._held[position] = (decision.action, decision.label)

    def undo(self) -> int | None:
        """Take this reviewer's last decision back; its sample, or None where there is none."""
        sample = self.store.undo(self.reviewer)
        if sample is None:
            return None
        self._held, self._cursor = self._own(), 0
        return int(positions(self.ids, pd.Series([sample]))[0])

    def holds(self, position: int, answer: Any) -> bool:
        """Whether this reviewer's decision on a sample is that answer already."""
        decision = self._decision(position, answer, None)
        return self._held.get(position) == (decision.action, decision.label)

    def held(self, position: int) -> tuple[str, int] | None:
        """The action and the label of the own decision on a sample, None where there is none."""
        return self._held.get(position)

    def progress(self, page: Sequence[int] = (), level: float = 0.9) -> tuple[Left, float]:
        """How many errors are left in what nobody has reviewed, and how many a page may hold."""
        reviewed, wrong, drawn = self._reviewed()
        audit = Audit(self.queue.flagged, self.queue.rank)
        for position, error, by_lot in zip(reviewed, wrong, drawn, strict=True):
            audit.review(position, error, by_lot)
        score = self.queue.score
        return audit.left(level), expected_yield(score[reviewed], wrong, score[list(page)])

    def agreement(self) -> pd.DataFrame:
        """How far every two reviewers agree; see :func:`workbench.labels.agreement`."""
        return agreement(self.ds, self.store)

    @property
    def done(self) -> int:
        """How many samples this reviewer has decided on."""
        return len(self._held)

    def number(self, name: str | int) -> int:
        """A class's number by its name or number."""
        if not isinstance(name, str):
            if 0 <= name < len(self.classes):
                return int(name)
        elif name in self.classes:
            return self.classes.index(name)
        close = get_close_matches(str(name), [*self.classes, *WORDS], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {self.classes[:20]}"
        raise ValueError(f"{name!r} is no class and none of {', '.join(WORDS)}; {hint}")

    def _decision(self, position: int, answer: Any, source: str | None) -> Decision:
        given, suggested = int(self.given[position]), int(self.suggested[position])
        if answer == "unclear":
            action, label = "unclear", given
        elif answer == "none":
            action, label = "none", -1
        else:
            if answer == "suggested" and suggested < 0:
                raise ValueError(f"there is no suggestion for sample {self.ids[position]!r}")
            known = {"given": given, "suggested": suggested}
            label = known[answer] if answer in known else self.number(answer)
            action = "confirm" if label == given else "change"
        place = "audit" if self.queue.audit[position] else "ranked"
        _, previous = self._held.get(position, ("", given))
        return Decision(
            self.ids[position],
            action,
            label,
            previous,
            float(self.queue.score[position]),
            source or place,
        )

    def _own(self) -> dict[int, tuple[str, int]]:
        """Position to action and label, for what this reviewer has decided."""
        current = self.store.current()
        own = current[current["reviewer"] == self.reviewer]
        at = positions(self.ids, own["sample"]).tolist()
        return dict(zip(at, zip(own["action"], own["label"], strict=True), strict=True))

    def _suggestions(self) -> NDArray[np.int64]:
        """The suggested class of every sample, -1 where there is none."""
        found = np.full(len(self.given), -1, dtype=np.int64)
        at = pd.Index(self.ds["sample"].values).get_indexer(self.issues.index)
        found[at] = self.issues["suggested"]
        return found

    def _reviewed(self) -> tuple[list[int], list[bool], list[bool]]:
        """What was reviewed, in the order of first decisions: where, whether wrong, whether drawn.

        A disputed label counts as wrong: what is left is then rather over- than understated.
        """
        current = self.store.current()
        table = settle(current, positions(self.ids, current["sample"]), self.given)
        log = self.store.log()
        log = log[log["action"] != "undo"].drop_duplicates("sample")
        log = log.assign(at=positions(self.ids, log["sample"]))
        log = log[log["at"].isin(table.index)]
        wrong = table["status"].loc[log["at"]].isin(["changed", "none", "disputed"])
        at = log["at"].to_numpy()
        return at.tolist(), wrong.tolist(), self._drawn(at, log["source"]).tolist()

    def _drawn(self, at: NDArray[np.int64], source: pd.Series) -> NDArray[np.bool_]:
        """Which reviewed samples are random draws: those among the lots up to the first gap.

        Had a reviewer left a drawn sample out and gone on, the draws behind it would not be
        random any more; they count as reviewed, but not as draws.
        """
        turn = np.empty_like(self.queue.lots)
        turn[self.queue.lots] = np.arange(len(turn))
        seen = np.zeros(len(turn) + 1, dtype=bool)
        seen[turn[at]] = True
        gap = int(np.argmin(seen))
        drawn: NDArray[np.bool_] = (source == "audit").to_numpy() & (turn[at] < gap)
        return drawn


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
