"""Review session: the queue of samples with audit draws in it, decisions, and errors left."""

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from workbench._samples import classes_of
from workbench.labels.audit import Audit, ErrorsLeft, expected_yield, rank, strata, yield_rates
from workbench.labels.decisions import (
    EXCLUDED,
    UNCLEAR,
    Where,
    agreement,
    id_index,
    positions,
    repeated,
    settle,
)
from workbench.labels.store import Decision, Store, given_labels, image_hash, user_name

#: Behind the flagged samples every second one is an audit draw: there errors are rare, and to
#: certify that takes draws.
_PERIOD_BEHIND = 2
#: Share of audit draws among the flagged samples where `audit` is a number of samples.
_SHARE = 0.2
#: One question in so many is asked again, to see how often the same reviewer answers otherwise.
_REPEAT_EVERY = 12
#: A question is asked again after so many others at least.
_REPEAT_AFTER = 24
#: How far ahead the decisions that a target still takes are counted.
_AHEAD = 5_000
#: Answers that are no class.
WORDS = ("given", "suggested", "none", "unclear", "exclude")


class Word(str):
    """One of :data:`WORDS` that is meant as such, also where a class is called the same."""


@dataclass(frozen=True)
class Queue:
    """Every sample once, and why it comes where it comes. Numbers are positions in the dataset.

    Attributes
    ----------
    order
        int64 (sample,): the positions in the order in which they are shown.
    audit
        bool (sample,), by position: drawn at random from all, or all of a stratum, that were not
        shown before.
    rank
        int64 (sample,), by position: 0 for the most suspicious.
    flagged
        bool (sample,), by position.
    score
        float64 (sample,), by position.
    draws
        int64 (sample,): the positions in the order of the draws, which seed and ids alone decide.
    stratum
        int64 (sample,), by position: the part of the ranking, see :func:`~.audit.strata`.
    """

    order: NDArray[np.int64]
    audit: NDArray[np.bool_]
    rank: NDArray[np.int64]
    flagged: NDArray[np.bool_]
    score: NDArray[np.float64]
    draws: NDArray[np.int64]
    stratum: NDArray[np.int64]


def make_queue(
    score: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    audit: float = 0.2,
    seed: int = 0,
    ids: Iterable[Any] | None = None,
) -> Queue:
    """Rank the samples by their score and mix audit draws into the ranking.

    One in ``1 / audit`` samples is a draw until the flagged ones are through, every second one
    after that. Where the draws stand is settled before the first decision, so that what they find
    cannot depend on it; within each stretch of ``1 / audit`` samples it is random, so that a
    reviewer does not know which they are.

    Parameters
    ----------
    score
        (sample,): the higher, the more suspicious; ties by position.
    flagged
        bool (sample,): taken for errors; they come before the others.
    audit
        Share of draws among the flagged samples, 0 (no audit at all) to 0.5. Or, from 1 on, how
        many draws come before all others, evenly from the strata of the ranking.
    seed
        Of the draws.
    ids
        (sample,): what the draws go by besides the seed; by default the positions.

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
    pilot = int(audit) if audit >= 1 else 0
    if not (0 <= audit <= 0.5 or pilot == audit):
        raise ValueError(
            f"audit={audit} is the share of samples drawn at random, from 0 to 0.5, or from 1 on "
            "the number of samples that are asked for first"
        )
    n = len(score)
    ranked = rank(score, flagged)
    stratum = strata(flagged, ranked)
    draws = _draws(range(n) if ids is None else ids, seed)
    first = _even(draws, stratum, pilot)
    placed = np.zeros(n, dtype=bool)
    placed[first] = True
    share = _SHARE if pilot else audit
    behind = int(np.count_nonzero(flagged & ~placed))
    slots = _audit_slots(n - len(first), behind, share, np.random.default_rng(seed))
    sources = iter(np.argsort(ranked).tolist()), iter(draws.tolist())
    order = np.empty(n, dtype=np.int64)
    order[: len(first)] = first
    for slot, is_draw in enumerate(slots.tolist(), start=len(first)):
        position = next(p for p in sources[is_draw] if not placed[p])
        placed[position] = True
        order[slot] = position
    drawn = np.empty(n, dtype=bool)
    drawn[order] = np.r_[np.ones(len(first), dtype=bool), slots]
    return Queue(
        order=order,
        audit=drawn,
        rank=ranked,
        flagged=flagged.astype(bool),
        score=score.astype(np.float64),
        draws=draws,
        stratum=stratum,
    )


def audit_sample(issues: pd.DataFrame, n: int = 60, seed: int = 0) -> pd.Index:
    """Random audit sample: the ids to ask people about before the cut is made.

    A model's probabilities alone cannot tell an annotator's errors from its own. The verdicts on
    these samples can: give them to :func:`find_issues` as ``verified``.

    Parameters
    ----------
    issues
        What :func:`find_issues` returned.
    n
        How many, drawn evenly from six strata of the ranking.
    seed
        Of the draw. :func:`review` with ``audit=n`` asks for the same samples first.

    Returns
    -------
    pandas.Index
        The ids, in random order.

    Raises
    ------
    ValueError
        `n` is not from 1 to the number of samples.

    Examples
    --------
    >>> table = pd.DataFrame({"score": [0.9, 0.2, 0.1], "is_issue": [True, False, False]})
    >>> len(audit_sample(table, 2))
    2
    """
    if not 1 <= n <= len(issues):
        raise ValueError(f"n={n} must be from 1 to the {len(issues)} samples of issues")
    queue = make_queue(
        issues["score"].to_numpy(), issues["is_issue"].to_numpy(), n, seed, issues.index
    )
    return issues.index[queue.order[:n]]


def _draws(ids: Iterable[Any], seed: int) -> NDArray[np.int64]:
    """Positions in a random order that goes by the seed and each sample's own id."""
    texts = (f"{seed} {name}".encode(errors="surrogateescape") for name in ids)
    keys = [int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) for text in texts]
    return np.argsort(np.array(keys, dtype=np.uint64), kind="stable").astype(np.int64)


def _even(draws: NDArray[np.int64], stratum: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The first draws of each stratum, as many of each as there are, mixed again."""
    turn = np.zeros(len(draws), dtype=np.int64)  # in its stratum, in the order of the draws
    for k in np.unique(stratum):
        own = np.flatnonzero(stratum[draws] == k)
        turn[own] = np.arange(len(own))
    chosen: NDArray[np.int64] = draws[np.sort(np.argsort(turn, kind="stable")[:n])]
    return chosen


def _audit_slots(n: int, flagged: int, audit: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which places of the queue are audit draws: one, at random, in each stretch."""
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
    wanted = ("score", "wrong", "missing") if "labels" in ds else ("score", "suggested")
    missing = [name for name in wanted if name not in issues]
    if missing:
        raise ValueError(
            f"issues has no column {' and no '.join(map(repr, missing))}; "
            f"labels.find_{'multilabel_' * ('labels' in ds)}issues makes a table that has"
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
    queue = make_queue(score, flagged, audit, seed, id_index(ds))
    if "stratum" in issues:  # of the ranking before the draws were known
        stratum = queue.stratum.copy()
        stratum[at] = issues["stratum"].to_numpy(dtype=np.int64)
        queue = replace(queue, stratum=stratum)
    return replace(queue, score=np.maximum(score, 0.0))


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
        issues: pd.DataFrame | None,
        store: Where,
        reviewer: str | None = None,
        audit: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.ds = ds
        if issues is None:  # nothing is suspected: the order of the dataset
            columns = ["score", "suggested", "wrong", "missing"]
            issues = pd.DataFrame(columns=columns, index=pd.Index(ds["sample"].values[:0]))
        self.issues = issues
        self.given = given_labels(ds)
        self.classes = classes_of(ds)
        self.several = "labels" in ds
        self.ids = id_index(ds)
        self.reviewer = reviewer or user_name()
        self.store = store if isinstance(store, Store) else Store(store, ds, seed)
        self.queue = queue_of(ds, issues, audit, self.store.seed)
        self.suggested = self._suggestions()
        self._held = self._own()
        self._cursor = 0
        self._again: set[int] = set()  # asked again, and not yet answered
        self._hashes: dict[int, str] = {}
        #: Names of the given and, if wanted, the suggested class, that pages are limited to.
        self.only: dict[str, str] | None = None

    def page(self, size: int, skip: Iterable[int] = ()) -> list[int]:
        """The next samples to decide on, less `skip`: of the queue, and a few for a second time."""
        order = self.queue.order
        skipped = set(skip)
        while self._cursor < len(order) and int(order[self._cursor]) in self._held:
            self._cursor += 1
        repeats = [] if self.only else self._to_repeat()
        again = [position for position in repeats if position not in skipped][: size // 2]
        found: list[int] = []
        for position in map(int, order[self._cursor :]):
            if len(found) + len(again) >= size:
                break
            if position not in self._held and position not in skipped and self._wanted(position):
                found.append(position)
        self._again |= set(again)
        return found + again

    def _wanted(self, position: int) -> bool:
        numbers = {"given": self.given[position], "suggested": self.suggested[position]}
        return all(name == self.text(int(numbers[w])) for w, name in (self.only or {}).items())

    def decide(self, answers: Mapping[int, Any], source: str | None = None) -> None:
        """Save answers, all of them or none; `source` says where they come from, if not here.

        Raises
        ------
        ValueError
            An answer is none that there is, or none of this sample.
        StoreError
            They could not be saved.
        """
        new = [position for position in answers if position not in self._hashes]
        images = self.ds["image"].isel(sample=new).values
        self._hashes |= {p: image_hash(image) for p, image in zip(new, images, strict=True)}
        made = [self._decision(position, answer, source) for position, answer in answers.items()]
        self.store.append(made, self.reviewer)
        for position, decision in zip(answers, made, strict=True):
            if position in self._again:
                self._again.discard(position)
            else:
                self._held[position] = (decision.action, decision.label)

    def undo(self) -> int | None:
        """Take this reviewer's last decision back; its sample, or None where there is none."""
        sample = self.store.undo(self.reviewer)
        if sample is None:
            return None
        self._held = self._own()
        self._cursor = 0
        return int(positions(self.ids, pd.Series([sample]))[0])

    def holds(self, position: int, answer: Any) -> bool:
        """Whether this reviewer's decision on a sample is that answer already."""
        decision = self._decision(position, answer, None)
        return self._held.get(position) == (decision.action, decision.label)

    def held(self, position: int) -> tuple[str, int] | None:
        """The action and the label of the own decision on a sample, None where there is none.

        Nor where it is asked again: nobody shall see what the first answer was.
        """
        return None if position in self._again else self._held.get(position)

    def progress(self, page: Sequence[int] = (), level: float = 0.9) -> tuple[ErrorsLeft, float]:
        """How many errors are left in what nobody has reviewed, and how many a page may hold."""
        audit, reviewed, wrong = self._audited()
        score = self.queue.score
        return audit.left(level), expected_yield(score[reviewed], wrong, score[list(page)])

    def expected(self) -> float:
        """How many errors the ranking alone expects in what nobody has reviewed."""
        _, reviewed, wrong = self._audited()
        rest = np.setdiff1d(np.arange(len(self.given)), reviewed)
        return expected_yield(self.queue.score[reviewed], wrong, self.queue.score[rest])

    def ahead(self, targets: Sequence[float] = (0.05, 0.02, 0.01)) -> dict[float, int | None]:
        """How many more decisions until at most each of these shares of the labels may be wrong.

        One run through the rest of the queue, errors drawn at the rates that the decisions so far
        give the scores; None where 5,000 are not enough.
        """
        audit, reviewed, wrong = self._audited()
        done = set(reviewed)
        rest = [p for p in self.queue.order.tolist() if p not in done][:_AHEAD]
        score = self.queue.score
        rates = yield_rates(score[reviewed], wrong, score[rest])
        errors = np.random.default_rng(0).random(len(rest)) < rates
        audit = copy.deepcopy(audit)
        at_the_end = len(rest) if len(rest) < _AHEAD else None
        found: dict[float, int | None] = dict.fromkeys(targets)
        step = max(6, len(rest) // 60)
        for count, (position, error) in enumerate(zip(rest, errors.tolist(), strict=True)):
            if count % step == 0:
                high = audit.left().share[2]
                found |= {t: count for t in targets if found[t] is None and high <= t}
                if None not in found.values():
                    break
            audit.review(position, error, bool(self.queue.audit[position]))
        return {t: at_the_end if count is None else count for t, count in found.items()}

    def agreement(self) -> pd.DataFrame:
        """How far every two reviewers agree; see :func:`workbench.labels.agreement`."""
        return agreement(self.ds, self.store)

    @property
    def done(self) -> int:
        """How many samples this reviewer has decided on."""
        return len(self._held)

    def number(self, name: Any) -> int:
        """A class's number by its name or number; a set of classes by a collection of these."""
        if self.several and not isinstance(name, str) and np.ndim(name) == 1:
            chosen = {_index(self, one) for one in name}
            return sum(1 << k for k in chosen)
        if self.several:
            raise ValueError(f"{name!r}: where images have several labels, give a list of classes")
        return _index(self, name)

    def text(self, number: int) -> str:
        """What a label is called."""
        if number == EXCLUDED:
            return "excluded"
        if not self.several:
            return self.classes[number] if number >= 0 else "no class"
        own = [name for k, name in enumerate(self.classes) if number >= 0 and number >> k & 1]
        return " + ".join(own) or "no class"

    def _decision(self, position: int, answer: Any, source: str | None) -> Decision:
        given = int(self.given[position])
        suggested = int(self.suggested[position])
        word = ""
        if isinstance(answer, str) and (isinstance(answer, Word) or answer not in self.classes):
            word = str(answer) if answer in WORDS else ""
        action = "none"
        if word == "unclear":
            action = "unclear"
            label = given
        elif word == "exclude":
            label = EXCLUDED
        elif word == "none" and not self.several:
            label = -1
        else:
            known = {"given": given, "suggested": suggested, "none": 0}
            label = known[word] if word else self.number(answer)
            if label < 0:
                what = {"suggested": "no suggestion"}.get(word, "no given label")
                raise ValueError(f"there is {what} for sample {self.ids[position]!r}")
            action = "confirm" if label == given else "change"
        if position in self._again:
            source = f"repeat {1 + self._answers().get(position, 0)}"
        place = "audit" if self.queue.audit[position] else "ranked"
        _, previous = self._held.get(position, ("", given))
        return Decision(
            self.ids[position],
            action,
            label,
            previous,
            float(self.queue.score[position]),
            source or place,
            data=json.dumps({"image": self._hashes.get(position, "")}),
        )

    def _own(self) -> dict[int, tuple[str, int]]:
        """Position to action and label, for what this reviewer has decided."""
        current = self.store.current()
        own = current[(current["reviewer"] == self.reviewer) & ~repeated(current)]
        at = positions(self.ids, own["sample"]).tolist()
        return dict(zip(at, zip(own["action"], own["label"], strict=True), strict=True))

    def _suggestions(self) -> NDArray[np.int64]:
        """The suggested class of every sample, -1 where there is none."""
        found = np.full(len(self.given), -1, dtype=np.int64)
        at = pd.Index(self.ds["sample"].values).get_indexer(self.issues.index)
        if not self.several:
            found[at] = self.issues["suggested"]
        elif len(at):
            k = len(self.classes)
            spoilt = [
                sum(1 << c for c in {*wrong, *missing} if c < k)
                for wrong, missing in self.issues[["wrong", "missing"]].itertuples(index=False)
            ]
            found[at] = np.where(spoilt, self.given[at] ^ np.array(spoilt, np.int64), -1)
        return found

    def _audited(self) -> tuple[Audit, list[int], list[bool]]:
        """The audit so far; what was reviewed, in the order of first decisions; which was wrong.

        A disputed label counts as wrong: what is left is then rather over- than understated.
        """
        current = self.store.current()
        current = current.assign(at=positions(self.ids, current["sample"]))
        table = settle(current, current["at"].to_numpy(), self.given)
        log = self.store.log()
        log = log[(log["action"] != "undo") & ~repeated(log)].drop_duplicates("sample")
        log = log.assign(at=positions(self.ids, log["sample"]))
        log = log[log["at"].isin(table.index)]
        status = table["status"].loc[log["at"]]
        wrong = (~status.isin(["confirmed", "unclear"])).tolist()
        reviewed = log["at"].to_numpy()
        audit = Audit(self.queue.flagged, self.queue.rank, self.queue.stratum)
        drawn = self._drawn(reviewed, log["source"])
        for position, error, is_draw in zip(reviewed.tolist(), wrong, drawn.tolist(), strict=True):
            audit.review(position, error, is_draw)
        for differs in self._repeats(current):
            audit.repeat(differs)
        return audit, reviewed.tolist(), wrong

    def _repeats(self, current: pd.DataFrame) -> list[bool]:
        """Whether each answer given for a second time differs from the first.

        Only of labels that were chosen for it at random: what is asked again because the first
        answer was a surprise differs more often.
        """
        answer = current["label"].where(current["action"] != "unclear", UNCLEAR)
        current = current.assign(answer=answer)
        first = current[~repeated(current)].set_index(["at", "reviewer"])["answer"]
        second = current[current["source"] == "repeat 1"].set_index(["at", "reviewer"])["answer"]
        pairs = pd.concat([first, second], axis=1, join="inner", keys=["first", "second"])
        at = pairs.index.get_level_values("at").to_numpy(dtype=np.int64)
        pairs = pairs[~self._surprising(at, pairs["first"].to_numpy())]
        return (pairs["first"] != pairs["second"]).tolist()

    def _surprising(self, at: NDArray[np.int64], label: NDArray[Any]) -> NDArray[np.bool_]:
        """Audit draws behind the flagged part whose label is found wrong."""
        found: NDArray[np.bool_] = (
            self.queue.audit[at] & ~self.queue.flagged[at] & (label != self.given[at])
        )
        return found

    def _to_repeat(self) -> list[int]:
        """What to ask this reviewer again: surprises first, then one question in twelve."""
        old = list(self._held)[: -_REPEAT_AFTER or None]
        answers = self._answers()
        at = np.array(old, dtype=np.int64)
        label = np.array([self._held[p][1] for p in old], dtype=np.int64)
        surprises = at[self._surprising(at, label)].tolist()
        again = [p for p in surprises if p not in answers]
        again += [p for p in surprises if answers.get(p) == 1 and self._torn(p)]
        plain = set(old) - set(surprises)
        wanted = len(self._held) // _REPEAT_EVERY - len(plain & set(answers))
        rest = sorted(plain - set(answers))
        rng = np.random.default_rng(len(self._held))
        if wanted > 0 and rest:
            again += rng.choice(rest, min(wanted, len(rest)), replace=False).tolist()
        return [p for p in again if p not in self._again]

    def _answers(self) -> dict[int, int]:
        """How often this reviewer has answered each position again."""
        return dict(Counter(self._own_repeats()["at"].tolist()))

    def _torn(self, position: int) -> bool:
        """Whether the own second answer differs from the first."""
        own = self._own_repeats()
        return bool((own.loc[own["at"] == position, "label"] != self._held[position][1]).any())

    def _own_repeats(self) -> pd.DataFrame:
        current = self.store.current()
        own = current[(current["reviewer"] == self.reviewer) & repeated(current)]
        return own.assign(at=positions(self.ids, own["sample"]))

    def _drawn(self, at: NDArray[np.int64], source: pd.Series) -> NDArray[np.bool_]:
        """Which reviewed samples are random draws: those up to the first gap in their stratum.

        Had a reviewer left a drawn sample out and gone on, the draws behind it would not be
        random any more; they count as reviewed, but not as draws.
        """
        order = self.queue.draws
        turn = np.empty_like(order)
        turn[order] = np.arange(len(order))
        seen = np.zeros(len(order), dtype=bool)
        seen[at] = True
        drawn = np.array(source == "audit")
        for k in np.unique(self.queue.stratum[at]):
            own = order[self.queue.stratum[order] == k]
            gaps = own[~seen[own]]
            if len(gaps):
                drawn &= (self.queue.stratum[at] != k) | (turn[at] < turn[gaps[0]])
        return drawn


def _index(session: Session, name: Any) -> int:
    """A class's number by its name or whole number."""
    if isinstance(name, str):
        if name in session.classes:
            return session.classes.index(name)
    elif isinstance(name, int | float | np.number) and not isinstance(name, bool):
        number = float(name)
        if number.is_integer() and 0 <= number < len(session.classes):
            return int(number)
    close = get_close_matches(str(name), [*session.classes, *WORDS], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {session.classes[:20]}"
    raise ValueError(f"{name!r} is no class and none of {', '.join(WORDS)}; {hint}")


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
        before = left
        promised = expected
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


def _row(left: ErrorsLeft, expected: float, wrong: int) -> dict[str, float]:
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
