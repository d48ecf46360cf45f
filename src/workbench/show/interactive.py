"""The interactive map: select with a lasso, look, tag, relabel."""

from base64 import b64encode
from io import BytesIO
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from workbench._extras import need
from workbench._unattended import in_batch
from workbench.show.coloring import Color, Groups, Values, read_color
from workbench.show.maps import map as static_map
from workbench.show.panel import Panel
from workbench.show.selecting import Selection


def scatter(
    ds: xr.Dataset,
    xy: xr.DataArray,
    color: Color = "label",
    *,
    title: str = "",
    height: int = 480,
    thumbnails: int = 60,
) -> "Scatter":
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
