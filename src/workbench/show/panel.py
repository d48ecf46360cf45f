"""The widget of the interactive map: canvas, gallery, table and controls."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from workbench._extras import need
from workbench._pictures import data_uri
from workbench.show.coloring import Groups
from workbench.show.plots import class_names
from workbench.show.style import UNLABELLED
from workbench.show.thumbnails import chips, gallery, gradient, img, table

if TYPE_CHECKING:
    from workbench.show.interactive import Scatter

_HINT = (
    "Draw around points to select them; point at one to see it. The wheel zooms, and the cross "
    "in the toolbar is for moving the map."
)
#: Where the widget lives, the picture that is shown after it for all other places is not needed.
_LIVE = "workbench-live"
_HIDE_STILL = (
    f"<style>.jp-OutputArea-child:has(.{_LIVE}) + .jp-OutputArea-child:has(img)"
    "{display:none}</style>"
)
#: Larger images are reduced to so many pixels before they are sent to the browser.
_LONGEST = 96
#: More rows than this make the page slow; the CSV has them all.
_MOST_ROWS = 200
#: Pixels of the image pointed at.
_POINTED = 88
#: Pixels beside the canvas that jupyter-scatter's buttons take.
_TOOLBAR = 40
#: Pixels of all that is beside the map but for the gallery.
_OTHERS = 190


class Panel:
    """The widgets, and what happens when one of them is used."""

    def __init__(self, scatter: Scatter) -> None:
        self._scatter = scatter
        widgets = need("ipywidgets", extra="notebooks")
        self._frame = pd.DataFrame(scatter.points, columns=["x", "y"])
        self._plot = _canvas(scatter, self._frame)
        self._painted = dict(scatter.corrections)
        self._uri = lru_cache(maxsize=4096)(self._read_uri)
        parts = (widgets.HTML() for _ in range(5))
        self._heading, self._pointed, self.status, self.gallery, self._table = parts
        self._heading.value = self._legend()
        self.gallery.layout = {
            "max_height": f"{max(scatter.height - _OTHERS, 150)}px",
            "overflow": "auto",
        }
        self._pointed.layout = {"height": f"{_POINTED + 12}px"}
        self.tag_name = widgets.Text(placeholder="tag", layout={"width": "120px"})
        self.class_name = widgets.Combobox(
            placeholder="class", options=scatter.classes, layout={"width": "120px"}
        )
        self.box = self._halves(widgets).add_class(_LIVE)
        self._plot.widget.observe(self._on_lasso, names="selection")
        self._plot.widget.observe(self._on_hover, names="hovering")
        self.refresh()
        self._on_hover({"new": None})

    def refresh(self, message: str = "") -> None:
        """Show the scatter's state, and say what was done."""
        chosen = self._scatter.positions
        if self._scatter.corrections != self._painted:
            self._repaint()
        if not np.array_equal(np.sort(self._plot.selection()), chosen):
            self._plot.selection(chosen)
        shown = chosen[: self._scatter.thumbnails]
        frame = self._scatter.to_frame()
        more = f" · {len(shown)} of {len(chosen):,} shown" if len(shown) < len(chosen) else ""
        said = f" · {escape(message)}" if message else ""
        self.status.value = f"<b>{len(chosen):,} selected</b>{more}{said}"
        self.gallery.value = gallery(self._uris(shown), [self._scatter.describe(i) for i in shown])
        self._table.value = table(frame, _MOST_ROWS) if len(chosen) else ""

    def _halves(self, widgets: Any) -> Any:
        """The map, and beside it the rest, which goes below where there is no room for both.

        In a canvas narrower than it is high, points would lie beyond the edges.
        """
        side = [self._pointed, self._controls(widgets), self.status, self.gallery, self._table]
        left = {"flex": f"3 1 {self._scatter.height + _TOOLBAR}px"}
        right = {"flex": "2 1 250px", "padding": "0 0 0 12px"}
        halves = [
            widgets.VBox([self._heading, self._plot.show()], layout=left),
            widgets.VBox(side, layout=right),
        ]
        return widgets.HBox(halves, layout={"width": "100%", "flex_flow": "row wrap"})

    def _controls(self, widgets: Any) -> Any:
        """Fields and buttons, each with its call."""
        scatter = self._scatter
        tag = self._button(widgets, "Tag", lambda: scatter.tag(self.tag_name.value))
        relabel = self._button(widgets, "Relabel", lambda: scatter.relabel(self.class_name.value))
        undo = self._button(widgets, "Undo", scatter.undo)
        clear = self._button(widgets, "Clear", lambda: scatter.select([]))
        rows = [[self.tag_name, tag], [self.class_name, relabel], [undo, clear]]
        if not scatter.classes:
            del rows[1]
        self.buttons = {"tag": tag, "relabel": relabel, "undo": undo, "clear": clear}
        return widgets.HBox([widgets.HBox(row) for row in rows], layout={"flex_flow": "row wrap"})

    def _button(self, widgets: Any, text: str, call: Callable[[], None]) -> Any:
        """A button that says in the status line why its call is not possible."""

        def clicked(_: Any) -> None:
            try:
                call()
            except ValueError as error:
                self.refresh(str(error))

        button = widgets.Button(description=text, layout={"width": "80px"})
        button.on_click(clicked)
        return button

    def _repaint(self) -> None:
        """Give the points the colours of their corrected labels, where they are coloured by it."""
        self._painted = dict(self._scatter.corrections)
        self._plot.color(**_encoding(self._scatter, self._frame))
        self._heading.value = self._legend()

    def _legend(self) -> str:
        """Title and legend as HTML; inside the canvas they would cover points."""
        title = f"<b>{escape(self._scatter.title)}</b><br>" if self._scatter.title else ""
        coloring = self._scatter.coloring
        legend = chips([(group.name, group.color) for group in coloring.groups if group.name])
        if not isinstance(coloring, Groups):
            low, high, _ = coloring.extent()
            legend = f"{low:.3g} {gradient(_ramp(32)[1:])} {high:.3g} &emsp;{legend}"
        return f"{_HIDE_STILL}{title}{escape(coloring.title)} {legend}"

    def _on_lasso(self, change: Any) -> None:
        new = np.sort(np.asarray(change["new"] if change["new"] is not None else [], dtype=np.intp))
        if not np.array_equal(new, self._scatter.positions):
            self._scatter.choose(new)

    def _on_hover(self, change: Any) -> None:
        at = change["new"]
        if at is None:
            self._pointed.value = f'<div style="opacity:.8;line-height:1.4">{_HINT}</div>'
            return
        text = escape(self._scatter.describe(int(at)))
        self._pointed.value = (
            f'<div style="display:flex;gap:10px;align-items:center"><div>'
            f"{img(self._uri(int(at)), _POINTED)}</div><div>{text}</div></div>"
        )

    def _uris(self, positions: np.ndarray) -> list[str]:
        images = self._scatter.ds["image"].isel(sample=positions).values
        return [data_uri(image, _LONGEST) for image in images]

    def _read_uri(self, position: int) -> str:
        return self._uris(np.array([position]))[0]


def _canvas(scatter: Scatter, frame: pd.DataFrame) -> Any:
    """The jupyter-scatter plot, both axes to one scale; `frame` is what it goes on reading."""
    jscatter = need("jscatter", extra="notebooks")
    low, high = scatter.points.min(axis=0), scatter.points.max(axis=0)
    reach = 0.52 * (float((high - low).max()) or 1.0)
    middle = (low + high) / 2
    frame["id"] = scatter.ds["sample"].values.astype(str)
    encoding = {f"color_{key}": value for key, value in _encoding(scatter, frame).items()}
    size = float(np.clip(250 / len(frame) ** 0.5, 2, 10))
    return jscatter.Scatter(
        data=frame, x="x", y="y", size=size, height=scatter.height, axes=False,
        background_color="white",
        x_scale=(middle[0] - reach, middle[0] + reach),
        y_scale=(middle[1] - reach, middle[1] + reach),
        # JupyterLab takes Shift and drag, which starts a lasso elsewhere, for selecting cells.
        mouse_mode="lasso",
        tooltip=True, tooltip_properties=["id", "class"], tooltip_histograms=False,
        **encoding,
    )  # fmt: skip


def _encoding(scatter: Scatter, frame: pd.DataFrame) -> dict[str, Any]:
    """Colours for jupyter-scatter; `frame` gets the column that they go by, and the classes."""
    frame["class"] = class_names(scatter.corrected())
    coloring = scatter.coloring
    if isinstance(coloring, Groups):
        codes = np.empty(len(frame), dtype=np.int64)
        for number, group in enumerate(coloring.groups):
            codes[group.members] = number
        palette = {str(i): group.color for i, group in enumerate(coloring.groups)}
        frame["group"] = pd.Categorical.from_codes(codes, pd.Index(list(palette)))
        return {"by": "group", "map": palette}
    low, high, known = coloring.extent()
    # The lowest colour is for what has no value, and no value is that low.
    step = ((high - low) or 1.0) / 255
    frame["value"] = np.where(known, coloring.values, low - step)
    return {"by": "value", "map": _ramp(255), "norm": (low - step, high)}


def _ramp(n: int) -> list[str]:
    """Grey for no value, then `n` colours from low to high."""
    return [UNLABELLED, *map(to_hex, colormaps["cividis"](np.linspace(0, 1, n)))]
