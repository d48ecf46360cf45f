"""The order in which regions are read, and the groups in which they are read and written.

A raster is seen as a grid of *cells*: its blocks, or several small blocks together. Regions are
sorted by the cell in which they end, cells by the square of cells that they lie in, so that
neighbours in this order share cells. A group is a run of so many regions, and so the unit of work:
one thread, one dask task, one shard.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.rasters.georeference import Raster

Ints = NDArray[np.int64]
#: Of the least width that holds them: there are one or two for each region.
Counts = NDArray[np.signedinteger[Any]]
#: Regions to look at in one go: what is found on the way takes some 200 bytes for each.
_RUN = 2**16
#: Cells have at least so many pixels a side, where blocks are smaller.
_CELL_SIDE = 256
#: Shares of the memory budget: one group's chips, a square of cells, the blocks that one group
#: decodes, one cell, and the largest chip that is not cut into pieces.
_CHIPS, _SQUARE, _DECODED, _CELL, _PIECE = 64, 32, 8, 32, 8


@dataclass(frozen=True)
class Grid:
    """A raster's cells: ``cell`` is their (height, width), ``block`` that of its blocks."""

    height: int
    width: int
    block: tuple[int, int]
    cell: tuple[int, int]

    @property
    def columns(self) -> int:
        """Cells in a row."""
        return -(-self.width // self.cell[1])

    def origin(self, cell: int) -> tuple[int, int]:
        """First pixel (row, column) of a cell, given by its number."""
        row, column = divmod(cell, self.columns)
        return row * self.cell[0], column * self.cell[1]

    def shape(self, cell: int) -> tuple[int, int]:
        """Size of a cell; those at the raster's right and lower edge are cut off."""
        row, column = self.origin(cell)
        return min(self.cell[0], self.height - row), min(self.cell[1], self.width - column)


def make_grid(header: Raster, pixel_bytes: int, memory: int) -> Grid:
    """Join blocks to cells: at least 256 pixels a side, within a share of the memory."""
    sides = [min(side, whole) for side, whole in zip(header.block, _size(header), strict=True)]
    joined = [min(-(-_CELL_SIDE // side) * side, _up(whole, side))
              for side, whole in zip(sides, _size(header), strict=True)]  # fmt: skip
    while joined[0] > sides[0] and joined[0] * joined[1] * pixel_bytes > memory // _CELL:
        joined[0] = max(sides[0], joined[0] // 2 // sides[0] * sides[0])
    return Grid(header.height, header.width, (sides[0], sides[1]), (joined[0], joined[1]))


def _size(header: Raster) -> tuple[int, int]:
    return header.height, header.width


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


@dataclass(frozen=True)
class Layout:
    """Regions in read order.

    Only what cannot be found again is kept for each region: there may be very many.

    Attributes
    ----------
    boxes
        (region, 4) in the table's order: column, row, width and height.
    order
        Position in the table of each region, in read order.
    size
        Regions in a group; the last may have fewer.
    """

    grid: Grid
    boxes: Ints
    order: Ints
    size: int

    @property
    def groups(self) -> int:
        """Number of groups."""
        return -(-len(self.order) // self.size)

    def members(self, group: int) -> slice:
        """Read positions of a group's regions."""
        return slice(group * self.size, min((group + 1) * self.size, len(self.order)))

    def inside(self, positions: slice | Ints) -> Ints:
        """What lies in the raster of regions given by read positions; see `clipped`."""
        return clipped(self.boxes[self.order[positions]], self.grid.height, self.grid.width)

    def pairs(self, start: int, stop: int) -> tuple[Counts, Counts]:
        """Read position and cell of each (region, cell) that touch, for a run of regions."""
        parts = [self._pairs(first, min(first + _RUN, stop)) for first in range(start, stop, _RUN)]
        if not parts:
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        return np.concatenate([part[0] for part in parts]), np.concatenate([p[1] for p in parts])

    def _pairs(self, start: int, stop: int) -> tuple[Counts, Counts]:
        cells = _touched(self.inside(slice(start, stop)), self.grid.cell)
        across = cells[:, 3] - cells[:, 2]
        counts = (cells[:, 1] - cells[:, 0]) * across
        position = np.repeat(np.arange(start, stop), counts)
        within = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
        wide = np.maximum(np.repeat(across, counts), 1)
        row = np.repeat(cells[:, 0], counts) + within // wide
        column = np.repeat(cells[:, 2], counts) + within % wide
        return position.astype(np.int32), self._number(row * self.grid.columns + column)

    def _number(self, cell: Ints) -> Counts:
        down = -(-self.grid.height // self.grid.cell[0])
        return cell if down * self.grid.columns > 2**31 else cell.astype(np.int32)


def make_layout(grid: Grid, boxes: Ints, chip_bytes: int, pixel_bytes: int, memory: int) -> Layout:
    """Sort the regions and decide how many make a group.

    Parameters
    ----------
    grid
        The raster's cells.
    boxes
        (region, 4): column, row, width and height, in the table's order.
    chip_bytes, pixel_bytes
        Of one chip, and of one pixel with all its bands.
    memory
        The budget in bytes.
    """
    cell_bytes = grid.cell[0] * grid.cell[1] * pixel_bytes
    key = _keys(grid, boxes, max(1, int((memory / _SQUARE / cell_bytes) ** 0.5)))
    order = np.argsort(key, kind="stable")
    distinct = 1 + int(np.count_nonzero(np.diff(key[order])))
    decoded = distinct * cell_bytes / len(boxes)
    # groups much smaller than a cell would all share it
    chips = max(memory // _CHIPS, min(cell_bytes, memory // _CHIPS * 4))
    size = min(chips // max(1, chip_bytes), int(memory / _DECODED / max(decoded, 1)))
    size = size // 64 * 64 if size > 64 else max(1, size)  # so that chunks can divide a shard
    return Layout(grid, boxes, order, size)


def _keys(grid: Grid, boxes: Ints, side: int) -> Ints:
    """Sort by these: squares of cells, then the cells in them, each row by row."""
    keys, squares = np.empty(len(boxes), np.int64), -(-grid.columns // side)
    for start in range(0, len(boxes), _RUN):
        run = slice(start, start + _RUN)
        cells = _touched(clipped(boxes[run], grid.height, grid.width), grid.cell)
        row, column = cells[:, 1] - 1, cells[:, 3] - 1
        square = (row // side) * squares + column // side
        keys[run] = (square * side + row % side) * side + column % side
    return keys


def rows_of_piece(height: int, row_bytes: int, memory: int) -> int:
    """Rows of a chip to read at a time: all of them, unless it takes much of the memory."""
    if height * row_bytes <= memory // _PIECE:
        return height
    return max(1, min(height, memory // _CHIPS // row_bytes))


def clipped(boxes: Ints, height: int, width: int) -> Ints:
    """Rows and columns of boxes that lie in the raster, as (first row, last row, column, column).

    Examples
    --------
    >>> clipped(np.array([[-2, 1, 5, 3], [90, 0, 4, 4]]), height=10, width=10).tolist()
    [[1, 4, 0, 3], [0, 0, 0, 0]]
    """
    col, row, wide, high = boxes.T
    inside = np.stack([np.clip(row, 0, height), np.clip(row + high, 0, height),
                       np.clip(col, 0, width), np.clip(col + wide, 0, width)], axis=1)  # fmt: skip
    inside[(inside[:, 0] >= inside[:, 1]) | (inside[:, 2] >= inside[:, 3])] = 0
    return inside


def _touched(inside: Ints, step: tuple[int, int]) -> Ints:
    """Cells or blocks, of size `step`, that hold these pixels."""
    high, wide = step
    touched = np.stack([inside[:, 0] // high, -(-inside[:, 1] // high),
                        inside[:, 2] // wide, -(-inside[:, 3] // wide)], axis=1)  # fmt: skip
    touched[inside[:, 1] == 0] = 0
    return touched


def block_counts(boxes: Ints, grid: Grid) -> Ints:
    """For each block that some region touches: by how many. The order is no matter."""
    inside = clipped(boxes, grid.height, grid.width)
    touched = _touched(inside, grid.block)[inside[:, 1] > 0]
    down, across = -(-grid.height // grid.block[0]), -(-grid.width // grid.block[1])
    band = max(1, 4_000_000 // across)
    found = []
    for top in range(0, down, band):
        part = np.clip(touched[:, :2] - top, 0, band)
        here = part[:, 0] < part[:, 1]
        found.append(_count(part[here], touched[here, 2:], min(band, down - top), across))
    return np.concatenate(found)


def _count(rows: Ints, columns: Ints, down: int, across: int) -> Ints:
    """Count boxes over each point of a grid by their corners' running sums."""
    wide = across + 1
    change = np.zeros((down + 1) * wide, np.int64)
    for end, sign in ((0, 1), (1, -1)):
        for side, other in ((0, 1), (1, -1)):
            at = rows[:, end] * wide + columns[:, side]
            change += sign * other * np.bincount(at, minlength=len(change))
    counts = change.reshape(down + 1, wide).cumsum(0).cumsum(1)
    return counts[counts > 0]
