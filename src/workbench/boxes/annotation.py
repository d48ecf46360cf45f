"""Boxes, polygons and points drawn on a page of images, each saved when the mouse is released."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._images import data_uri, image_uri, picture
from workbench._widget import Panel
from workbench.boxes.decisions import (
    COLUMNS,
    IMAGE,
    Objects,
    Row,
    box_agreement,
    decide,
    objects_of,
)
from workbench.datasets.boxes import CORNERS, as_table, image_sizes
from workbench.datasets.errors import BadDataError, BadImageError
from workbench.datasets.images import decode
from workbench.labels.store import Decision, Store, user_name

SHAPES = ("box", "polygon", "point")
#: Longest side of an image as it goes to the browser, and when somebody looks closely.
_SCREEN, _CLOSE = 1024, 4096
_STILL = 280


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
    ) -> None:
        if min(page) < 1:
            raise ValueError(f"a page of {page[0]} rows and {page[1]} columns holds no image")
        if not len(classes) or isinstance(classes, str):
            raise ValueError(f"classes={classes!r} must be one name or more")
        if not shapes or (unknown := set(shapes) - set(SHAPES)):
            raise ValueError(f"shapes {sorted(unknown)} are none of {', '.join(SHAPES)}")
        self.ds, self.classes = ds, [str(name) for name in classes]
        self.reviewer = reviewer or user_name()
        self.given = objects_of(as_table([] if boxes is None else boxes, ds))
        self.store = store if isinstance(store, Store) else Store(store, ds)
        self._size = page[0] * page[1]
        self.ids = [str(name) for name in ds["sample"].values]
        self._own: dict[Any, pd.DataFrame] = {}
        self.done: set[str | None] = set()
        self._refresh()
        super().__init__(
            columns=page[1],
            classes=self.classes,
            viewedAsDone=viewed_as_done,
            shapes=list(shapes),
            reviewer=self.reviewer,
            review=False,
        )

    def page(self, skip: Iterable[int] = ()) -> list[int]:
        """The next images that are not complete, by position, less `skip`."""
        skipped = set(skip)
        still_open = (
            at for at, name in enumerate(self.ids) if name not in self.done and at not in skipped
        )
        return list(islice(still_open, self._size))

    def objects(self, at: int) -> Objects:
        """The objects of an image as this annotator left them; proposals are ``open``."""
        given = self.given.get(self.ds["sample"].values[at], {})
        proposed = {name: row | {"open": True} for name, row in given.items()}
        return decide(proposed, self._own.get(self.ids[at], pd.DataFrame(columns=COLUMNS)))

    def save(
        self, at: int, changes: Sequence[Row], done: bool = False, source: str = "drawn"
    ) -> None:
        """Save what was done to objects of an image, all of it or nothing.

        Each change has ``id`` and either ``label`` with ``box`` or ``points``, or nothing more
        for one that was deleted.

        Raises
        ------
        BadDataError
            A shape is none, or lies outside the image.
        StoreError
            It could not be saved.
        """
        sample, decisions = self.ids[at], []
        for change in changes:
            data = json.dumps(self._checked(at, change)) if "label" in change else None
            action = "none" if data is None else "change"
            decisions.append(
                Decision(sample, action, -1, -1, None, source, str(change["id"]), data)
            )
        if done:
            decisions.append(Decision(sample, "confirm", -1, -1, None, source, IMAGE))
        self.store.append(decisions, self.reviewer)
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
            return [{"do": "close", "at": at, "image": self._image(at, _CLOSE)}]
        return [{"do": "status", "parts": self.status()}]

    def card(self, at: int) -> dict[str, Any]:
        """An image and its objects, ready to be sent as JSON."""
        return {
            "at": at,
            "sample": self.ids[at],
            "image": self._image(at, _SCREEN),
            "size": self._full_size(at)[::-1].tolist(),
            "objects": [_sent(name, row) for name, row in self.objects(at).items()],
            "done": self.ids[at] in self.done,
        }

    def status(self) -> list[str]:
        """How far the annotation has come, in a few short texts."""
        drawn = sum((own["action"] == "change").sum() for own in self._own.values())
        parts = [f"{len(self.done):,} of {len(self.ids):,} images complete", f"{drawn:,} boxes"]
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
        return f"<Annotation of {len(self.ids):,} images, {len(self.done):,} complete>"

    def _undo(self) -> dict[str, Any]:
        sample = self.store.undo(self.reviewer, objects=True)
        if sample is None:
            return {"do": "undone", "at": None}
        self._refresh(sample)
        at = self.ids.index(sample)
        return {"do": "undone", "at": at, "card": self.card(at)}

    def _refresh(self, sample: str | None = None) -> None:
        """Take in what this annotator's decisions are by now, on one image or all of them."""
        current = self.store.current(objects=True, sample=sample)
        own = current[current["reviewer"] == self.reviewer]
        self._own.pop(sample or "", None)
        self._own |= dict(list(own.groupby("sample")))
        self.done -= {sample}
        self.done |= set(own.loc[own["object"] == IMAGE, "sample"])

    def _full_size(self, at: int) -> NDArray[np.int64]:
        size: NDArray[np.int64] = image_sizes(self.ds.isel(sample=[at]))[0]
        return size

    def _checked(self, at: int, change: Row) -> Row:
        """A shape within its image, to a hundredth of a pixel."""
        edges = self._full_size(at)[::-1]
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
        return {name: row[name] for name in ("label", *CORNERS, "points")}

    def _image(self, at: int, longest: int) -> str:
        """An image as text for a page; "" where it cannot be read."""
        pixels = self._pixels(at, longest)
        return "" if pixels is None else data_uri(pixels, longest, "JPEG")

    def _pixels(self, at: int, longest: int) -> NDArray[Any] | None:
        """An image, upright and scaled down where it comes from a file."""
        one = self.ds.isel(sample=at)
        path = str(one["path"].values) if "path" in self.ds else ""
        if not path:
            return np.asarray(one["image"].values)
        size = self._full_size(at)
        height, width = np.ceil(size * min(1, longest / size.max())).astype(int).tolist()
        try:
            return decode(Path(path).read_bytes(), path, (height, width), "stretch")
        except (BadImageError, OSError):
            return None

    def _still(self, at: int) -> str:
        """An image with its objects drawn on it, as HTML."""
        from PIL import Image, ImageDraw

        pixels = self._pixels(at, _STILL)
        image = Image.fromarray(
            picture(np.zeros((1, 1, 1), np.uint8) if pixels is None else pixels)
        )
        image.thumbnail((_STILL, _STILL))
        pen, scale = ImageDraw.Draw(image), image.size / self._full_size(at)[::-1]
        objects = self.objects(at).values()
        for row in objects:
            shape = row["points"] or [[row[x], row[y]] for x, y in (CORNERS[:2], CORNERS[2:])]
            corners = [tuple(point) for point in (np.asarray(shape) * scale).tolist()]
            if row["points"] is None:
                pen.rectangle(corners, outline="#ffb000", width=2)
            else:
                pen.polygon(corners, outline="#ffb000", width=2)
        name, counts = escape(self.ids[at]), Counter(row["label"] for row in objects)
        what = ", ".join(f"{n} {escape(label)}" for label, n in counts.items()) or "nothing drawn"
        return (
            f'<figure style="margin:0;width:{_STILL}px"><img src="{image_uri(image)}" alt="{name}: '
            f'{what}"><figcaption style="font-size:12px">{name}: {what}</figcaption></figure>'
        )


def _sent(name: str, row: Row) -> dict[str, Any]:
    """An object as the browser has it."""
    points = None if row["points"] is None else np.asarray(row["points"]).tolist()
    box = [float(row[corner]) for corner in CORNERS]
    is_open = bool(row.get("open"))
    return {"id": name, "label": row["label"], "box": box, "points": points, "open": is_open}
