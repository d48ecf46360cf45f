"""How densely the points of a map lie."""

import numpy as np

from workbench._extras import need

_BINS = 256


def density(points: np.ndarray, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    """A smoothed two-dimensional histogram of a map, and where its cells are.

    Parameters
    ----------
    points
        float (sample, 2).
    smoothing
        The standard deviation of the Gaussian, as a share of the map's larger range.

    Returns
    -------
    tuple
        float64 (x, y): samples a cell; and the cells' edges, float64 (axis, edge). Cells are
        square, and reach beyond the points by three standard deviations.
    """
    ndimage = need("scipy.ndimage", extra="embeddings")
    low, high = points.min(axis=0), points.max(axis=0)
    span = float((high - low).max()) or 1.0
    reach = span * (0.5 + 3 * smoothing)
    middle = (low + high) / 2
    edges = np.linspace(middle - reach, middle + reach, _BINS + 1).T
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=[edges[0], edges[1]])[0]
    sigma = smoothing * span / (edges[0, 1] - edges[0, 0])
    smoothed: np.ndarray = ndimage.gaussian_filter(counts, sigma, mode="constant")
    return smoothed, edges


def cells_of(points: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, ...]:
    """The cells of :func:`density` that the points lie in, as an index of it."""
    return tuple(
        np.searchsorted(edge, along, "right") - 1
        for edge, along in zip(edges, points.T, strict=True)
    )
