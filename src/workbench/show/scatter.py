"""The interactive map: a scatter plot to select in by lasso, look, tag and relabel."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from workbench._extras import need
from workbench._images import data_uri
from workbench._unattended import in_batch
from workbench.show.coloring import Color, Groups, Values, read_color
from workbench.show.maps import map as static_map
from workbench.show.samples import class_names
from workbench.show.selection import Selection
from workbench.show.style import UNLABELLED

_SHOWN = 56
_CELL = "text-align:left;padding:0 12px 0 0;line-height:1.4"


def img(uri: str, size: int = _SHOWN) -> str:
    """An ``img`` of fixed height whose pixels stay sharp when it is enlarged."""
    return (
        f'<img src="{uri}" style="height:{size}px;max-width:{2 * size}px;object-fit:contain;'
        'image-rendering:pixelated;display:block;margin:auto">'
    )


def gallery(uris: Iterable[str], captions: Iterable[str]) -> str:
    """Thumbnails side by side, each with a line below it and the same line on hovering."""
    figures = (
        f'<figure style="margin:0;width:{_SHOWN + 8}px" title="{escape(text)}">{img(uri)}'
        '<figcaption style="font-size:10px;line-height:1.2;text-align:center;overflow:hidden;'
        f'text-overflow:ellipsis;white-space:nowrap">{escape(text)}</figcaption></figure>'
        for uri, text in zip(uris, captions, strict=True)
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px">{"".join(figures)}</div>'


def chips(entries: Sequence[tuple[str, str]]) -> str:
    """A legend in one paragraph: (name, colour)."""
    # The white ring is for the dark colours on a dark theme.
    dot = "display:inline-block;width:10px;height:10px;border-radius:50%;border:1px solid white"
    return " ".join(
        '<span style="white-space:nowrap;margin-right:10px">'
        f'<span style="{dot};background:{color}"></span> {escape(name)}</span>'
        for name, color in entries
    )


def gradient(colors: Sequence[str]) -> str:
    """A bar of colours, the first one left."""
    return (
        '<span style="display:inline-block;width:160px;height:10px;'
        f'background:linear-gradient(to right,{",".join(colors)})"></span>'
    )


def table(frame: pd.DataFrame, most: int) -> str:
    """A folded table with the first `most` rows, and all of it as a CSV file to download."""
    csv = b64encode(frame.to_csv().encode()).decode("ascii")
    first = frame.iloc[:most].reset_index()
    rows = first.to_html(index=False, border=0, na_rep="", float_format="{:.2f}".format)
    rows = rows.replace("<th>", f'<th style="{_CELL}">').replace("<td>", f'<td style="{_CELL}">')
    listed = "" if len(frame) <= most else f", the first {most:,} of {len(frame):,}"
    return (
        f'<details><summary style="cursor:pointer">Table of ids{listed}</summary>'
        f'<a download="selection.csv" href="data:text/csv;base64,{csv}" '
        'style="text-decoration:underline">Download all of it as CSV</a>'
        f'<div style="max-height:220px;overflow:auto">{rows}</div></details>'
    )


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
        # ipywidgets 7, which Colab has, writes the options into the page as HTML
        old = widgets.__version__.startswith("7.")
        names = [escape(name) if old else name for name in scatter.classes]
        self.class_name = widgets.Combobox(
            placeholder="class", options=names, layout={"width": "120px"}
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
        data=frame,
        x="x",
        y="y",
        size=size,
        height=scatter.height,
        axes=False,
        background_color="white",
        x_scale=(middle[0] - reach, middle[0] + reach),
        y_scale=(middle[1] - reach, middle[1] + reach),
        # JupyterLab takes Shift and drag, which starts a lasso elsewhere, for selecting cells.
        mouse_mode="lasso",
        tooltip=True,
        tooltip_properties=["id", "class"],
        tooltip_histograms=False,
        **encoding,
    )


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


def scatter(
    ds: xr.Dataset,
    xy: xr.DataArray,
    color: Color = "label",
    *,
    title: str = "",
    height: int = 480,
    thumbnails: int = 60,
) -> Scatter:
    """An interactive map for JupyterLab, VS Code and Colab.

    Draw around points, and their images, their ids, and fields to tag and relabel them appear
    beside the map. Everything can be had from Python as well, as methods of what is returned. In
    batch runs a static picture stands in its place. Coloured by label, a point that is given
    another label takes its colour.

    Parameters
    ----------
    ds
        The image dataset.
    xy
        (sample, axis): what :func:`workbench.embeddings.project` returned for it.
    color
        As in :func:`workbench.show.map`.
    title
        Above the map.
    height
        Of the map, in pixels.
    thumbnails
        At most so many images of the selection are shown.

    Returns
    -------
    Scatter
        Shown by being a cell's last value.

    Raises
    ------
    MissingExtraError
        jupyter-scatter or ipywidgets is not installed.
    ValueError
        `xy` belongs to other samples than `ds`, or `color` is not known.

    Examples
    --------
    >>> seen = show.scatter(ds, xy)  # doctest: +SKIP
    >>> seen.select(ds.sample[outlier])  # doctest: +SKIP
    >>> seen.tag("odd"); seen.relabel("cat")  # doctest: +SKIP
    >>> fixed = ds.assign(label=seen.labels())  # doctest: +SKIP
    """
    if not in_batch():
        need("ipywidgets", extra="notebooks")
        need("jscatter", extra="notebooks")
    return Scatter(ds, xy, color, title=title, height=height, thumbnails=thumbnails)


class Scatter(Selection):
    """What :func:`scatter` returns: a selection, tags and corrections, and their widget."""

    def __init__(
        self,
        ds: xr.Dataset,
        xy: xr.DataArray,
        color: Color = "label",
        *,
        title: str = "",
        height: int = 480,
        thumbnails: int = 60,
    ) -> None:
        super().__init__(ds, xy)
        read_color(ds, color)
        self.color, self.title = color, title
        self.height, self.thumbnails = height, thumbnails
        self._panel: Panel | None = None

    @property
    def coloring(self) -> Groups | Values:
        """What colour every sample has; coloured by label, that of its corrected one."""
        return read_color(self.corrected(), self.color)

    @property
    def widget(self) -> Any:
        """The map, gallery and controls as one widget."""
        if self._panel is None:
            self._panel = Panel(self)
        return self._panel.box

    def figure(self) -> Figure:
        """The static map, with the selection ringed."""
        mark = None
        if len(self._chosen):
            mark = xr.DataArray(np.isin(np.arange(len(self.points)), self._chosen), dims="sample")
        return static_map(self.corrected(), self.xy, self.color, mark=mark, title=self.title)

    def __repr__(self) -> str:
        return f"<Scatter of {len(self.points):,} samples, {len(self._chosen):,} selected>"

    def _ipython_display_(self) -> None:
        """Show the widget, and the static map as an output of its own.

        A notebook that is opened again, or turned into a page, has no widget to show but the
        picture; where the widget lives, it hides the picture. Batch runs make no widget.
        """
        display = need("IPython.display", extra="notebooks").display
        buffer = BytesIO()
        self.figure().savefig(buffer, format="png")
        if not in_batch():
            display(self.widget)
        png = b64encode(buffer.getvalue()).decode("ascii")
        display({"text/plain": repr(self), "image/png": png}, raw=True)

    def _refresh(self, message: str = "") -> None:
        if self._panel is not None:
            self._panel.refresh(message)
