"""Decode cells: those blocks of each that regions need, and which of them cannot be read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.rasters.errors import BlockError
from workbench.rasters.layout import Grid, Ints
from workbench.rasters.tiff import Reader, Span


@dataclass(frozen=True)
class Cell:
    """Decoded pixels of a cell, or of a part of it that later groups need.

    ``top`` and ``left`` are the raster's row and column of its first pixel. ``bad`` holds the
    blocks that could not be decoded: their pixels (row, row, column, column) and what was wrong.
    """

    pixels: NDArray[Any]
    top: int
    left: int
    bad: tuple[tuple[tuple[int, int, int, int], BlockError], ...] = ()

    def part(self, box: Ints) -> "Cell":
        """Copy a box out of it, so that the rest can be let go."""
        first, last, left, right = box.tolist()
        pixels = self.pixels[first:last, left:right].copy()
        return Cell(pixels, self.top + first, self.left + left, self.bad)


def decode_cell(reader: Reader, grid: Grid, cell: int, needs: Ints) -> Cell:
    """Decode those blocks of a cell that regions need; other pixels are left undefined.

    Parameters
    ----------
    needs
        (region, 4): first and last row, first and last column, counted from the cell's corner.
    """
    top, left = grid.origin(cell)
    high, wide = grid.shape(cell)
    pixels: NDArray[Any] | None = None
    bad: list[tuple[tuple[int, int, int, int], BlockError]] = []
    for rows, columns in _boxes(needs, grid.block, high, wide):
        at = (top + rows[0], top + rows[1]), (left + columns[0], left + columns[1])
        for there, part in _parts(reader, grid, *at):
            if isinstance(part, BlockError):
                bad.append(((*there[0], *there[1]), part))
            elif part.shape[:2] == (high, wide):
                return Cell(part, top, left)
            else:
                if pixels is None:
                    pixels = np.empty((high, wide, part.shape[2]), part.dtype)
                (first, last), (start, stop) = there
                pixels[first - top : last - top, start - left : stop - left] = part
    return Cell(np.empty((0, 0, 0)) if pixels is None else pixels, top, left, tuple(bad))


def _parts(reader: Reader, grid: Grid, rows: Span, columns: Span) -> Iterator[tuple[Any, Any]]:
    """Read a box of blocks at once or, where that fails, each block for itself."""
    try:
        yield (rows, columns), reader.read(rows, columns)
    except BlockError as error:
        high, wide = grid.block
        if rows[1] - rows[0] <= high and columns[1] - columns[0] <= wide:
            yield (rows, columns), error
            return
        for first in range(rows[0], rows[1], high):
            for left in range(columns[0], columns[1], wide):
                block = (first, min(first + high, rows[1])), (left, min(left + wide, columns[1]))
                yield from _parts(reader, grid, *block)


def _boxes(
    needs: Ints, block: tuple[int, int], high: int, wide: int
) -> Iterator[tuple[Span, Span]]:
    """Cover the blocks that are needed, and no other, by few boxes of whole blocks."""
    if block[0] >= high and block[1] >= wide:
        yield (0, high), (0, wide)
        return
    marks = np.zeros((-(-high // block[0]), -(-wide // block[1])), np.bool_)
    for first, last, left, right in np.unique(needs, axis=0).tolist():
        marks[
            first // block[0] : -(-last // block[0]), left // block[1] : -(-right // block[1])
        ] = 1
    row = 0
    while row < len(marks):
        stop = row + 1
        while stop < len(marks) and (marks[stop] == marks[row]).all():
            stop += 1
        edges = np.flatnonzero(np.diff(marks[row].astype(np.int8), prepend=0, append=0))
        for start, end in edges.reshape(-1, 2).tolist():
            yield (
                (row * block[0], min(stop * block[0], high)),
                (start * block[1], min(end * block[1], wide)),
            )
        row = stop
