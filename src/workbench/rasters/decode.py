"""Read cells of a raster: plain local TIFFs by imagecodecs, everything else by GDAL."""

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray

from workbench.rasters.errors import BlockError, RasterError
from workbench.rasters.plan_data import Settings
from workbench.rasters.raster import Raster, open_raster
from workbench.rasters.schedule import Grid, Ints

#: TIFF's numbers for no compression, LZW, Adobe's and the old deflate, and both of zstd.
_COMPRESSIONS = {1, 5, 8, 32946, 50000, 34926}
_PREDICTORS = {1, 2, 3}
#: Grey of either sense, RGB and palette. GDAL converts the others' colours, such as CMYK's.
_PHOTOMETRICS = {0, 1, 2, 3}
Span = tuple[int, int]


class Reader(Protocol):
    """Reads boxes of whole blocks."""

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        """Return the pixels (row, column, band) of a box given in pixels, ends excluded."""

    def close(self) -> None:
        """Let go of the file."""


class TiffReader:
    """A plain local TIFF: one read from the file and one call of its codec a block.

    What the codec cannot decode is left to `other`, which reads it or says what is wrong.
    """

    def __init__(self, settings: Settings, page: Any, other: Reader) -> None:
        header = settings.raster
        self._header = header
        self._page = page
        self._other = other
        self._dtype = header.dtype(settings.bands)
        self._channels = np.array(settings.bands) - 1
        self._all = settings.bands == list(range(1, len(header.bands) + 1))
        self._file = os.open(header.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._planar = page.planarconfig == 2 and len(header.bands) > 1
        self._across = -(-header.width // header.block[1])
        self._down = -(-header.height // header.block[0])

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        """Return the pixels (row, column, band) of a box given in pixels."""
        high, wide = self._header.block
        if rows[1] - rows[0] <= high and columns[1] - columns[0] <= wide:
            block = self._block(rows[0] // high, columns[0] // wide)
            return block[: rows[1] - rows[0], : columns[1] - columns[0]]
        shape = (rows[1] - rows[0], columns[1] - columns[0], len(self._channels))
        pixels = np.empty(shape, self._dtype)
        for top in range(rows[0], rows[1], high):
            for left in range(columns[0], columns[1], wide):
                x, y = left - columns[0], top - rows[0]
                part = pixels[y : y + high, x : x + wide]
                part[...] = self._block(top // high, left // wide)[: len(part), : part.shape[1]]
        return pixels

    def _block(self, row: int, column: int) -> NDArray[Any]:
        at = row * self._across + column
        try:
            if not self._planar:
                block = self._segment(at)
                return block if self._all else block[:, :, self._channels]
            plane = self._across * self._down
            return np.concatenate(
                [self._segment(at + int(band) * plane) for band in self._channels], axis=2
            )
        except Exception:  # whatever the codec says, of whatever type
            high, wide = self._header.block
            rows = row * high, min((row + 1) * high, self._header.height)
            columns = column * wide, min((column + 1) * wide, self._header.width)
            return self._other.read(rows, columns)

    def _segment(self, at: int) -> NDArray[Any]:
        """One compressed piece of the file: (row, column, band)."""
        length = self._page.databytecounts[at]
        data = os.pread(self._file, length, self._page.dataoffsets[at])
        if len(data) != length:
            raise ValueError(f"the file ends {length - len(data):,} bytes too early")
        decoded, _, _ = self._page.decode(data, at)
        # of tifffile's (depth, length, width, samples) the depth is 1
        block: NDArray[Any] = decoded.reshape(decoded.shape[-3:])
        return block.astype(self._dtype, copy=False)

    def close(self) -> None:
        """Close the file, and the other reader."""
        os.close(self._file)
        self._other.close()


def plain_page(header: Raster) -> Any | None:
    """Return tifffile's page, if its blocks are read right without GDAL's help."""
    local = header.driver == "GTiff" and bool(header.files) and hasattr(os, "pread")
    dtype = np.dtype(header.stored[0].dtype)
    if not local or header.level is not None or len({band.dtype for band in header.stored}) > 1:
        return None
    try:
        with tifffile.TiffFile(header.path) as file:
            page: Any = file.pages[0]
            page.dataoffsets, page.databytecounts, page.decode  # noqa: B018 - loaded while it is open
    except (tifffile.TiffFileError, ValueError, IndexError, struct.error):
        return None
    right = (
        page.compression in _COMPRESSIONS
        and page.predictor in _PREDICTORS
        and page.photometric in _PHOTOMETRICS
        and (page.predictor == 1 or dtype.kind != "c")
        and page.fillorder == 1
        and page.dtype == dtype
        and page.bitspersample == dtype.itemsize * 8
        and (page.imagelength, page.imagewidth, page.imagedepth) == (header.height, header.width, 1)
        and page.samplesperpixel == len(header.bands)
        and _block_shape(page) == header.block
        and min(page.databytecounts, default=0) > 0  # a missing block is GDAL's to fill
    )
    return page if right else None


def _block_shape(page: Any) -> tuple[int, int]:
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


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

    `needs` (region, 4) are first and last row and column, counted from the cell's corner.
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


#: GDAL would keep 5 % of the machine's memory; every block is read once, so it needs no cache.
_GDAL_CACHE = 32 * 2**20


@contextmanager
def opened(settings: Settings) -> Iterator[Reader]:
    """Open a raster for reading blocks from several threads.

    Where the mask is read, GDAL's own of the raster (nodata, alpha or a mask band) follows the
    bands as 0 and 1.
    """
    settings.raster.check_unchanged()
    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE, GDAL_NUM_THREADS=1):
        plain = settings.decoder == "auto" and not settings.chip_format.reads_mask
        page = plain_page(settings.raster) if plain else None
        reader: Reader = GdalReader(settings)
        if page is not None:
            reader = TiffReader(settings, page, reader)
        if settings.raster.unscaled:
            reader = ScaledReader(settings, reader)
        try:
            yield reader
        finally:
            reader.close()


class GdalReader:
    """Any raster that GDAL reads, with one handle a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local = threading.local()
        self._handles: list[Any] = []

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        """Return the pixels (row, column, band) of a box given in pixels."""
        header = self._settings.raster
        form = self._settings.chip_format
        if not hasattr(self._local, "handle"):
            try:
                self._local.handle = open_raster(header)
            except rasterio.errors.RasterioIOError as error:
                raise RasterError(
                    f"{header.path} cannot be opened any more, or not by this process: {error}. "
                    "Workers of a cluster need it under the same path and, where it is remote, "
                    "credentials in environment variables of their own"
                ) from error
            self._handles.append(self._local.handle)
        shape = (rows[1] - rows[0], columns[1] - columns[0], form.channels + form.reads_mask)
        pixels = np.empty(shape, header.dtype(self._settings.bands))
        window = rows, columns
        try:
            # GDAL interleaves the bands on the way; the strides of out tell it to
            out = pixels[:, :, : form.channels].transpose(2, 0, 1)
            self._local.handle.read(self._settings.bands, out=out, window=window)
            if form.reads_mask:
                pixels[:, :, form.channels] = self._local.handle.dataset_mask(window=window) > 0
        except rasterio.errors.RasterioError as error:
            block = rows[0] // header.block[0], columns[0] // header.block[1]
            raise BlockError(block, _reason(error)) from error
        return pixels

    def close(self) -> None:
        """Close all threads' handles."""
        for handle in self._handles:
            handle.close()


class ScaledReader:
    """Applies scale and offset to what another reader reads; what is no data becomes NaN."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        self._settings = settings
        self._reader = reader
        self.close = reader.close

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        """Return the pixels (row, column, band) of a box given in pixels."""
        form = self._settings.chip_format
        raw = self._reader.read(rows, columns)
        mask = raw[..., form.channels] if form.reads_mask else None
        # the mask goes on where a chip, or its average, has use of it
        depth = form.channels + (form.reads_mask and (form.mask or form.resampled))
        pixels: NDArray[Any] = raw[..., :depth].astype(form.dtype)
        for channel, number in enumerate(self._settings.bands):
            band = self._settings.raster.stored[number - 1]
            values = raw[..., channel] * np.float64(band.scale) + band.offset
            values[band.missing(raw[..., channel], mask)] = np.nan
            pixels[..., channel] = values
        return pixels


def _reason(error: BaseException) -> str:
    """What went wrong, in one line; GDAL's own words where rasterio hides them."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
