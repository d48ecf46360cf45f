"""What many points look like together: one picture of them, and contours of their density."""

import numpy as np
from matplotlib.axes import Axes

from workbench._density import cells_of, density

#: A contour holds this share of the samples.
_SHARES = (0.9, 0.5, 0.1)
_SMOOTHING = 0.02


def lay_picture(ax: Axes, points: np.ndarray, shades: np.ndarray, across: float) -> None:
    """Draw points as one picture: a pixel has their mean colour, and is denser for more of them.

    Parameters
    ----------
    points
        float (sample, 2).
    shades
        float (sample, rgba).
    across
        Typographic points across; the picture has twice as many pixels.
    """
    low = points.min(axis=0)
    step = (float(np.ptp(points, axis=0).max()) or 1.0) / (2 * across)
    places = ((points - low) / step).astype(np.int64)
    width, height = places.max(axis=0) + 1
    cells = places[:, 1] * width + places[:, 0]
    counts = np.bincount(cells, minlength=width * height)
    picture = np.zeros((width * height, 4))
    for channel in range(3):
        total = np.bincount(cells, shades[:, channel], width * height)
        picture[:, channel] = total / np.maximum(counts, 1)
    # Never fainter than this: a lone point is to be seen too.
    opacity = np.minimum(counts / np.quantile(counts[counts > 0], 0.95), 1)
    picture[:, 3] = np.where(counts > 0, 0.35 + 0.65 * opacity, 0)
    extent = (low[0], low[0] + width * step, low[1], low[1] + height * step)
    ax.imshow(
        picture.reshape(height, width, 4), origin="lower", extent=extent, interpolation="nearest"
    )


def draw_contours(ax: Axes, points: np.ndarray) -> None:
    """Lines around the densest places that hold a tenth, half and nine tenths of the samples."""
    height, edges = density(points, _SMOOTHING)
    levels = np.unique(np.quantile(height[cells_of(points, edges)], 1 - np.array(_SHARES)))
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    ax.contour(*middles, height.T, levels=levels, colors="black", linewidths=0.7, zorder=3)
