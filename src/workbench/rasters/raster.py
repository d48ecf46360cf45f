"""What a raster's header says, and the way from map coordinates to its pixels."""

import os
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from numpy.typing import ArrayLike, NDArray

from workbench.rasters.errors import RasterError

#: Points on each edge of a box or a polygon's extent when it is reprojected.
_EDGE_POINTS = 21


@dataclass(frozen=True)
class Band:
    """One band of a raster: its dtype, and what its numbers mean.

    ``masked_by`` says what marks its missing pixels: ``""`` nothing, ``"nodata"`` its own value,
    ``"mask"`` a mask band or an alpha band.
    """

    dtype: str
    nodata: float | None = None
    masked_by: str = ""
    description: str = ""


@dataclass(frozen=True)
class Raster:
    """A raster's header. Nothing else of the file is read.

    ``transform`` are the six numbers of GDAL's geotransform (x origin, x per column, x per row,
    y origin, y per column, y per row); ``block`` is the (height, width) of a block.
    """

    path: str
    driver: str
    width: int
    height: int
    bands: tuple[Band, ...]
    crs: str | None
    transform: tuple[float, ...]
    block: tuple[int, int]
    interleave: str = "pixel"
    #: size in bytes and time of the last change, where it is a file: tells that it was replaced
    state: tuple[int, int] | None = None
    #: by how much each overview is reduced
    overviews: tuple[int, ...] = ()
    #: the overview that this is the header of; None for the raster itself
    level: int | None = None

    def dtype(self, bands: Sequence[int]) -> str:
        """The type that some bands have in common; raise ``RasterError`` where they differ."""
        found = list(dict.fromkeys(self.bands[band - 1].dtype for band in bands))
        if len(found) > 1:
            raise RasterError(
                f"the bands of {self.path} differ in type: {', '.join(found)}; choose some of one "
                "type by bands="
            )
        return found[0]

    def pixels(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Fractional columns and rows of map coordinates, through the inverse geotransform."""
        x0, xc, xr, y0, yc, yr = self.transform
        scale = xc * yr - xr * yc
        dx, dy = np.asarray(x, float) - x0, np.asarray(y, float) - y0
        return (yr * dx - xr * dy) / scale, (xc * dy - yc * dx) / scale

    def pixel_size(self) -> tuple[float, float]:
        """Length on the map of a pixel's (column, row) step, also where the raster is rotated."""
        _, xc, xr, _, yc, yr = self.transform
        return float(np.hypot(xc, yc)), float(np.hypot(xr, yr))

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of the raster on the map."""
        x0, xc, xr, y0, yc, yr = self.transform
        columns = np.array([0, self.width, 0, self.width])
        rows = np.array([0, 0, self.height, self.height])
        x, y = x0 + columns * xc + rows * xr, y0 + columns * yc + rows * yr
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def read_header(path: str | os.PathLike[str] | Raster, level: int | None = None) -> Raster:
    """Read a raster's header, or that of one of its overviews (the first is 0).

    Raises
    ------
    FileNotFoundError
        There is no such file.
    RasterError
        It is no raster, or its only georeference are ground control points or rational
        polynomials.
    """
    if isinstance(path, Raster):
        return path
    name = os.fspath(path)
    state = _state(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            options = {} if level is None else {"overview_level": level}
            with rasterio.open(name, **options) as source:
                return _described(source, name, state, level)
    except rasterio.errors.RasterioIOError as error:
        raise RasterError(f"{name} cannot be opened as a raster: {error}") from error


def open_raster(header: Raster) -> Any:
    """Open the raster, or the overview, that a header is of."""
    options = {} if header.level is None else {"overview_level": header.level}
    return rasterio.open(header.path, driver=header.driver, **options)


def _state(name: str) -> tuple[int, int] | None:
    if name.startswith("/vsi") or "://" in name:
        return None
    try:
        found = Path(name).stat()
    except OSError as error:
        if ":" in name or name.lstrip().startswith("<"):  # a driver's own syntax, or a VRT as text
            return None
        raise FileNotFoundError(f"there is no raster at {name}") from error
    if stat.S_ISDIR(found.st_mode) and not any(Path(name).iterdir()):
        raise RasterError(f"{name} is an empty folder, not a raster")
    return found.st_size, found.st_mtime_ns


def _check(source: Any, name: str) -> None:
    """Raise ``RasterError`` where regions cannot be cut out of an open raster."""
    if source.count == 0:
        parts = ", ".join(source.subdatasets[:3]) or "none"
        raise RasterError(f"{name} has no bands of its own; its subdatasets: {parts}")
    if source.transform.is_identity and (source.gcps[0] or source.rpcs):
        kind = "ground control points" if source.gcps[0] else "rational polynomials (RPC)"
        raise RasterError(
            f"{name} is placed on the map by {kind} only, which no affine transform expresses; "
            "warp it first: gdalwarp, or rasterio.vrt.WarpedVRT saved as a file"
        )
    if source.transform.is_degenerate:
        raise RasterError(f"the transform of {name} cannot be inverted: {source.transform!r}")


def _described(source: Any, name: str, state: tuple[int, int] | None, level: int | None) -> Raster:
    _check(source, name)
    return Raster(
        path=name,
        driver=source.driver,
        width=source.width,
        height=source.height,
        bands=tuple(_band(source, number) for number in source.indexes),
        crs=source.crs.to_wkt() if source.crs else None,
        transform=tuple(float(number) for number in source.transform.to_gdal()),
        block=(int(source.block_shapes[0][0]), int(source.block_shapes[0][1])),
        interleave=source.interleaving.name if source.interleaving else "pixel",
        state=state,
        overviews=_overviews(source),
        level=level,
    )


def _band(source: Any, number: int) -> Band:
    flags = {flag.name for flag in source.mask_flag_enums[number - 1]}
    return Band(
        # NumPy has no complex numbers of integers; float32 holds those of 16 bits exactly
        dtype=source.dtypes[number - 1].replace("complex_int16", "complex64"),
        nodata=source.nodatavals[number - 1],
        masked_by="nodata" if "nodata" in flags else "mask" if "per_dataset" in flags else "",
        description=source.descriptions[number - 1] or "",
    )


def _overviews(source: Any) -> tuple[int, ...]:
    """Factors of the overviews, if all bands have the same."""
    factors = [tuple(source.overviews(band)) for band in source.indexes]
    return factors[0] if len(set(factors)) == 1 else ()


def densified(boxes: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points along the edges of map boxes (left, bottom, right, top): two (box, point) arrays.

    Edges curve when they are reprojected, so that four corners do not bound them.

    Examples
    --------
    >>> x, y = densified(np.array([[0.0, 0.0, 2.0, 1.0]]))
    >>> x.shape, float(x.max()), float(y.max())
    ((1, 84), 2.0, 1.0)
    """
    t = np.linspace(0, 1, _EDGE_POINTS)
    along = np.concatenate([t, np.ones_like(t), 1 - t, np.zeros_like(t)])
    across = np.concatenate([np.zeros_like(t), t, np.ones_like(t), 1 - t])
    left, bottom, right, top = boxes.T[:, :, None]
    return left + (right - left) * along, bottom + (top - bottom) * across


def reproject(x: NDArray[Any], y: NDArray[Any], source: Any, target: Any) -> tuple[Any, Any]:
    """Coordinates of one CRS in another; what cannot be expressed there becomes infinite."""
    one = pyproj.CRS.from_user_input(source)
    other = pyproj.CRS.from_user_input(target)
    if one == other:
        return x, y
    transformer = pyproj.Transformer.from_crs(one, other, always_xy=True)
    there: tuple[Any, Any] = transformer.transform(x, y)
    return there


def crs_name(crs: Any) -> str:
    """How a person calls a CRS: its authority's code, else its name.

    Examples
    --------
    >>> crs_name("EPSG:4326")
    'EPSG:4326'
    """
    found = pyproj.CRS.from_user_input(crs)
    authority = found.to_authority()
    return ":".join(authority) if authority else str(found.name)


def extent(bounds: Sequence[float]) -> str:
    """A bounding box in words.

    Examples
    --------
    >>> extent((0, 0, 10, 5))
    'x 0 to 10, y 0 to 5'
    """
    left, bottom, right, top = bounds
    return f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"
