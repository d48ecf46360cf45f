"""What a plan's chips look like: their size, channels, dtype and fill."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.errors import RegionError
from workbench.rasters.georeference import Raster
from workbench.rasters.layout import Ints, rows_of_piece


@dataclass(frozen=True)
class Form:
    """Height and width of the array of chips, its channels, dtype and fill.

    ``rows`` are the rows of a chip that are read at a time: all, unless it is very large.
    """

    height: int
    width: int
    rows: int
    channels: int
    dtype: str
    fill: Any
    resampled: bool
    resampling: str
    mask: bool

    @property
    def pixel_bytes(self) -> int:
        """Of one pixel with all its bands, and the mask where it is read too."""
        return (self.channels + self.mask) * np.dtype(self.dtype).itemsize

    @property
    def chip_bytes(self) -> int:
        """Of one chip with its `valid`."""
        return self.height * self.width * (self.pixel_bytes + 1)

    @property
    def pieces(self) -> int:
        """Pieces of a chip that are read one by one."""
        return -(-self.height // self.rows)

    def blank(self, chip: NDArray[Any]) -> None:
        """Set a chip to the fill, its mask to no data."""
        chip[..., : self.channels] = self.fill
        chip[..., self.channels :] = 0


def make_form(
    header: Raster,
    boxes: Ints,
    read: Ints,
    size: int | tuple[int, int] | None,
    channels: int,
    fill: float | None,
    resampling: str,
    mask: bool,
    memory: int,
) -> Form:
    """Check the options against the raster; raise ``RegionError`` where they do not fit.

    `boxes` are the regions', `read` those that are read for them, of an overview perhaps.
    """
    methods = need("rasterio.enums", extra="rasters").Resampling.__members__
    if resampling not in methods:
        raise RegionError(f"resampling={resampling!r} is none of {', '.join(methods)}")
    largest = (int(boxes[:, 3].max()), int(boxes[:, 2].max()))
    height, width = largest if size is None else pair(size)
    resampled = size is not None and bool((boxes[:, [3, 2]] != (height, width)).any())
    pixel = (channels + mask) * np.dtype(header.dtype).itemsize + 1
    rows = rows_of_piece(height, width * pixel, memory)
    if resampled:
        needed = int((read[:, 2] * read[:, 3]).max()) * pixel
        if rows < height or rows_of_piece(1, needed, memory // 2) < 1:
            raise RegionError(
                f"resampling needs a whole region, {needed / 2**20:,.0f} MiB, in memory at once; "
                f"give more than memory={memory / 2**20:,.0f}MiB, or cut without size="
            )
        rows = height
    return Form(height, width, rows, channels, header.dtype, _fill(fill, header), resampled,
                resampling, mask)  # fmt: skip


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a size in pixels; raise ``RegionError`` where it is none."""
    sides = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int | np.integer) for side in sides):
        raise RegionError(f"size must be whole pixels, or (height, width), not {size!r}")
    if min(sides) < 1:
        raise RegionError(f"size must be 1 or more pixels, not {size!r}")
    return int(sides[0]), int(sides[1])


def _fill(fill: float | None, header: Raster) -> Any:
    value = fill if fill is not None else header.nodata if header.nodata is not None else 0
    dtype = np.dtype(header.dtype)
    with np.errstate(all="ignore"):
        cast = np.asarray(value).astype(dtype)[()]
    if dtype.kind in "iu" and cast != value:
        if fill is None:  # a nodata that the raster's own pixels cannot hold
            return 0
        raise RegionError(f"fill={fill!r} does not fit into the raster's {dtype}")
    return cast.item()
