"""The axes that maps are drawn in: one alone, or several side by side."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.show.coloring import Groups, Values
from workbench.show.drawing import draw_points, name_clusters

#: Inches that a panel takes, and about how many typographic points wide the map in it is.
_PANEL = 3.3
_PANEL_ACROSS = 200
_MAP_ACROSS = 480


def draw_map(
    fig: Figure,
    ax: Axes,
    points: np.ndarray,
    coloring: Groups | Values,
    *,
    named: bool,
    alone: bool = False,
) -> None:
    """Draw one map: alone, with its colour bar, or as one of several panels."""
    across = _MAP_ACROSS if alone else _PANEL_ACROSS
    drawn = draw_points(ax, points, coloring, across)
    if alone and drawn is not None and isinstance(coloring, Values):
        fig.colorbar(drawn, ax=ax, label=coloring.title, shrink=0.6)
    if named and isinstance(coloring, Groups):
        name_clusters(ax, points, coloring, across)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_aspect("equal")
    if not alone:
        _make_square(ax, points)


def _make_square(ax: Axes, points: np.ndarray) -> None:
    """Show a square of the plane, so that panels beside each other are of one size."""
    low, high = points.min(axis=0), points.max(axis=0)
    reach = 0.54 * (float((high - low).max()) or 1.0)
    x, y = (low + high) / 2
    ax.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))


def grid(n: int, columns: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with `n` panels and no empty axes."""
    if n == 0:
        raise ValueError("there is nothing to show: no map was given")
    columns = min(columns, n)
    rows = -(-n // columns)
    fig, axes = plt.subplots(rows, columns, squeeze=False, layout="constrained",
                             figsize=(_PANEL * columns + 1.2, _PANEL * rows + 0.6))  # fmt: skip
    for ax in axes.flat[n:]:
        ax.remove()
    fig.suptitle(title, x=0.01, ha="left")
    return fig, list(axes.flat[:n])
