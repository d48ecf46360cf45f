"""The read order of a plan's regions, and a schedule by which every cell is decoded once.

Glossary, for the whole package:

region
    A box of the raster's pixels that the table asks for.
chip
    The pixels cut for a region, at the size asked for.
unit
    What is cut in one go: a region or, of a region too large for the memory, a piece of it.
block
    The raster's own tile or strip: what a codec decodes in one call.
cell
    A block, or several small blocks together: what is decoded, kept and exchanged here. Cells
    form a grid over the raster.
group
    A run of units in read order: what one thread, one dask task or one shard holds.

Units are sorted by the cell in which they end, cells by the square of cells that they lie in, so
that neighbours in this order share cells.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.rasters.raster import Raster

Ints = NDArray[np.int64]
#: Of the least width that holds them: there are one or two for each region.
Counts = NDArray[np.signedinteger[Any]]
#: Regions to look at in one go: what is found on the way takes some 200 bytes for each.
_RUN = 2**16
#: Cells have at least so many pixels a side, where blocks are smaller.
_CELL_SIDE = 256
# Shares of the memory budget, as what it is divided by.
#: One group's chips.
_CHIPS = 64
#: A square of cells.
_SQUARE = 32
#: The blocks that one group decodes.
_DECODED = 8
#: One cell.
_CELL = 32
#: The largest chip that is not cut into pieces.
_PIECE = 8
#: Cells kept for later groups.
_SHARED = 4


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
    whole = header.height, header.width
    block = min(header.block[0], whole[0]), min(header.block[1], whole[1])
    high, wide = (
        min(-(-_CELL_SIDE // side) * side, -(-length // side) * side)
        for side, length in zip(block, whole, strict=True)
    )
    while high > block[0] and high * wide * pixel_bytes > memory // _CELL:
        high = max(block[0], high // 2 // block[0] * block[0])
    return Grid(header.height, header.width, block, (high, wide))


@dataclass(frozen=True)
class Layout:
    """Regions in read order.

    Only what cannot be found again is kept for each region: there may be very many. ``boxes``
    (region, 4) are in the table's order: column, row, width and height; ``order`` is the position
    in the table of each region, in read order. A group has ``size`` regions, the last often fewer.
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
        cells = touched(self.inside(slice(start, stop)), self.grid.cell)
        across = cells[:, 3] - cells[:, 2]
        counts = (cells[:, 1] - cells[:, 0]) * across
        position = np.repeat(np.arange(start, stop), counts)
        within = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
        wide = np.maximum(np.repeat(across, counts), 1)
        row = np.repeat(cells[:, 0], counts) + within // wide
        column = np.repeat(cells[:, 2], counts) + within % wide
        cell = row * self.grid.columns + column
        down = -(-self.grid.height // self.grid.cell[0])
        many = down * self.grid.columns > 2**31
        return position.astype(np.int32), cell if many else cell.astype(np.int32)


def make_layout(grid: Grid, boxes: Ints, chip_bytes: int, pixel_bytes: int, memory: int) -> Layout:
    """Sort regions (boxes in the table's order) and decide how many make a group.

    `chip_bytes` and `pixel_bytes` are of one chip, and of one pixel with all its bands.
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
    keys = np.empty(len(boxes), np.int64)
    squares = -(-grid.columns // side)
    for start in range(0, len(boxes), _RUN):
        run = slice(start, start + _RUN)
        cells = touched(clipped(boxes[run], grid.height, grid.width), grid.cell)
        row = cells[:, 1] - 1
        column = cells[:, 3] - 1
        square = (row // side) * squares + column // side
        keys[run] = (square * side + row % side) * side + column % side
    return keys


def rows_of_piece(height: int, row_bytes: int, memory: int) -> int:
    """Rows of a chip to read at a time: all of them, unless it takes much of the memory."""
    if height * row_bytes <= memory // _PIECE:
        return height
    return max(1, min(height, memory // _CHIPS // row_bytes))


def clipped(boxes: Ints, height: int, width: int) -> Ints:
    """Rows and columns of boxes that lie in the raster: first and last row, then column."""
    col, row, wide, high = boxes.T
    rows = np.clip([row, row + high], 0, height)
    columns = np.clip([col, col + wide], 0, width)
    inside = np.concatenate([rows, columns]).T
    inside[(inside[:, 0] >= inside[:, 1]) | (inside[:, 2] >= inside[:, 3])] = 0
    return inside


def touched(inside: Ints, step: tuple[int, int]) -> Ints:
    """Cells or blocks, of size `step`, that hold these pixels."""
    high, wide = step
    step_up = np.array([0, high - 1, 0, wide - 1])
    touched: Ints = (inside + step_up) // np.array([high, high, wide, wide])
    touched[inside[:, 1] == 0] = 0
    return touched


def block_counts(boxes: Ints, grid: Grid) -> Ints:
    """For each block that some region touches: by how many. The order is no matter."""
    inside = clipped(boxes, grid.height, grid.width)
    blocks = touched(inside, grid.block)[inside[:, 1] > 0]
    down = -(-grid.height // grid.block[0])
    across = -(-grid.width // grid.block[1])
    band = max(1, 4_000_000 // across)
    found = []
    for top in range(0, down, band):
        part = np.clip(blocks[:, :2] - top, 0, band)
        here = part[:, 0] < part[:, 1]
        found.append(_count(part[here], blocks[here, 2:], min(band, down - top), across))
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


@dataclass(frozen=True)
class GroupWork:
    """What one group does."""

    #: The cells that it decodes: for each the pixels (row, row, column, column, from the cell's
    #: corner) that any group needs of it, one entry a unit, none where a cell is one block.
    decoded: dict[int, Ints]
    #: Of these, for later groups: the smallest box around what they need, and how many they are.
    shared: dict[int, tuple[Ints, int]]
    #: The cells that it gets from others: for each the group that decodes it.
    borrowed: dict[int, int]
    #: For each of its cells the read positions of its own units that touch it.
    cuts: dict[int, Ints]


class Schedule:
    """The work of some groups of a layout; the others count as done.

    Pairs of a unit and a cell that it touches are sorted by cell and read position. A *lifetime* is
    a run of pairs of one cell that one decode serves; its first pair's group decodes the cell.
    `groups` ascend. Cells that do not fit into a fourth of the memory until they are needed again
    are decoded again.
    """

    def __init__(self, layout: Layout, groups: Ints, pixel_bytes: int, memory: int) -> None:
        self.layout = layout
        self.groups = groups
        runs = np.split(groups, np.flatnonzero(np.diff(groups) != 1) + 1)
        parts = [
            layout.pairs(layout.members(run[0]).start, layout.members(run[-1]).stop)
            for run in runs
            if len(run)
        ]
        position = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.int32)])
        cell = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.int32)])
        del parts
        by_cell = np.argsort(cell, kind="stable").astype(np.int32)
        self._position: Counts = position[by_cell]
        self._cell: Counts = cell[by_cell]
        del position, cell, by_cell
        self._group = self._position // layout.size
        self._find_lifetimes(pixel_bytes, memory)

    def _find_lifetimes(self, pixel_bytes: int, memory: int) -> None:
        """One lifetime a cell, and one a group and cell for cells that are too much to keep."""
        starts = np.flatnonzero(np.diff(self._cell, prepend=-1))
        owner = self._group[starts]
        last = self._group[np.append(starts, len(self._cell))[1:] - 1]
        self._starts = starts
        self._owner = owner
        boxes = self._shared_boxes()
        size = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) * pixel_bytes
        size[owner == last] = 0
        dropped = _too_much(owner, last, size, memory // _SHARED)
        self.shared_peak = _peak(owner, last, np.where(dropped, 0, size))
        if dropped.any():
            again = np.repeat(dropped, np.diff(np.append(starts, len(self._cell))))
            new_group = np.diff(self._group, prepend=-1) != 0
            new_cell = np.diff(self._cell, prepend=-1) != 0
            self._starts = np.flatnonzero(new_cell | (again & new_group))
            self._owner = self._group[self._starts]
            boxes = self._shared_boxes()
        self._shared = boxes
        self._stops = np.append(self._starts, len(self._cell))[1:]
        # groups that need a cell after its owner: groups ascend within a cell
        changes = np.append(0, np.cumsum(np.diff(self._group) != 0))
        self._users = changes[self._stops - 1] - changes[self._starts]
        # pairs in the order of their groups, to find one group's
        self._by_group = np.argsort(self._group, kind="stable").astype(np.int32)
        ordered = self._group[self._by_group]
        self._group_starts = np.searchsorted(ordered, self.groups)
        self._group_stops = np.searchsorted(ordered, self.groups, side="right")

    @property
    def cells(self) -> Counts:
        """The cell of each decode."""
        return self._cell[self._starts]

    @property
    def decodes(self) -> int:
        """How many cells are decoded, counting those twice that are decoded twice."""
        return len(self._starts)

    def sources(self, pairs: Ints | slice) -> Ints:
        """Pixels that pairs need, counted from their cell's corner: (row, row, column, column)."""
        grid = self.layout.grid
        inside = self.layout.inside(self._position[pairs])
        cell = self._cell[pairs].astype(np.int64)
        top = cell // grid.columns * grid.cell[0]
        left = cell % grid.columns * grid.cell[1]
        rows = np.clip(inside[:, :2] - top[:, None], 0, grid.cell[0])
        columns = np.clip(inside[:, 2:] - left[:, None], 0, grid.cell[1])
        return np.concatenate([rows, columns], axis=1)

    def _shared_boxes(self) -> Ints:
        """For each lifetime the smallest box around what groups after the owner need."""
        lengths = np.diff(np.append(self._starts, len(self._cell)))
        later = np.flatnonzero(self._group != np.repeat(self._owner, lengths))
        lifetime = np.repeat(np.arange(len(self._starts)), lengths)[later]
        boxes = np.zeros((len(self._starts), 4), np.int64)
        if len(later):
            needs = self.sources(later)
            first = np.flatnonzero(np.diff(lifetime, prepend=-1))
            for column, reduce in enumerate((np.minimum, np.maximum, np.minimum, np.maximum)):
                boxes[lifetime[first], column] = reduce.reduceat(needs[:, column], first)
        return boxes

    def work(self, group: int) -> GroupWork:
        """What one group does."""
        at = int(np.searchsorted(self.groups, group))
        pairs = np.sort(self._by_group[self._group_starts[at] : self._group_stops[at]])
        lifetimes = np.searchsorted(self._starts, pairs, side="right") - 1
        work = GroupWork({}, {}, {}, {})
        nothing = np.zeros((0, 4), np.int64)
        # where a cell is one block, it is decoded whole, whoever needs it
        blocks_differ = self.layout.grid.block != self.layout.grid.cell
        firsts = np.flatnonzero(np.diff(lifetimes, prepend=-1))
        for first, stop in zip(firsts, np.append(firsts, len(pairs))[1:], strict=True):
            lifetime = int(lifetimes[first])
            cell = int(self._cell[pairs[first]])
            work.cuts[cell] = self._position[pairs[first:stop]]
            if self._owner[lifetime] == group:
                whole = slice(int(self._starts[lifetime]), int(self._stops[lifetime]))
                work.decoded[cell] = self.sources(whole) if blocks_differ else nothing
                if users := int(self._users[lifetime]):
                    work.shared[cell] = (self._shared[lifetime], users)
            else:
                work.borrowed[cell] = int(self._owner[lifetime])
        return work


def _peak(owner: Ints, last: Ints, size: Ints) -> int:
    """The most that is kept at any time: each size counts from its owner to its last user."""
    if not len(owner):
        return 0
    change = np.zeros(int(last.max()) + 2, np.int64)
    np.add.at(change, owner, size)
    np.add.at(change, last + 1, -size)
    return int(change.cumsum().max())


def _too_much(owner: Ints, last: Ints, size: Ints, limit: int) -> NDArray[np.bool_]:
    """Mark what not to keep, the largest and longest kept first, so that the rest fits."""
    costly = np.argsort(-(last - owner) * size, kind="stable")

    def drop(n: int) -> NDArray[np.bool_]:
        marks = np.zeros(len(size), np.bool_)
        marks[costly[:n]] = True
        return marks

    if _peak(owner, last, size) <= limit:
        return drop(0)
    low = 0
    high = len(size)
    while low < high:
        middle = (low + high) // 2
        if _peak(owner, last, np.where(drop(middle), 0, size)) <= limit:
            high = middle
        else:
            low = middle + 1
    return drop(low)
