"""Read whole blocks: imagecodecs where a plain local TIFF allows it, GDAL for everything else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.errors import BlockError
from workbench.rasters.georeference import Raster
from workbench.rasters.tiff import Reader, Span, TiffReader, plain_page

#: GDAL would keep 5 % of the machine's memory; every block is read once, so it needs no cache.
_GDAL_CACHE = 32 * 2**20


@contextmanager
def opened(
    header: Raster, bands: list[int], *, mask: bool = False, decoder: str = "auto"
) -> Iterator[Reader]:
    """Open a raster for reading blocks from several threads.

    `decoder` is ``"auto"``, or ``"gdal"`` to leave imagecodecs out. With `mask`, GDAL's own mask
    of the raster (nodata, alpha or a mask band) follows the bands as 0 and 1.
    """
    rasterio = need("rasterio", extra="rasters")
    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE, GDAL_NUM_THREADS=1):
        page = plain_page(header) if decoder == "auto" and not mask else None
        gdal = GdalReader(header, bands, mask)
        reader = gdal if page is None else TiffReader(header, bands, page, gdal)
        try:
            yield reader
        finally:
            reader.close()


class GdalReader:
    """Any raster that GDAL reads, with one handle a thread."""

    def __init__(self, header: Raster, bands: list[int], mask: bool) -> None:
        self._header, self._bands, self._mask = header, bands, mask
        self._local = threading.local()
        self._handles: list[Any] = []

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        """Return the pixels (row, column, band) of a box given in pixels."""
        rasterio = need("rasterio", extra="rasters")
        if not hasattr(self._local, "handle"):
            level = self._header.level
            options = {} if level is None else {"overview_level": level}
            self._local.handle = rasterio.open(self._header.path, **options)
            self._handles.append(self._local.handle)
        bands = len(self._bands)
        shape = (rows[1] - rows[0], columns[1] - columns[0], bands + self._mask)
        pixels = np.empty(shape, self._header.dtype)
        try:
            # GDAL interleaves the bands on the way; the strides of out tell it to
            out = pixels[:, :, :bands].transpose(2, 0, 1)
            self._local.handle.read(self._bands, out=out, window=(rows, columns))
            if self._mask:
                pixels[:, :, bands] = self._local.handle.dataset_mask(window=(rows, columns)) > 0
        except rasterio.errors.RasterioError as error:
            raise BlockError(_block(self._header, rows, columns), _reason(error)) from error
        return pixels

    def close(self) -> None:
        """Close all threads' handles."""
        for handle in self._handles:
            handle.close()


def _block(header: Raster, rows: Span, columns: Span) -> tuple[int, int]:
    return rows[0] // header.block[0], columns[0] // header.block[1]


def _reason(error: BaseException) -> str:
    """What went wrong, in one line; GDAL's own words where rasterio hides them."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
