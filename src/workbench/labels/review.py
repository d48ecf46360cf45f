"""The review in a notebook: a grid of images, decided on with the keyboard."""

import math
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any
from uuid import uuid4

import pandas as pd
import xarray as xr

from workbench._extras import need
from workbench._unattended import in_batch
from workbench.labels.cards import Cards
from workbench.labels.decisions import Where
from workbench.labels.session import Session
from workbench.labels.sqlite_file import StoreError


def review(
    ds: xr.Dataset,
    issues: pd.DataFrame,
    store: Where = "review.db",
    rows: int = 2,
    columns: int = 3,
    *,
    reviewer: str | None = None,
    neighbors: xr.Dataset | None = None,
    viewed_as_done: bool = False,
    audit: float = 0.2,
    seed: int = 0,
) -> "Review":
    """Review suspected labels with the keyboard, in JupyterLab, VS Code or Colab.

    Images come a page at a time, worst first, with one in five drawn by lot from all the rest, so
    that the errors left can be estimated without trusting the ranking. Every decision is on disk
    before the widget calls it saved. Calling this again goes on where the review stopped. In
    batch runs a still page stands in the widget's place; :func:`review_batch` decides there.

    ==================  ==================================================
    Space               the given label is right
    Enter               the suggested one is
    0 to 9              the class of that number; of more than ten, search
    /                   search for a class
    u                   unclear
    x                   no class fits
    z or Backspace      undo
    arrows              go to another image
    n                   show the nearest neighbours
    . (full stop)       with `viewed_as_done`: all others are right, go on
    ==================  ==================================================

    Parameters
    ----------
    ds
        An image dataset with ``label``.
    issues
        What :func:`find_issues` returned for it, or part of it; other samples come last.
    store
        The SQLite file of decisions. It is made where there is none, belongs to this dataset, and
        takes several reviewers at once.
    rows, columns
        Of a page.
    reviewer
        Whose decisions these are; by default the user's name on this system.
    neighbors
        The graph over features; the key n then shows the nearest neighbours.
    viewed_as_done
        Let one key confirm all images of a page that were not decided on.
    audit
        Share of images drawn by lot until the flagged ones are through; half after that.
    seed
        Of the lots; a store keeps the one that it was made with.

    Returns
    -------
    Review
        Shown by being a cell's last value.

    Raises
    ------
    MissingExtraError
        anywidget is not installed.
    StoreError
        The store is of another dataset, read-only or damaged.
    ValueError
        `issues` or `neighbors` are of other samples, or the dataset has no single labels.

    Examples
    --------
    >>> review(ds, issues, "review.db", neighbors=graph)  # doctest: +SKIP
    >>> fixed = apply_decisions(ds, "review.db")  # doctest: +SKIP
    """
    if min(rows, columns) < 1:
        raise ValueError(f"a page of {rows} rows and {columns} columns holds no image")
    if not in_batch():
        need("anywidget", extra="labels")
    session = Session(ds, issues, store, reviewer, audit, seed)
    return Review(session, Cards(session, neighbors), (rows, columns), viewed_as_done)


class Review:
    """What :func:`review` returns: the session, and its widget."""

    def __init__(
        self, session: Session, cards: Cards, shape: tuple[int, int], viewed_as_done: bool = False
    ) -> None:
        self.session, self._cards = session, cards
        self._size = shape[0] * shape[1]
        self._widget: Any = None
        self._options: dict[str, Any] = {
            "rows": shape[0],
            "columns": shape[1],
            "classes": session.classes,
            "viewedAsDone": viewed_as_done,
            "reviewer": session.reviewer,
            "still": f"wb-still-{uuid4().hex}",
            "neighbors": cards.neighbors(0) != [] if len(session.given) else False,
        }

    @property
    def widget(self) -> Any:
        """The widget; views of it, here and there, share one queue."""
        if self._widget is None:
            self._widget = _widget_class()(options=self._options)
            self._widget.on_msg(self._on_message)
        return self._widget

    def answer(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """What is sent to the browser for a message from it."""
        kind = message.get("do")
        if kind == "open":
            first = self.session.page(self._size)
            second = self.session.page(self._size, skip=first)
            return [{"do": "pages", "pages": [self._cards.page(first), self._cards.page(second)]}]
        if kind == "page":
            page = self.session.page(self._size, skip=message["skip"])
            return [{"do": "page", "cards": self._cards.page(page)}]
        if kind == "decide":
            self.session.decide({int(at): a for at, a in message["answers"].items()})
            shown = {at: self._cards.held(int(at)) for at in message["answers"]}
            return [{"do": "saved", "seq": message["seq"], "held": shown}]
        if kind == "undo":
            return [self._undo()]
        if kind == "neighbors":
            at = int(message["at"])
            return [{"do": "neighbors", "at": at, "cards": self._cards.neighbors(at)}]
        return [{"do": "status", "parts": self.status([int(at) for at in message["at"]])}]

    def status(self, page: list[int]) -> list[str]:
        """How far the review has come, in a few short texts."""
        left, expected = self.session.progress(page)
        parts = [f"{left.reviewed:,} reviewed, {left.found:,} wrong"]
        if math.isnan(left.estimate):
            parts.append("wrong labels left: not known before the first draw by lot")
        else:
            parts.append(
                f"about {left.estimate:,.0f} wrong labels left, {left.low:,} to {left.high:,} "
                f"(90 %), at most {left.share[2]:.1%} of all"
            )
        if page:
            parts.append(f"this page: about {expected:.1f} of {len(page)}")
        together = self.session.agreement()
        mine = together[(together[["first", "second"]] == self.session.reviewer).any(axis=1)]
        for row in mine[mine["n"] > 0].to_dict("records"):
            other = row["first" if row["second"] == self.session.reviewer else "second"]
            kappa = "not defined" if math.isnan(row["kappa"]) else f"{row['kappa']:.2f}"
            parts.append(f"κ with {other}: {kappa} on {row['n']}")
        return parts

    def __repr__(self) -> str:
        return f"<Review of {len(self.session.given):,} labels, {self.session.done:,} decided>"

    def _undo(self) -> dict[str, Any]:
        at = self.session.undo()
        if at is None:
            return {"do": "undone", "at": None}
        return {"do": "undone", "at": at, "card": self._cards.page([at])[0]}

    def _on_message(self, widget: Any, message: dict[str, Any], _: Any) -> None:
        """Answer the browser; what went wrong is shown there, and nothing is called saved."""
        try:
            answers = self.answer(message)
        except (StoreError, ValueError) as error:
            answers = [{"do": "failed", "seq": message.get("seq"), "why": str(error)}]
        for answer in answers:
            widget.send({**answer, "view": message.get("view")})

    def _ipython_display_(self) -> None:
        """Show the widget, and a still page as an output of its own for all other places.

        Where the widget lives, it hides the still page.
        """
        display = need("IPython.display", extra="labels").display
        if not in_batch():
            display(self.widget)
        page = self.session.page(self._size)
        state = " · ".join(map(escape, self.status(page)))
        html = f'<div id="{self._options["still"]}"><p>{state}</p>{self._cards.still(page)}</div>'
        display({"text/plain": repr(self), "text/html": html}, raw=True)


@lru_cache(maxsize=1)
def _widget_class() -> Any:
    anywidget = need("anywidget", extra="labels")
    traitlets = need("traitlets", extra="labels")
    here = files("workbench.labels")
    parts = {
        "__doc__": "The grid in the browser.",
        "_esm": here.joinpath("review.js").read_text(encoding="utf-8"),
        "_css": here.joinpath("review.css").read_text(encoding="utf-8"),
        "options": traitlets.Dict().tag(sync=True),
    }
    return type("ReviewWidget", (anywidget.AnyWidget,), parts)
