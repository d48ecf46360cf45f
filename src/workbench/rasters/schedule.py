"""Who decodes each cell, and how long it is kept for others: every cell is decoded once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.rasters.layout import Counts, Ints, Layout

#: What cells kept for later groups may take of the memory budget.
_KEPT = 4


@dataclass(frozen=True)
class Share:
    """What one group does: the cells that it decodes, those it is handed, and its cuts.

    ``owned`` maps a cell to the pixels (row, row, column, column, counted from the cell's corner)
    that any group needs of it, one entry a region, none where a cell is one block; ``kept`` to the
    smallest box around those that later groups need, and to their number. ``handed`` maps a cell to
    the group that decodes it. ``cuts`` maps a cell to the read positions of the group's own regions
    that touch it.
    """

    owned: dict[int, Ints]
    kept: dict[int, tuple[Ints, int]]
    handed: dict[int, int]
    cuts: dict[int, Ints]


class Schedule:
    """The shares of some groups of a layout; the others count as done.

    Parameters
    ----------
    layout
        Regions in read order.
    groups
        The groups to work on, ascending.
    pixel_bytes, memory
        Of one pixel with all its bands, and the budget; cells that do not fit into a fourth of it
        until they are needed again are decoded again.
    """

    def __init__(self, layout: Layout, groups: Ints, pixel_bytes: int, memory: int) -> None:
        self.layout = layout
        self.groups = groups
        parts = [layout.pairs(*_ends(layout, group)) for group in _runs(groups)]
        position = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.int32)])
        cell = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.int32)])
        del parts
        by_cell = np.argsort(cell, kind="stable").astype(np.int32)
        self._position: Counts = position[by_cell]
        self._cell: Counts = cell[by_cell]
        del position, cell, by_cell
        self._group = self._position // layout.size
        self._tenure(pixel_bytes, memory)

    def _tenure(self, pixel_bytes: int, memory: int) -> None:
        """Find the spans of pairs for which a cell is decoded once: all of a cell's, if it fits."""
        starts = np.flatnonzero(np.diff(self._cell, prepend=-1))
        owner, last = self._group[starts], self._group[np.append(starts, len(self._cell))[1:] - 1]
        self._starts, self._owner = starts, owner
        boxes = self._kept_boxes()
        size = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) * pixel_bytes
        size[owner == last] = 0
        dropped = _too_much(owner, last, size, memory // _KEPT)
        self.kept_peak = _peak(owner, last, np.where(dropped, 0, size))
        if dropped.any():
            again = np.repeat(dropped, np.diff(np.append(starts, len(self._cell))))
            new_group = np.diff(self._group, prepend=-1) != 0
            new_cell = np.diff(self._cell, prepend=-1) != 0
            self._starts = np.flatnonzero(new_cell | (again & new_group))
            self._owner = self._group[self._starts]
            boxes = self._kept_boxes()
        self._kept = boxes
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
        inside, cell = self.layout.inside(self._position[pairs]), self._cell[pairs].astype(np.int64)
        top, left = cell // grid.columns * grid.cell[0], cell % grid.columns * grid.cell[1]
        rows = np.clip(inside[:, :2] - top[:, None], 0, grid.cell[0])
        columns = np.clip(inside[:, 2:] - left[:, None], 0, grid.cell[1])
        return np.concatenate([rows, columns], axis=1)

    def _kept_boxes(self) -> Ints:
        """For each tenure the smallest box around what groups after the owner need."""
        lengths = np.diff(np.append(self._starts, len(self._cell)))
        later = np.flatnonzero(self._group != np.repeat(self._owner, lengths))
        tenure = np.repeat(np.arange(len(self._starts)), lengths)[later]
        boxes = np.zeros((len(self._starts), 4), np.int64)
        if len(later):
            needs = self.sources(later)
            first = np.flatnonzero(np.diff(tenure, prepend=-1))
            for column, reduce in enumerate((np.minimum, np.maximum, np.minimum, np.maximum)):
                boxes[tenure[first], column] = reduce.reduceat(needs[:, column], first)
        return boxes

    def share(self, group: int) -> Share:
        """What one group does."""
        at = int(np.searchsorted(self.groups, group))
        pairs = np.sort(self._by_group[self._group_starts[at] : self._group_stops[at]])
        tenures = np.searchsorted(self._starts, pairs, side="right") - 1
        share = Share({}, {}, {}, {})
        grid, nothing = self.layout.grid, np.zeros((0, 4), np.int64)
        blocks_differ = grid.block != grid.cell  # else a cell is decoded whole, whoever needs it
        firsts = np.flatnonzero(np.diff(tenures, prepend=-1))
        for first, stop in zip(firsts, np.append(firsts, len(pairs))[1:], strict=True):
            tenure, cell = int(tenures[first]), int(self._cell[pairs[first]])
            share.cuts[cell] = self._position[pairs[first:stop]]
            if self._owner[tenure] == group:
                whole = slice(int(self._starts[tenure]), int(self._stops[tenure]))
                share.owned[cell] = self.sources(whole) if blocks_differ else nothing
                if users := int(self._users[tenure]):
                    share.kept[cell] = (self._kept[tenure], users)
            else:
                share.handed[cell] = int(self._owner[tenure])
        return share


def _runs(groups: Ints) -> list[tuple[int, int]]:
    """Join neighbouring groups: (first, last)."""
    cuts = np.flatnonzero(np.diff(groups) != 1) + 1
    return [(int(run[0]), int(run[-1])) for run in np.split(groups, cuts) if len(run)]


def _ends(layout: Layout, run: tuple[int, int]) -> tuple[int, int]:
    return layout.members(run[0]).start, layout.members(run[1]).stop


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

    low, high = 0, len(size)
    if _peak(owner, last, size) <= limit:
        return drop(0)
    while low < high:
        middle = (low + high) // 2
        if _peak(owner, last, np.where(drop(middle), 0, size)) <= limit:
            high = middle
        else:
            low = middle + 1
    return drop(low)
