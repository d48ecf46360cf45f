"""Decode the blocks of a plain local TIFF without GDAL: one read and one codec call each."""

import os
import struct
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.georeference import Raster

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

    def __init__(self, header: Raster, bands: list[int], page: Any, other: Reader) -> None:
        self._header, self._page, self._other = header, page, other
        self._bands = None if bands == list(range(1, header.bands + 1)) else np.array(bands) - 1
        self._file = os.open(header.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._planar = page.planarconfig == 2 and header.bands > 1
        self._across = -(-header.width // header.block[1])
        self._down = -(-header.height // header.block[0])

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        """Return the pixels (row, column, band) of a box given in pixels."""
        high, wide = self._header.block
        if rows[1] - rows[0] <= high and columns[1] - columns[0] <= wide:
            block = self._block(rows[0] // high, columns[0] // wide)
            return block[: rows[1] - rows[0], : columns[1] - columns[0]]
        bands = self._header.bands if self._bands is None else len(self._bands)
        shape = (rows[1] - rows[0], columns[1] - columns[0], bands)
        pixels = np.empty(shape, self._header.dtype)
        for top in range(rows[0], rows[1], high):
            for left in range(columns[0], columns[1], wide):
                part = pixels[top - rows[0] : top - rows[0] + high,
                              left - columns[0] : left - columns[0] + wide]  # fmt: skip
                part[...] = self._block(top // high, left // wide)[: len(part), : part.shape[1]]
        return pixels

    def _block(self, row: int, column: int) -> NDArray[Any]:
        at = row * self._across + column
        try:
            if not self._planar:
                block = self._segment(at)
                return block if self._bands is None else block[:, :, self._bands]
            bands = range(self._header.bands) if self._bands is None else self._bands
            plane = self._across * self._down
            return np.concatenate([self._segment(at + band * plane) for band in bands], axis=2)
        except Exception:  # whatever the codec says, of whatever type
            high, wide = self._header.block
            rows = row * high, min((row + 1) * high, self._header.height)
            columns = column * wide, min((column + 1) * wide, self._header.width)
            return self._other.read(rows, columns)

    def _segment(self, at: int) -> NDArray[Any]:
        """One compressed piece of the file: (row, column, band)."""
        length, offset = self._page.databytecounts[at], self._page.dataoffsets[at]
        data = os.pread(self._file, length, offset)
        if len(data) != length:
            raise ValueError(f"the file ends {length - len(data):,} bytes too early")
        found, _, _ = self._page.decode(data, at)
        # of tifffile's (depth, length, width, samples) the depth is 1
        block: NDArray[Any] = found.reshape(found.shape[-3:])
        return block.astype(self._header.dtype, copy=False)

    def close(self) -> None:
        """Close the file, and the other reader."""
        os.close(self._file)
        self._other.close()


def plain_page(header: Raster) -> Any | None:
    """Return tifffile's page, if its blocks are read right without GDAL's help."""
    local = header.driver == "GTiff" and header.state is not None and hasattr(os, "pread")
    if not local or header.level is not None:
        return None
    tifffile, codecs = need("tifffile", extra="rasters"), need("imagecodecs", extra="rasters")
    try:
        with tifffile.TiffFile(header.path) as file:
            page = file.pages[0]
            page.dataoffsets, page.databytecounts, page.decode  # noqa: B018 - loaded while it is open
    except (tifffile.TiffFileError, ValueError, IndexError, struct.error):
        return None
    right = (
        page.compression in _COMPRESSIONS
        and page.predictor in _PREDICTORS
        and page.photometric in _PHOTOMETRICS
        and (page.predictor == 1 or np.dtype(header.dtype).kind != "c")
        and page.fillorder == 1
        and page.dtype is not None
        and page.dtype.name == header.dtype
        and page.bitspersample == np.dtype(header.dtype).itemsize * 8
        and (page.imagelength, page.imagewidth, page.imagedepth) == (header.height, header.width, 1)
        and page.samplesperpixel == header.bands
        and _block_shape(page) == header.block
        and min(page.databytecounts, default=0) > 0  # a missing block is GDAL's to fill
        and codecs is not None
    )
    return page if right else None


def _block_shape(page: Any) -> tuple[int, int]:
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth
