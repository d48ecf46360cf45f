"""Review in a notebook: a grid of images with their labels, decided on with the keyboard."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._images import data_uri
from workbench._samples import same_samples
from workbench._widget import Panel
from workbench.datasets.errors import BadImageError
from workbench.datasets.images import content, decode
from workbench.labels.decisions import Where
from workbench.labels.probabilities import Source, load_probabilities
from workbench.labels.session import Session, Word

#: Longest side of an image and of a neighbour's, in pixels, as they go to the browser.
_IMAGE = 1024
_THUMBNAIL = 64
#: Up to this side an image is enlarged pixel by pixel, and goes as PNG.
_SMALL = 128
_NEIGHBORS = 8
#: A sample lonelier than this share of all is said to be unlike them.
_LONELY = 0.99
#: The keys that do something, as a reader writes them and as a browser calls them.
_KEYS = {"Space": " ", **{key: key for key in ("Enter", *"0123456789/uxd.ze+-fFn")}}


class Cards:
    """Makes the cards of samples, given by their positions.

    Parameters
    ----------
    session
        Whose samples they are.
    neighbors
        ``index`` (sample, neighbor): the graph that the neighbours are shown from.
    probabilities
        (sample, class): the likely classes are then offered first.
    """

    def __init__(
        self,
        session: Session,
        neighbors: xr.Dataset | None = None,
        probabilities: Source | None = None,
    ) -> None:
        self._session = session
        self._likely: NDArray[Any] | None = None
        if probabilities is not None:
            found = load_probabilities(probabilities, session.classes)
            found = same_samples(found, session.ds, ("the probabilities", "the dataset"))
            self._likely = np.argsort(-np.asarray(found.values), axis=1)[:, :12]
        self._near: NDArray[np.int64] | None = None
        if neighbors is not None:
            graph = same_samples(neighbors, session.ds, ("the graph", "the dataset"))
            self._near = graph["index"].values
        ids = session.ds["sample"].values
        self._issues = session.issues.reindex(pd.Index(ids))
        self._lonely = self._lonely_from()
        self._torn = self._torn_groups()

    def page(self, positions: list[int]) -> list[dict[str, Any]]:
        """The cards of a page, ready to be sent as JSON."""
        return [self._card(position) for position in positions]

    def neighbors(self, position: int) -> list[dict[str, str]]:
        """Image and given label of a sample's nearest neighbours."""
        if self._near is None:
            return []
        near = self._near[position, :_NEIGHBORS].tolist()
        uris = self._images(near, _THUMBNAIL)
        given = self._session.given
        return [
            {"image": u, "given": self._session.text(given[p])}
            for p, u in zip(near, uris, strict=True)
        ]

    def still(self, positions: list[int]) -> str:
        """A page as HTML for where there is no widget."""
        figures = "".join(map(_still, self.page(positions)))
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{figures}</div>'

    def held(self, position: int) -> dict[str, str] | None:
        """The decision that holds, as the card shows it."""
        held = self._session.held(position)
        if held is None:
            return None
        action, label = held
        return {
            "action": action,
            "name": "unclear" if action == "unclear" else self._session.text(label),
        }

    def _card(self, position: int) -> dict[str, Any]:
        session = self._session
        suggested = int(session.suggested[position])
        given = int(session.given[position])
        image = self._full(position)
        small = max(image.shape[:2]) <= _SMALL
        several = range(len(session.classes)) if session.several else ()
        return {
            "at": position,
            "sample": str(session.ids[position]),
            "image": data_uri(image, _IMAGE, "PNG" if small else "JPEG"),
            "small": small,
            "labels": [k for k in several if given >> k & 1],
            "likely": [] if self._likely is None else self._likely[position].tolist(),
            "given": self._session.text(session.given[position]),
            "suggested": self._session.text(suggested) if suggested >= 0 else "none",
            "score": round(float(session.queue.score[position]), 3),
            "why": self._why(position),
            "held": self.held(position),
        }

    def _why(self, position: int) -> list[str]:
        """In words, what speaks against the given label."""
        row, session = self._issues.iloc[position], self._session
        given = int(session.given[position])
        reasons = []
        if pd.notna(confidence := row.get("self_confidence")):
            reasons.append(f"model: {confidence:.0%} for {self._session.text(given)}")
        vote = row.get("neighbor_vote", -1)
        if pd.notna(vote) and vote >= 0:
            reasons.append(f"neighbours: {self._session.text(int(vote))}")
        if row.get("cleanlab_flag") is True or row.get("cleanlab_flag") is np.True_:
            reasons.append("cleanlab flags it")
        if row.get("duplicate_group", -1) in self._torn:
            reasons.append("a near-copy has another label")
        if row.get("ood_score", -np.inf) >= self._lonely:
            reasons.append("unlike all others")
        return reasons

    def _lonely_from(self) -> float:
        if "ood_score" not in self._issues or self._issues["ood_score"].isna().all():
            return np.inf
        return float(self._issues["ood_score"].quantile(_LONELY))

    def _torn_groups(self) -> set[int]:
        """Groups of near-duplicates whose labels differ."""
        if "duplicate_group" not in self._issues:
            return set()
        group = self._issues["duplicate_group"].fillna(-1).to_numpy(dtype=np.int64)
        kinds = pd.Series(self._session.given).groupby(group).nunique()
        return set(kinds.index[(kinds > 1) & (kinds.index >= 0)].tolist())

    def _full(self, position: int) -> NDArray[Any]:
        """The image as a person should see it: the whole file, where there is one.

        What the dataset holds may be a crop of 64 pixels.
        """
        ds = self._session.ds
        path = str(ds["path"].values[position]) if "path" in ds else ""
        if path:
            try:
                return decode(content(path, path), path)
            except BadImageError:  # moved or damaged since it was loaded
                pass
        return np.asarray(ds["image"].isel(sample=position).transpose("y", "x", "channel").values)

    def _images(self, positions: list[int], longest: int) -> list[str]:
        images = self._session.ds["image"].isel(sample=positions).values
        return [data_uri(image, longest) for image in images]


def _still(card: dict[str, Any]) -> str:
    """A card as HTML, its image described for those who cannot see it."""
    given, suggested = escape(card["given"]), escape(card["suggested"])
    return (
        f'<figure style="margin:0;width:150px"><img src="{card["image"]}" style="width:96px;'
        f'height:96px;object-fit:contain;image-rendering:pixelated" alt="sample '
        f'{escape(card["sample"])}, given as {given}"><figcaption style="font-size:12px">'
        f"given <b>{given}</b>, suggested <b>{suggested}</b><br>{escape('; '.join(card['why']))}"
        "</figcaption></figure>"
    )


def review(
    ds: xr.Dataset,
    issues: pd.DataFrame | None,
    store: Where = "review.db",
    rows: int = 2,
    columns: int = 3,
    *,
    reviewer: str | None = None,
    neighbors: xr.Dataset | None = None,
    probabilities: Source | None = None,
    audit: float = 0.2,
    keys: Mapping[str, str] | None = None,
    seed: int = 0,
) -> "Review":
    """Review suspected labels with the keyboard, in JupyterLab, VS Code or Colab.

    Images come a page at a time, worst first, with one in five drawn at random from all the rest,
    so that the errors left can be estimated without trusting the ranking. Every decision is on disk
    before the widget calls it saved. Calling this again goes on where the review stopped. In
    batch runs a still page stands in the widget's place; :func:`review_batch` decides there.

    ==================  ==================================================
    Space               the given label is right
    Enter               the suggested one is
    0 to 9              the class of that number; of more than ten, search
    /                   search for a class
    u                   unclear
    x                   no class fits
    d                   the image does not belong to this dataset: leave it out
    . (full stop)       the rest of the page is right, go on
    z or Backspace      undo
    arrows              go to another image
    e or double click   enlarge
    + and -             fewer and larger images, more and smaller ones; zoom where one is enlarged
    f and F             only images of this given label, of this pair; again: all
    n                   show the nearest neighbours
    ==================  ==================================================

    Parameters
    ----------
    ds
        An image dataset with ``label``, or ``labels`` (sample, class). Images that came from
        files are shown whole and as large as the files are.
    issues
        What :func:`find_issues` returned for it, or part of it; other samples come last. None
        for images that have no labels yet. For several labels an image, what
        :func:`find_multilabel_issues` returned; a number key then adds or removes a class, and
        Enter takes what is chosen.
    store
        The SQLite file of decisions. It is made where there is none, belongs to this dataset, and
        takes several reviewers at once.
    rows, columns
        Of a page.
    reviewer
        Whose decisions these are; by default the user's name on this system.
    neighbors
        The graph over features; the key n then shows the nearest neighbours.
    probabilities
        As :func:`find_issues` takes them; the search then offers the likely classes first.
    audit
        Share of images drawn at random until the flagged ones are through; half after that. Or,
        from 1 on, how many random ones come before all others: after 60, :func:`recut` knows a
        better cut. A few images are asked again, unannounced, to see how often answers differ.
    keys
        Your own keys: what each does, by its key above or by the name of a class, such as
        ``{"j": "Space", "k": "Enter", "c": "cat"}``.
    seed
        Of the draws; a store keeps the one that it was made with.

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
        `issues` or `neighbors` are of other samples, the dataset has no single labels, or a key
        stands for nothing.

    Examples
    --------
    >>> review(ds, issues, "review.db", neighbors=graph)  # doctest: +SKIP
    >>> fixed = apply_decisions(ds, "review.db")  # doctest: +SKIP
    """
    if min(rows, columns) < 1:
        raise ValueError(f"a page of {rows} rows and {columns} columns holds no image")
    session = Session(ds, issues, store, reviewer, audit, seed)
    cards = Cards(session, neighbors, probabilities)
    return Review(session, cards, (rows, columns), own_keys(keys or {}, session.classes))


def own_keys(keys: Mapping[str, str], classes: Sequence[str]) -> dict[str, str | int]:
    """What the reader's own keys do: a key of the table, or a class by its number.

    Examples
    --------
    >>> own_keys({"j": "Space", "c": "cat"}, ["ant", "cat"])
    {'j': ' ', 'c': 1}
    """
    found: dict[str, str | int] = {}
    for key, does in keys.items():
        pressed = _KEYS.get(key, key)
        if does in classes:
            found[pressed] = list(classes).index(does)
        elif does in _KEYS:
            found[pressed] = _KEYS[does]
        else:
            raise ValueError(
                f"keys: {key!r} is to do {does!r}, which is no class and none of the keys "
                f"{' '.join(_KEYS)}"
            )
    return found


class Review(Panel):
    """What :func:`review` returns: the session, and its widget."""

    front = (("workbench.labels", "review.js"),)

    def __init__(
        self,
        session: Session,
        cards: Cards,
        shape: tuple[int, int],
        keys: Mapping[str, str | int] | None = None,
    ) -> None:
        self.session = session
        self._cards = cards
        self._size = shape[0] * shape[1]
        super().__init__(
            rows=shape[0],
            columns=shape[1],
            classes=session.classes,
            several=session.several,
            reviewer=session.reviewer,
            keys=dict(keys or {}),
            neighbors=cards.neighbors(0) != [] if len(session.given) else False,
        )

    def answer(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """What is sent to the browser for a message from it."""
        kind = message.get("do")
        if kind == "open":
            self.session.only = message.get("only")
            first = self.session.page(self._size)
            second = self.session.page(self._size, skip=first)
            return [{"do": "pages", "pages": [self._cards.page(first), self._cards.page(second)]}]
        if kind == "page":
            page = self.session.page(self._size, skip=message["skip"])
            return [{"do": "page", "cards": self._cards.page(page)}]
        if kind == "decide":
            answers = message["answers"].items()
            self.session.decide(
                {int(at): Word(a) if isinstance(a, str) else a for at, a in answers}
            )
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
            parts.append(
                f"wrong labels left: too early to say, {left.low:,} to {left.high:,} (90 %); the "
                f"ranking alone expects {self.session.expected():,.0f}"
            )
        else:
            parts.append(
                f"about {left.estimate:,.0f} wrong labels left, {left.low:,} to {left.high:,} "
                f"(90 %), at most {left.share[2]:.1%} of all"
            )
        ahead = [
            f"≤ {target:.0%}: " + (f"{count:,}" if count is not None else "over 5,000")
            for target, count in self.session.ahead().items()
            if count != 0
        ]
        if ahead and left.unreviewed:
            parts.append(f"decisions still to go: {', '.join(ahead)}")
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

    def still(self) -> tuple[list[str], str]:
        """The next page, for where there is no widget."""
        page = self.session.page(self._size)
        return self.status(page), self._cards.still(page)
