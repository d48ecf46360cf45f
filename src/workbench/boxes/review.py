"""Suspect boxes one by one, and images drawn by lot, so that the boxes missing can be counted."""

from collections import Counter
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.boxes.annotation import Annotation, sent
from workbench.boxes.audit import MissingAudit, MissingLeft
from workbench.boxes.decisions import IMAGE, Row, object_id
from workbench.datasets.boxes import CORNERS, as_table

#: Behind the flagged issues every second card is an image drawn by lot.
_PERIOD_BEHIND = 2
#: Sets the lots apart from all else that is seeded with the same small number.
_STREAM = 0x626F7865
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

    One card in five is an image drawn by lot: add what is missing there, then Space. From these
    the number of missing boxes is bounded without trust in the ranking. Every decision is on disk
    before it is called saved; :func:`apply_boxes` gives the corrected table. What
    :func:`annotate` can do, this can do too.

    =====================  ==================================================
    Space                  right as it is; of an image drawn by lot: complete
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
        Share of images drawn by lot until the flagged issues are through, from 0 to 0.5; half
        after that.
    most
        No image misses more boxes than this; the interval needs such a number.
    seed
        Of the lots; a store keeps the one that it was made with.

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
        raise ValueError(f"audit={audit} is the share of images drawn by lot, from 0 to 0.5")
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
        named = [str(name) for name in ds["class"].values] if "class" in ds.coords else []
        other = (set(table["label"]) | set(issues["suggested"])) - {"", *named}
        super().__init__(
            ds, [*named, *sorted(other)], store, table, page, reviewer=reviewer, seed=seed
        )
        self._most = most
        self._targets = _targets(table, issues, ds)
        rng = np.random.default_rng([_STREAM, self.store.seed])
        #: Positions of images in the order of the lots, which the seed alone decides.
        self.lots = rng.permutation(len(self.ids)).tolist()
        flagged = int(issues["is_issue"].sum()) if "is_issue" in issues else len(issues)
        by_lot = _slots(len(issues), flagged, len(self.ids) if audit else 0, audit, rng)
        sources = iter(range(len(issues))), iter(self.lots)
        #: Each card: whether it was drawn by lot, and the number of an issue, else of an image.
        self.queue = [(is_lot, next(sources[is_lot])) for is_lot in by_lot]

    def __len__(self) -> int:
        """How many cards the queue has."""
        return len(self.queue)

    def place(self, at: int) -> int:
        """The position of a card's image."""
        is_lot, number = self.queue[at]
        return number if is_lot else self._targets[number]["place"]

    def held(self, at: int) -> str:
        """What this reviewer decided on a card, in a word; "" while it is open."""
        is_lot, number = self.queue[at]
        name = IMAGE if is_lot else self._targets[number]["id"]
        vote = self.own.get(self.ids[self.place(at)], {}).get(name)
        action = vote.action if vote else ""
        return {"confirm": "complete" if is_lot else "right", "none": "not there"}.get(
            action, action
        )

    def judge(self, at: int, verdict: str) -> None:
        """Save ``"right"`` (as it is), ``"take"`` (what is suggested) or ``"unclear"``.

        Raises
        ------
        StoreError
            It could not be saved.
        """
        is_lot, number = self.queue[at]
        if is_lot:
            action = "unclear" if verdict == "unclear" else "confirm"
            self._append(at, [(IMAGE, action, None)])
            return
        target = self._targets[number]
        given = "none" if target["kind"] == "missing" else "confirm"
        taken = "none" if target["suggestion"] is None else "change"
        action = {"right": given, "take": taken, "unclear": "unclear"}[verdict]
        data = target["suggestion"] if action == "change" else None
        self._append(at, [(target["id"], action, data)])

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

        Draws are those among the lots up to the first gap: had somebody left one out and gone on,
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
        card, (is_lot, number) = super().card(at), self.queue[at]
        if is_lot:
            return card | {"why": "drawn by lot: is anything missing?"}
        target = self._targets[number]
        shown = target["suggestion"]
        return card | {
            "why": target["why"],
            "object": target["id"],
            "focus": _around(target["corners"], card["size"]),
            "suggestion": None if shown is None else sent("", shown),
        }

    def status(self) -> list[str]:
        """How far the review has come, in a few short texts."""
        decided = sum(bool(self.held(at)) for at in range(len(self)))
        try:
            left = self.left()
        except ValueError as error:
            return [f"{decided:,} decided", str(error)]
        parts = [f"{decided:,} decided, {left.found:,} boxes added"]
        if np.isnan(left.estimate):
            return [*parts, "boxes missing: not known before the first image drawn by lot"]
        interval = f"{left.low:,} to {left.high:,} (90 %)"
        return [*parts, f"about {left.estimate:,.0f} boxes missing, {interval}"]

    def _append(self, at: int, decided: Any, source: str = "") -> None:
        super()._append(at, decided, source or ("audit" if self.queue[at][0] else "ranked"))

    def _card_of(self, sample: str) -> int:
        """The card that shows what was undone."""
        log = self.store.log(objects=True)
        name = log.loc[
            (log["action"] == "undo") & (log["reviewer"] == self.reviewer), "object"
        ].iloc[-1]
        cards = [at for at in range(len(self)) if self.ids[self.place(at)] == sample]
        own = [
            at
            for at in cards
            if not self.queue[at][0] and self._targets[self.queue[at][1]]["id"] == name
        ]
        return (own or [at for at in cards if self.queue[at][0]] or cards)[0]


def _targets(table: pd.DataFrame, issues: pd.DataFrame, ds: xr.Dataset) -> list[Row]:
    """What each issue is about: its image, the object, and what holds if it is taken."""
    places = pd.Index(ds["sample"].values).get_indexer(issues["sample"])
    targets = []
    for place, issue in zip(places.tolist(), issues.to_dict("records"), strict=True):
        kind, box = issue["kind"], issue["box"]
        found = {name: issue[name] for name in CORNERS} | {"points": None}
        given = table.iloc[box].to_dict() if 0 <= box < len(table) else {"label": ""}
        if place < 0 or given["label"] != issue["given"]:
            raise ValueError(f"an issue of sample {issue['sample']!r} is not of these boxes")
        suggestion: Row | None = None
        if kind == "shifted":
            suggestion = found | {"label": issue["given"]}
        elif kind != "spurious":
            suggestion = (found if kind == "missing" else given) | {"label": issue["suggested"]}
        shapes = [shape for shape in (suggestion, given) if shape and "x_min" in shape]
        ends = np.array([[shape[name] for name in CORNERS] for shape in shapes])
        if suggestion is not None:
            points = suggestion["points"]
            suggestion = {name: suggestion[name] for name in ("label", *CORNERS)}
            suggestion["points"] = None if points is None else np.asarray(points).tolist()
        targets.append(
            {
                "place": place,
                "kind": kind,
                "id": object_id((suggestion or given) if kind == "missing" else given),
                "suggestion": suggestion,
                "corners": [*ends[:, :2].min(axis=0), *ends[:, 2:].max(axis=0)],
                "why": _WHY[kind].format(given=issue["given"], suggested=issue["suggested"]),
            }
        )
    return targets


def _slots(
    issues: int, flagged: int, images: int, audit: float, rng: np.random.Generator
) -> list[bool]:
    """Which cards are images drawn by lot: one, at random, in each stretch."""
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
