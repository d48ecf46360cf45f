"""How shapes cover pixels: values burned into them, and the exact share of each pixel."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio import features

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Pixels of the boxes whose shares are found in one go.
_RUN = 2**18


def burned(
    shapes: Sequence[tuple[Any, Any]],
    box: Sequence[float],
    shape: tuple[int, int],
    dtype: str,
    fill: float = 0,
    all_touched: bool = False,
) -> NDArray[Any]:
    """Values of geometries, each after the one before, at the pixels (height, width) of a box.

    Geometries and box (column, row, width, height) are in the raster's pixels.
    """
    if not shapes:
        return np.full(shape, fill, dtype)
    col, row, width, height = box
    transform = rasterio.Affine(width / shape[1], 0, col, 0, height / shape[0], row)
    values: NDArray[Any] = features.rasterize(
        shapes, shape, fill=fill, transform=transform, all_touched=all_touched, dtype=dtype
    )
    return values


def shares(polygons: Sequence[Any], boxes: Ints) -> Iterator[Floats]:
    """Yield for each polygon the share of each pixel of its box that it covers, 0 to 1, exactly.

    The area under each edge is summed within the pixels that it passes through, and then along the
    rows: Green's theorem, as fonts are drawn with it.

    Examples
    --------
    >>> next(shares([shapely.box(0.5, 0, 2, 1)], np.array([[0, 0, 3, 1]]))).tolist()
    [[0.5, 1.0, 0.0]]
    """
    sizes = boxes[:, 2] * boxes[:, 3]
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _RUN)) + 1
    shapes = np.asarray(polygons, object)
    for part in np.split(np.arange(len(boxes)), cuts):
        yield from _shares(shapes[part], boxes[part])


def _shares(shapes: NDArray[Any], boxes: Ints) -> Iterator[Floats]:
    shapes = np.where(shapely.is_valid(shapes), shapes, shapely.make_valid(shapes))
    parts, of_shape = shapely.get_parts(shapely.normalize(shapes), return_index=True)
    rings, of_part = shapely.get_rings(parts, return_index=True)
    xy, of_ring = shapely.get_coordinates(rings, return_index=True)
    edge = np.flatnonzero(of_ring[1:] == of_ring[:-1])
    start, stop, owner = _split(xy[edge], xy[edge + 1], of_shape[of_part[of_ring[edge]]])
    col, row, width, height = boxes[owner].T
    middle = (start + stop) / 2
    column = np.clip(np.floor(middle[:, 0]).astype(np.int64) - col, 0, width)
    line = np.clip(np.floor(middle[:, 1]).astype(np.int64) - row, 0, height - 1)
    down = np.clip(stop[:, 1] - row, 0, height) - np.clip(start[:, 1] - row, 0, height)
    right = np.clip(column + 1 - np.clip(middle[:, 0] - col, 0, width), 0, 1)
    down[column == width] = 0
    # one column more, for what lies to the right of the last pixel
    first = np.append(0, np.cumsum((boxes[:, 2] + 1) * boxes[:, 3]))
    at = first[owner] + line * (width + 1) + column
    area = np.bincount(at, down * right, first[-1] + 1)
    area += np.bincount(at + 1, down * (1 - right), first[-1] + 1)
    for i, (_, _, wide, high) in enumerate(boxes.tolist()):
        own = area[first[i] : first[i + 1]].reshape(high, wide + 1).cumsum(axis=1)
        yield np.clip(own[:, :wide], 0, 1)


def _split(start: Floats, stop: Floats, owner: Ints) -> tuple[Floats, Floats, Ints]:
    """Cut edges where they pass from one pixel to another."""
    number = np.arange(len(start))
    edges = [number, number]
    times = [np.zeros(len(start)), np.ones(len(start))]
    for axis in (0, 1):
        low = np.floor(np.minimum(start[:, axis], stop[:, axis])) + 1
        count = (np.ceil(np.maximum(start[:, axis], stop[:, axis])) - low).clip(0).astype(np.int64)
        edge = np.repeat(number, count)
        line = low[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        edges.append(edge)
        times.append((line - start[edge, axis]) / (stop[edge, axis] - start[edge, axis]))
    edge, time = np.concatenate(edges), np.concatenate(times)
    order = np.lexsort((time, edge))
    edge, time = edge[order], time[order]
    points = start[edge] + time[:, None] * (stop - start)[edge]
    same = np.flatnonzero(edge[1:] == edge[:-1])
    return points[same], points[same + 1], owner[edge[same]]
