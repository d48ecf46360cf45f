"""One reviewer at work on one store: the queue, the decisions, and how much is left."""

import getpass
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench.labels.decisions import Where, agreement, id_index, positions, settle
from workbench.labels.identity import given_labels
from workbench.labels.queueing import queue_of
from workbench.labels.stopping import Audit, Left, expected_yield
from workbench.labels.store import Decision, Store

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
        self.reviewer = reviewer or _user()
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


def _user() -> str:
    """The user's name; a container may run without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "reviewer"
