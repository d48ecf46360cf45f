"""Suspect boxes one by one, and random images, so that the boxes missing can be counted."""

from collections import Counter
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench._samples import classes_of
from workbench.boxes.annotation import Annotation, plain, sent
from workbench.boxes.audit import MissingAudit, MissingLeft
from workbench.boxes.decisions import IMAGE, Row, object_id
from workbench.datasets.boxes import CORNERS, as_table

#: Behind the flagged issues every second card is an image drawn at random.
_PERIOD_BEHIND = 2
#: Sets the draws apart from all else that is seeded with the same small number.
_STREAM = 0x626F7865
#: Kind of a card to the action on its object, by what the reviewer says.
_VERDICTS = {
    "audit": {"right": "confirm", "take": "confirm"},
    "missing": {"right": "none", "take": "change"},
    "spurious": {"right": "confirm", "take": "none"},
    "shifted": {"right": "confirm", "take": "change"},
    "swapped": {"right": "confirm", "take": "change"},
}
_WHY = {
    "missing": "is a {suggested} missing here?",
    "spurious": "is there no {given} here?",
    "shifted": "is this {given} badly placed?",
    "swapped": "is this {given} a {suggested}?",
}


def review(
    ds: xr.Dataset,
    boxes: pd.DataFrame,
    issues: pd.DataFrame,
    store: Any = "boxes.db",
    rows: int = 2,
    columns: int = 3,
    *,
    reviewer: str | None = None,
    audit: float = 0.2,
    most: int = 20,
    seed: int = 0,
) -> "BoxReview":
    """Review suspect boxes with the keyboard or the mouse, worst first.

    One card in five is an image drawn at random: add what is missing there, then Space. From these
    the number of missing boxes is bounded without trust in the ranking. Every decision is on disk
    before it is called saved; :func:`apply_boxes` gives the corrected table. What
    :func:`annotate` can do, this can do too.

    =====================  ==================================================
    Space                  right as it is; of an image drawn at random: complete
    Enter                  take what is dashed: add, delete, move or rename
    x                      spurious: delete it
    0 to 9, /              it is of another class
    mouse, arrows          place it better
    u                      unclear
    z                      undo
    =====================  ==================================================

    Parameters
    ----------
    ds
        An image dataset.
    boxes
        The table to correct.
    issues
        What :func:`find_box_issues` returned for it, or part of it.
    store, rows, columns, reviewer
        As :func:`annotate` takes them.
    audit
        Share of images drawn at random until the flagged issues are through, from 0 to 0.5; half
        after that.
    most
        No image misses more boxes than this; the interval needs such a number.
    seed
        Of the draws; a store keeps the one that it was made with.

    Returns
    -------
    BoxReview
        Shown by being a cell's last value; its ``left()`` is the number of boxes still missing.

    Raises
    ------
    MissingExtraError
        anywidget is not installed.
    StoreError
        The store is of another dataset, read-only or damaged.
    ValueError
        `issues` are of other boxes, or `audit` is out of range.

    Examples
    --------
    >>> issues = find_box_issues(table, predictions)  # doctest: +SKIP
    >>> review(ds, table, issues, "boxes.db")  # doctest: +SKIP
    """
    if not 0 <= audit <= 0.5:
        raise ValueError(f"audit={audit} is the share of images drawn at random, from 0 to 0.5")
    return BoxReview(ds, boxes, issues, store, (rows, columns), reviewer, audit, most, seed)


class BoxReview(Annotation):
    """What :func:`review` returns: one reviewer at work on one store, and the widget."""

    _are_proposals = False

    def __init__(
        self,
        ds: xr.Dataset,
        boxes: pd.DataFrame,
        issues: pd.DataFrame,
        store: Any,
        page: tuple[int, int],
        reviewer: str | None = None,
        audit: float = 0.2,
        most: int = 20,
        seed: int = 0,
    ) -> None:
        table = as_table(boxes, ds)
        named = classes_of(ds)
        other = (set(table["label"]) | set(issues["suggested"])) - {"", *named}
        super().__init__(
            ds, [*named, *sorted(other)], store, table, page, reviewer=reviewer, seed=seed
        )
        self._most = most
        rng = np.random.default_rng([_STREAM, self.store.seed])
        #: Positions of images in the order of the draws, which the seed alone decides.
        self.lots = rng.permutation(len(self.ids)).tolist()
        why = "drawn at random: is anything missing?"
        lots: list[Row] = [
            {"place": at, "id": IMAGE, "source": "audit", "kind": "audit", "why": why}
            for at in self.lots
        ]
        flagged = int(issues["is_issue"].sum()) if "is_issue" in issues else len(issues)
        slots = _slots(len(issues), flagged, len(lots) if audit else 0, audit, rng)
        sources = iter(_cards(table, issues, ds)), iter(lots)
        self.cards = [next(sources[is_lot]) for is_lot in slots]

    def judge(self, at: int, verdict: str) -> None:
        """Save ``"right"`` (as it is), ``"take"`` (what is suggested) or ``"unclear"``.

        Raises
        ------
        StoreError
            It could not be saved.
        """
        card = self.cards[at]
        action = _VERDICTS[card["kind"]].get(verdict, "unclear")
        data = card["suggestion"] if action == "change" else None
        self._append(at, [(card["id"], action, data)])

    def left(self, level: float = 0.9) -> MissingLeft:
        """How many boxes are still missing, by this reviewer's decisions.

        Raises
        ------
        ValueError
            An image missed more boxes than ``most``.
        """
        log, held = self.store.log(objects=True), self.store.current(objects=True)
        log, held = (rows[rows["reviewer"] == self.reviewer] for rows in (log, held))
        first = log[log["action"] != "undo"].drop_duplicates(["sample", "object"])
        whole = held[(held["object"] == IMAGE) & (held["action"] == "confirm")]
        completed = dict(zip(whole["sample"], whole.index, strict=True))
        events: list[tuple[int, str, int]] = []
        counts = Counter[str]()
        for number, sample, name, source in first[["sample", "object", "source"]].itertuples():
            vote = self.own.get(sample, {}).get(name)
            if vote is None or vote.action != "change" or name in self.given.get(sample, {}):
                continue
            # What the ranking brought up before a draw does not belong to it.
            if sample in completed and (source == "audit" or number > completed[sample]):
                counts[sample] += 1
            else:
                events.append((number, "", 1))
        events += [(number, sample, counts[sample]) for sample, number in completed.items()]
        return self._bounded(events, level)

    def _bounded(self, events: list[tuple[int, str, int]], level: float) -> MissingLeft:
        """The interval after finds (no sample) and images looked through, in their order.

        Draws are those among the draws up to the first gap: had somebody left one out and gone on,
        those behind it would not be random any more.
        """
        whole = {sample for _, sample, _ in events}
        drawn = set(takewhile(lambda name: name in whole, (self.ids[i] for i in self.lots)))
        audit = MissingAudit(len(self.ids), self._most)
        for _, sample, boxes in sorted(events):
            if not sample:
                audit.find(boxes)
            elif sample in drawn:
                audit.draw(boxes)
            else:
                audit.look(boxes)
        return audit.left(level)

    def answer(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """What is sent to the browser for a message from it."""
        at, kind = int(message.get("at", -1)), message["do"]
        if kind == "verdict":
            self.judge(at, message["verdict"])
            replies = [{"do": "saved", "seq": message["seq"]}]
        else:
            replies = super().answer(message)
        fresh = [{"do": "card", "card": self.card(at)}] if kind in ("verdict", "save") else []
        return fresh + replies

    def card(self, at: int) -> dict[str, Any]:
        """An image, its boxes, and what is asked of it, ready to be sent as JSON."""
        card, own = super().card(at), self.cards[at]
        if own["kind"] == "audit":
            return card | {"why": own["why"]}
        shown = own["suggestion"] and sent("", own["suggestion"])
        focus = _around(own["corners"], card["size"])
        return card | {"why": own["why"], "object": own["id"], "focus": focus, "suggestion": shown}

    def status(self) -> list[str]:
        """How far the review has come, in a few short texts."""
        decided = sum(bool(self.held(at)) for at in range(len(self.cards)))
        try:
            left = self.left()
        except ValueError as error:
            return [f"{decided:,} decided", str(error)]
        parts = [f"{decided:,} decided, {left.found:,} boxes added"]
        if np.isnan(left.estimate):
            return [*parts, "boxes missing: not known before the first image drawn at random"]
        interval = f"{left.low:,} to {left.high:,} (90 %)"
        return [*parts, f"about {left.estimate:,.0f} boxes missing, {interval}"]


def _cards(table: pd.DataFrame, issues: pd.DataFrame, ds: xr.Dataset) -> list[Row]:
    """What each issue is about: its image, the object, and what holds if it is taken."""
    places = pd.Index(ds["sample"].values).get_indexer(issues["sample"])
    given = table.to_dict("records")
    cards = []
    for place, issue in zip(places.tolist(), issues.to_dict("records"), strict=True):
        kind, box = issue["kind"], issue["box"]
        own = given[box] if 0 <= box < len(given) else {"label": ""}
        if place < 0 or own["label"] != issue["given"]:
            raise ValueError(f"an issue of sample {issue['sample']!r} is not of these boxes")
        shape = own if kind == "swapped" else issue | {"points": None}
        label = issue["given"] if kind == "shifted" else issue["suggested"]
        suggestion = None if kind == "spurious" else plain(shape | {"label": label})
        about: Row = (suggestion if kind == "missing" else None) or own
        ends = np.array([[one[name] for name in CORNERS] for one in (about, suggestion or about)])
        corners = [*ends[:, :2].min(axis=0), *ends[:, 2:].max(axis=0)]
        why = _WHY[kind].format(given=issue["given"], suggested=issue["suggested"])
        card = {"place": place, "id": object_id(about), "source": "ranked", "kind": kind}
        cards.append(card | {"why": why, "suggestion": suggestion, "corners": corners})
    return cards


def _slots(
    issues: int, flagged: int, images: int, audit: float, rng: np.random.Generator
) -> list[bool]:
    """Which cards are images drawn at random: one, at random, in each stretch."""
    left, slots = [issues, images], list[bool]()
    while sum(left):
        in_flagged = audit > 0 and issues - left[0] < flagged
        period = max(round(1 / audit), _PERIOD_BEHIND) if in_flagged else _PERIOD_BEHIND
        for is_lot in rng.permutation(period) == 0:
            if left[int(is_lot)]:
                left[int(is_lot)] -= 1
                slots.append(bool(is_lot))
    return slots


def _around(corners: list[float], size: list[int]) -> list[float]:
    """The part of an image to look at: three times what is in question, 4 to 3, as x, y, w, h."""
    x_min, y_min, x_max, y_max = corners
    width = min(max(3 * (x_max - x_min), 4 * (y_max - y_min), 96), *(size[0], 4 / 3 * size[1]))
    height = 0.75 * width
    x = np.clip((x_min + x_max - width) / 2, 0, size[0] - width)
    y = np.clip((y_min + y_max - height) / 2, 0, size[1] - height)
    return [float(x), float(y), float(width), float(height)]
