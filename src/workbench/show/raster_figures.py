"""Regions drawn over a raster."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from workbench.show.style import OTHERS, PALETTE, finish, styled

#: With more regions than this their density is drawn.
_MOST_BOXES = 3000
#: Spots along the longer side: at most these, and so few that they hold some regions each.
_DENSITY_BINS, _REGIONS_A_SPOT = 96, 4


def regions_over(
    picture: NDArray[Any] | None,
    boxes: ArrayLike,
    size: tuple[int, int],
    text: str,
    *,
    labels: Sequence[str] | None = None,
    title: str = "Where the regions lie",
) -> Figure:
    """Boxes drawn over a small picture of the raster they belong to.

    Parameters
    ----------
    picture
        (y, x) or (y, x, 3), of the whole raster at any resolution; None leaves it blank.
    boxes
        (region, 4): column, row, width, height in the raster's pixels. More than 3,000 are drawn
        as the number of regions on each spot.
    size
        The raster's height and width in pixels.
    text
        The caption.
    labels
        One a region: their colours. With more than nine different ones, the rarest share grey.
    title
        Above the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        There are no boxes.

    Examples
    --------
    >>> figure = regions_over(np.zeros((4, 4)), [[0, 0, 10, 10]], (40, 40), "n = 1")
    """
    places = np.asarray(boxes, float)
    if not len(places):
        raise ValueError("there are no boxes to draw")
    height, width = size
    with styled():
        wide = 6.0 if height > width else 7.0
        shape = (wide, min(9.0, max(3.0, wide * height / width)) + 0.6)
        fig, ax = plt.subplots(figsize=shape, layout="compressed")
        if picture is not None:
            ax.imshow(
                picture, extent=(0, width, height, 0), cmap="gray", interpolation="antialiased"
            )
        if len(places) > _MOST_BOXES:
            _density(ax, places, size)
        else:
            _outlines(ax, places, labels)
        margin = 0.05 * max(size)  # regions far outside must not make the raster small
        ax.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))
        ax.set_aspect("equal")
        ax.plot([0, width, width, 0, 0], [0, 0, height, height, 0], color=OTHERS, lw=0.8)
        ax.set(xlabel="column (pixels)", ylabel="row (pixels)", title=title)
        finish(fig, text)
        _close_gap(fig, ax)
        return fig


def _close_gap(fig: Figure, ax: Any) -> None:
    """Take the height that a legend beside the axes has left empty above and below them."""
    fig.draw_without_rendering()
    height, box = fig.get_figheight(), ax.get_tightbbox()
    caption, margin = 0.3, 0.1  # inches
    empty = box.y0 / fig.dpi - caption, height - box.y1 / fig.dpi - margin
    fig.set_figheight(height - sum(max(0.0, gap) for gap in empty))


def _outlines(ax: Any, places: NDArray[np.float64], labels: Sequence[str] | None) -> None:
    col, row, width, height = places.T
    x = np.stack([col, col + width, col + width, col, col], axis=1)
    y = np.stack([row, row, row + height, row + height, row], axis=1)
    colors: Any = PALETTE[0]
    if labels is not None:
        names, counts = np.unique(np.asarray(labels, str), return_counts=True)
        often = names[np.argsort(-counts, kind="stable")][: len(PALETTE) - 1].tolist()
        color = dict(zip(sorted(often), PALETTE, strict=False))
        colors = [color.get(str(label), OTHERS) for label in labels]
        keys = [Line2D([], [], color=shade, label=name) for name, shade in color.items()]
        if len(names) > len(often):
            keys.append(Line2D([], [], color=OTHERS, label="others"))
        ax.legend(handles=keys, loc="upper left", bbox_to_anchor=(1, 1))
    ax.add_collection(LineCollection(list(np.stack([x, y], axis=2)), colors=colors, lw=0.9))


def _density(ax: Any, places: NDArray[np.float64], size: tuple[int, int]) -> None:
    height, width = size
    x, y = places[:, 0] + places[:, 2] / 2, places[:, 1] + places[:, 3] / 2
    bins = min(_DENSITY_BINS, (len(x) / _REGIONS_A_SPOT) ** 0.5)
    across = max(1, round(bins * min(1, width / height)))
    down = max(1, round(bins * min(1, height / width)))
    counts, _, _ = np.histogram2d(y, x, bins=(down, across), range=((0, height), (0, width)))
    # of one colour, the more opaque the more regions: the raster stays to be seen under few
    ramp = LinearSegmentedColormap.from_list(
        "few to many", [(0.6, 0, 0.5, 0), (0.35, 0, 0.4, 0.85)]
    )
    drawn = ax.imshow(counts, extent=(0, width, height, 0), cmap=ramp, vmin=0)
    side = f"{width / across:,.0f} × {height / down:,.0f}"
    label, whole = f"regions on {side} pixels", MaxNLocator(integer=True)
    ax.figure.colorbar(drawn, ax=ax, shrink=0.7, label=label, ticks=whole)
