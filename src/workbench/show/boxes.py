"""Boxes on a plane or over an image: detections before and after they are merged."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from workbench.show.style import OTHERS, colors, finish, styled


def merged_boxes(
    cases: Mapping[str, tuple[ArrayLike, Mapping[str, ArrayLike]]],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Small drawings, a row a case: the boxes that went in, and what each way made of them.

    Parameters
    ----------
    cases
        Name of a case to its boxes (box, 4), ``x_min, y_min, x_max, y_max``, and name of a way to
        the boxes that came out. The ways are the same in every case.
    title, caption
        Above and below the figure.

    Raises
    ------
    ValueError
        There is no case.

    Examples
    --------
    >>> one = [[0, 0, 4, 4]]
    >>> figure = merged_boxes({"alone": (one, {"merged": one})})
    """
    if not cases:
        raise ValueError("there is nothing to show: no case was given")
    ways = ["found", *next(iter(cases.values()))[1]]
    with styled():
        fig, axes = plt.subplots(
            len(ways), len(cases), squeeze=False, layout="constrained",
            figsize=(2.1 * len(cases) + 0.6, 1.7 * len(ways) + 0.6),
        )  # fmt: skip
        for column, (name, (boxes, results)) in enumerate(cases.items()):
            axes[0, column].set_title(name, fontsize=9, loc="center")
            for row, found in enumerate([boxes, *results.values()]):
                _panel(axes[row, column], np.asarray(boxes), np.asarray(found), inside=row == 0)
        for row, way in enumerate(ways):
            axes[row, 0].set_ylabel(way, fontsize=9)
        fig.suptitle(title, x=0.01, ha="left")
        return finish(fig, caption)


def _panel(ax: Axes, before: np.ndarray, after: np.ndarray, *, inside: bool) -> None:
    """The boxes that came out in colour, over those that went in, in grey."""
    for x0, y0, x1, y1 in before:
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=OTHERS, ls=":"))
    shades: Sequence[str] = colors(len(after))
    for (x0, y0, x1, y1), color in zip(after, shades, strict=True):
        ax.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=f"{color}22", edgecolor=color, lw=1.6)
        )
    low, high = before[:, :2].min(axis=0), before[:, 2:].max(axis=0)
    x, y = (low + high) / 2
    # a square, so that all panels are of one size
    reach = 0.58 * float((high - low).max())
    ax.set(xlim=(x - reach, x + reach), ylim=(y + reach, y - reach))
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    if not inside:
        ax.set_xlabel(f"{len(after)} left", fontsize=8)
