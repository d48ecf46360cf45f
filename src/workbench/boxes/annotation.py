"""Boxes, polygons and points drawn on a page of images, each saved when the mouse is released."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._images import data_uri, image_uri, picture
from workbench._widget import Panel
from workbench.boxes.decisions import (
    IMAGE,
    Objects,
    Row,
    Vote,
    box_agreement,
    decide,
    objects_of,
    votes_of,
)
from workbench.datasets.boxes import CORNERS, as_table, image_of, image_sizes
from workbench.datasets.errors import BadDataError, BadImageError
from workbench.labels.store import Decision, Store, user_name

SHAPES = ("box", "polygon", "point")
#: Longest side of an image as it goes to the browser, and when somebody looks closely.
_SCREEN, _CLOSE = 1024, 4096
_STILL = 280
#: What is said of a card by the last action on what it is about.
_HELD = {"confirm": "right", "none": "not there", "change": "changed", "unclear": "unclear"}


def annotate(
    ds: xr.Dataset,
    classes: Sequence[str],
    store: Any = "boxes.db",
    proposals: pd.DataFrame | None = None,
    rows: int = 2,
    columns: int = 3,
    viewed_as_done: bool = False,
    shapes: Sequence[str] = SHAPES,
    *,
    reviewer: str | None = None,
) -> "Annotation":
    """Draw bounding boxes, polygons and points with the mouse or the keyboard, a page at a time.

    Each is on disk when the mouse is released. Calling this again goes on with the images that
    are not complete. In batch runs a still page stands in the widget's place.

    =====================  ==================================================
    drag                   draw; on the selected one move it, on a handle resize it
    b, p, o                draw boxes, polygons (click corners, Enter closes), points
    a                      add one in the middle
    s, S                   select the next one, the last one
    arrows, Shift+arrows   move, resize what is selected; else go to another image, pan
    0 to 9, /              class by its number, by a search
    c                      confirm the selected proposal, or all of the image
    x or Delete            delete, or refuse a proposal
    z                      undo
    wheel, + - f           zoom, fit; drag with Shift or the middle button to pan
    e                      enlarge the image
    Enter                  the image is complete, go on
    n                      next page
    =====================  ==================================================

    Parameters
    ----------
    ds
        An image dataset. Images come from ``path`` at full size where it has one.
    classes
        What the objects are.
    store
        The SQLite file of decisions; it is made where there is none, belongs to this dataset, and
        takes several annotators at once. That of :func:`workbench.labels.review` will do.
    proposals
        A table of boxes, such as a network's: drawn dashed, and taken where they are confirmed.
    rows, columns
        Of a page.
    viewed_as_done
        n calls all images of the page complete, those without boxes too; else only those with.
    shapes
        Which of ``"box"``, ``"polygon"`` and ``"point"`` can be drawn; the first is at hand.
    reviewer
        Who draws; by default the user's name on this system.

    Returns
    -------
    Annotation
        Shown by being a cell's last value; :func:`apply_boxes` gives the table.

    Raises
    ------
    MissingExtraError
        anywidget is not installed.
    StoreError
        The store is of another dataset, read-only or damaged.
    ValueError
        No class, an unknown shape, or proposals of other samples.

    Examples
    --------
    >>> annotate(ds, ["plate"], "boxes.db")  # doctest: +SKIP
    >>> table = apply_boxes(ds, "boxes.db")  # doctest: +SKIP
    """
    return Annotation(
        ds, classes, store, proposals, (rows, columns), viewed_as_done, shapes, reviewer
    )


class Annotation(Panel):
    """What :func:`annotate` returns: one annotator at work on one store, and the widget."""

    front = (("workbench.boxes", "annotate.js"), ("workbench.boxes", "annotate.css"))
    #: Whether the boxes that were given count only where they are confirmed.
    _are_proposals = True

    def __init__(
        self,
        ds: xr.Dataset,
        classes: Sequence[str],
        store: Any,
        boxes: pd.DataFrame | None,
        page: tuple[int, int],
        viewed_as_done: bool = False,
        shapes: Sequence[str] = SHAPES,
        reviewer: str | None = None,
        seed: int = 0,
    ) -> None:
        if min(page) < 1:
            raise ValueError(f"a page of {page[0]} rows and {page[1]} columns holds no image")
        if not len(classes) or isinstance(classes, str):
            raise ValueError(f"classes={classes!r} must be one name or more")
        if not shapes or not set(shapes) <= set(SHAPES):
            raise ValueError(f"shapes={list(shapes)} must be one or more of {', '.join(SHAPES)}")
        self.ds, self.classes = ds, [str(name) for name in classes]
        self.reviewer = reviewer or user_name()
        self.given = objects_of(boxes, ds)
        self.store = store if isinstance(store, Store) else Store(store, ds, seed)
        self._size = page[0] * page[1]
        self.ids = [str(name) for name in ds["sample"].values]
        #: What is shown in turn: a position, the object that it is about, and how it came up.
        self.cards: list[Row] = [
            {"place": at, "id": IMAGE, "source": "drawn"} for at in range(len(self.ids))
        ]
        #: Sample to object to this annotator's last decision on it.
        self.own: dict[str, dict[str, Vote]] = {}
        self._refresh()
        super().__init__(
            columns=page[1],
            classes=self.classes,
            viewedAsDone=viewed_as_done,
            shapes=list(shapes),
            reviewer=self.reviewer,
            review=not self._are_proposals,
        )

    def page(self, skip: Iterable[int] = ()) -> list[int]:
        """The next cards of the queue that nothing was decided on, less `skip`."""
        skipped = set(skip)
        waiting = (at for at in range(len(self.cards)) if at not in skipped and not self.held(at))
        return list(islice(waiting, self._size))

    def held(self, at: int) -> str:
        """What this annotator decided on a card, in a word; "" while it is open."""
        card = self.cards[at]
        vote = self.own.get(self.ids[card["place"]], {}).get(card["id"])
        return _HELD[vote.action] if vote else ""

    def objects(self, at: int) -> Objects:
        """The objects of a card's image as this annotator left them, proposals among them."""
        sample = self.ids[self.cards[at]["place"]]
        return decide(self.given.get(sample, {}), self.own.get(sample, {}).values())

    def save(self, at: int, changes: Sequence[Row], done: bool = False) -> None:
        """Save what was done to objects of a card's image, all of it or nothing.

        Each change has ``id`` and either ``label`` with ``box`` or ``points``, or nothing more
        for one that was deleted.

        Raises
        ------
        BadDataError
            A shape is none, or lies outside the image.
        StoreError
            It could not be saved.
        """
        decided: list[tuple[str, str, Row | None]] = []
        for change in changes:
            data = self._checked(self.cards[at]["place"], change) if "label" in change else None
            decided.append((str(change["id"]), "change" if data else "none", data))
        self._append(at, [*decided, (IMAGE, "confirm", None)] if done else decided)

    def _append(self, at: int, decided: Iterable[tuple[str, str, Row | None]]) -> None:
        """Save object, action and data of each decision."""
        sample, source = self.ids[self.cards[at]["place"]], self.cards[at]["source"]
        rows = [
            Decision(sample, action, -1, -1, None, source, name, json.dumps(data) if data else None)
            for name, action, data in decided
        ]
        self.store.append(rows, self.reviewer)
        self._refresh(sample)

    def answer(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """What is sent to the browser for a message from it."""
        kind = message.get("do")
        if kind == "open":
            first = self.page()
            pages = [first, self.page(skip=first)]
            return [{"do": "pages", "pages": [[self.card(at) for at in page] for page in pages]}]
        if kind == "page":
            return [{"do": "page", "cards": [self.card(at) for at in self.page(message["skip"])]}]
        at = int(message.get("at", -1))
        if kind == "save":
            self.save(at, message["changes"], message.get("done", False))
            return [{"do": "saved", "seq": message["seq"]}]
        if kind == "undo":
            return [self._undo()]
        if kind == "card":
            return [{"do": "card", "card": self.card(at)}]
        if kind == "close":
            return [
                {"do": "close", "at": at, "image": self._image(self.cards[at]["place"], _CLOSE)}
            ]
        return [{"do": "status", "parts": self.status()}]

    def card(self, at: int) -> dict[str, Any]:
        """An image and its objects, ready to be sent as JSON."""
        place = self.cards[at]["place"]
        sample = self.ids[place]
        own = self.own.get(sample, {}) if self._are_proposals else self.objects(at)
        objects = [sent(name, row, name not in own) for name, row in self.objects(at).items()]
        return {
            "at": at,
            "sample": sample,
            "image": self._image(place, _SCREEN),
            "size": self.full_size(place)[::-1].tolist(),
            "objects": objects,
            "done": self.held(at),
        }

    def status(self) -> list[str]:
        """How far the annotation has come, in a few short texts."""
        drawn = sum(vote.action == "change" for own in self.own.values() for vote in own.values())
        done = sum(IMAGE in own for own in self.own.values())
        parts = [f"{done:,} of {len(self.ids):,} images complete", f"{drawn:,} boxes"]
        for row in box_agreement(self.ds, self.store).to_dict("records"):
            pair = {row["first"], row["second"]}
            if self.reviewer in pair and row["images"]:
                (other,) = pair - {self.reviewer}
                parts.append(f"F1 with {other}: {row['f1']:.2f} on {row['images']} images")
        return parts

    def still(self) -> tuple[list[str], str]:
        """The next page, for where there is no widget."""
        cards = "".join(map(self._still, self.page()))
        return self.status(), f'<div style="display:flex;flex-wrap:wrap;gap:12px">{cards}</div>'

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self.status())}>"

    def _undo(self) -> dict[str, Any]:
        """Undo, and show the card that it was about."""
        sample = self.store.undo(self.reviewer, objects=True)
        if sample is None:
            return {"do": "undone", "at": None}
        before = self.own.get(sample, {})
        self._refresh(sample)
        now = self.own.get(sample, {})
        undone = {name for name, vote in before.items() if vote != now.get(name)}
        ids = {at: c["id"] for at, c in enumerate(self.cards) if self.ids[c["place"]] == sample}
        at = min(ids, key=lambda card: (ids[card] not in undone, ids[card] != IMAGE))
        return {"do": "undone", "at": at, "card": self.card(at)}

    def _refresh(self, sample: str | None = None) -> None:
        """Take in what this annotator's decisions are by now, on one image or all of them."""
        current = self.store.current(objects=True, sample=sample)
        votes = votes_of(current[current["reviewer"] == self.reviewer])
        self.own.pop(sample or "", None)
        self.own |= {key: {vote.object: vote for vote in own} for key, own in votes.items()}

    def full_size(self, at: int) -> NDArray[np.int64]:
        """Height and width of the image at a position."""
        size: NDArray[np.int64] = image_sizes(self.ds.isel(sample=[at]))[0]
        return size

    def _checked(self, at: int, change: Row) -> Row:
        """A shape within its image, to a hundredth of a pixel."""
        edges = self.full_size(at)[::-1]
        points = change.get("points")
        shape = np.asarray(change["box"] if points is None else points, float).reshape(-1, 2)
        shape = shape.clip(0, edges).round(2)
        row = {"sample": 0, "label": str(change["label"])}
        row |= {"points": None if points is None else shape.tolist()}
        row |= dict(zip(CORNERS, [*shape.min(axis=0), *shape.max(axis=0)], strict=True))
        as_table([row])
        if points is None and (shape[1] <= shape[0]).any():
            raise BadDataError(
                f"a box needs a width and a height within the image: {change['box']}"
            )
        return plain(row)

    def _image(self, at: int, longest: int) -> str:
        """An image as text for a page; "" where it cannot be read."""
        try:
            return data_uri(image_of(self.ds, at, longest), longest, "JPEG")
        except BadImageError:
            return ""

    def _still(self, at: int) -> str:
        """An image with its objects drawn on it, as HTML."""
        from PIL import Image, ImageDraw

        image = Image.fromarray(picture(image_of(self.ds, self.cards[at]["place"], _STILL)))
        image.thumbnail((_STILL, _STILL))
        pen, scale = (
            ImageDraw.Draw(image),
            image.size / self.full_size(self.cards[at]["place"])[::-1],
        )
        objects = self.objects(at).values()
        for row in objects:
            low, high = np.reshape([row[name] for name in CORNERS], (2, 2))
            ring = [low, (high[0], low[1]), high, (low[0], high[1])]
            corners = np.asarray(ring if row["points"] is None else row["points"]) * scale
            around = [*corners.tolist(), corners[0].tolist()]
            pen.line([tuple(point) for point in around], fill="#ffb000", width=2)
        name, counts = (
            escape(self.ids[self.cards[at]["place"]]),
            Counter(row["label"] for row in objects),
        )
        what = ", ".join(f"{n} {escape(label)}" for label, n in counts.items()) or "nothing drawn"
        return (
            f'<figure style="margin:0;width:{_STILL}px"><img src="{image_uri(image)}" alt="{name}: '
            f'{what}"><figcaption style="font-size:12px">{name}: {what}</figcaption></figure>'
        )


def plain(row: Row) -> Row:
    """What of a row belongs to a shape, as JSON has it."""
    points = None if row["points"] is None else np.asarray(row["points"]).tolist()
    return {"label": row["label"], **{name: float(row[name]) for name in CORNERS}, "points": points}


def sent(name: str, row: Row, is_open: bool = False) -> dict[str, Any]:
    """An object as the browser has it; a proposal that waits is open."""
    shape = plain(row)
    box = [shape.pop(corner) for corner in CORNERS]
    return shape | {"id": name, "box": box, "open": is_open}
