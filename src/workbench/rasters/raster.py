"""What a raster's header says, and the way from map coordinates to its pixels."""

import hashlib
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from numpy.typing import ArrayLike, NDArray

from workbench.rasters.errors import RasterError, RasterWarning

#: Points on each edge of a box or a polygon's extent when it is reprojected.
_EDGE_POINTS = 21
#: How texts begin that GDAL follows to other data, which may lie anywhere, the network included.
_REFERRING = re.compile(
    rb"VRTData(set|Source)|<GDAL|<W(M|C|MT|F)S|<WMT_MS|<OGRWFS|<Capabilities|stac_version|<kml",
    re.I,
)
#: Where a VRT names other files: an element, perhaps relative to the VRT's own folder.
_SOURCE = re.compile(
    r"""<(?:\w*Source\w*|\w*Filename|Argument\s+name=["']\w*filename\w*["'])\b([^>]*)>([^<]+)<""",
    re.I,
)
_REMOTE = re.compile(r"://|/vsi|^\s*(<|&lt;)|^(WMS|WMTS|WCS|OGCAPI|STAC\w*|PLMOSAIC|EEDAI?):", re.I)


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
    color: str = "undefined"
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    #: of a palette: value, red, green, blue and alpha of each colour
    colors: tuple[tuple[int, ...], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def itemsize(self) -> int:
        """Bytes of one of its pixels."""
        return np.dtype(self.dtype).itemsize

    def missing(self, pixels: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[np.bool_]:
        """Which pixels hold no data: by a mask, the nodata value, or because they are NaN."""
        missing = np.zeros(pixels.shape, np.bool_)
        if pixels.dtype.kind in "fc":
            missing |= np.isnan(pixels)
        if self.masked_by == "mask" and mask is not None:
            missing |= mask == 0
        elif self.masked_by == "nodata" and self.nodata is not None:
            missing |= pixels == self.nodata
        return missing


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
    #: the local files that hold its pixels: its own and, of a VRT, its sources
    files: tuple[str, ...] = ()
    #: of each file its size in bytes and the time of its last change: they tell of a replacement
    state: tuple[tuple[int, int], ...] = ()
    #: by how much each overview is reduced
    overviews: tuple[int, ...] = ()
    #: the overview that this is the header of; None for the raster itself
    level: int | None = None
    tags: tuple[tuple[str, str], ...] = ()
    #: ground control points, where there is no transform: row, column, x, y and z of each
    gcps: tuple[tuple[float, ...], ...] = ()
    #: rational polynomial coefficients, likewise, as GDAL writes them
    rpcs: tuple[tuple[str, str], ...] = ()
    #: what the file says of its bands, where ``bands`` are those of scaled pixels
    unscaled: tuple[Band, ...] = ()

    @property
    def stored(self) -> tuple[Band, ...]:
        """The bands as they are in the file."""
        return self.unscaled or self.bands

    def scaled(self) -> "Raster":
        """The same raster with scale and offset applied: floats, in which NaN is no data."""
        plain: dict[str, Any] = {
            "nodata": np.nan,
            "masked_by": "nodata",
            "scale": 1.0,
            "offset": 0.0,
            "colors": (),
        }
        bands = [
            replace(band, dtype=np.result_type(band.dtype, np.float32).name, **plain)
            for band in self.stored
        ]
        return replace(self, bands=tuple(bands), unscaled=self.stored)

    @property
    def placed(self) -> bool:
        """Whether a transform tells where its pixels lie on the map."""
        return not (self.gcps or self.rpcs)

    @property
    def state_digest(self) -> str:
        """Names, sizes and times of its files, as one text to compare."""
        names = [Path(file).name for file in self.files]
        return hashlib.sha256(repr((names, self.state)).encode()).hexdigest()

    @property
    def identity(self) -> "Raster":
        """The header without its path, files and times: equal for the same raster elsewhere."""
        return replace(self, path="" if self.files else self.path, files=(), state=())

    def check_unchanged(self) -> None:
        """Raise ``RasterError`` where one of its files is not what it was when it was planned."""
        for file, state in zip(self.files, self.state, strict=True):
            if _state(file) != state:
                raise RasterError(
                    f"{file} has changed since the plan was made: what is cut from it would not "
                    "belong to the same raster. Plan again, and write to another path"
                )

    def dtype(self, bands: Sequence[int]) -> str:
        """The type that some bands have in common; raise ``RasterError`` where they differ."""
        found = list(dict.fromkeys(self.stored[band - 1].dtype for band in bands))
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


def read_header(
    path: str | os.PathLike[str] | Raster,
    level: int | None = None,
    *,
    allow_remote: bool = False,
) -> Raster:
    """Read a raster's header, or that of one of its overviews (the first is 0).

    A local file is opened by the driver of its suffix and by none that follows references to other
    data. A VRT has to be called ``.vrt``; remote data that it names need `allow_remote`, and files
    outside its folder are named in a warning. A path or URL that is remote itself is explicit.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    RasterError
        It is no raster, has no bands, or refers to data that it may not.
    """
    if isinstance(path, Raster):
        if level is None:
            return path
        with open_raster(replace(path, level=level)) as source:
            return _described(source, path.path, level, bool(path.files))
    name = os.fspath(path)
    local = _is_local(name)
    driver = None
    if local and not allow_remote and (file := _overviews_elsewhere(str(path))):
        raise RasterError(
            f"{file} says that the overviews lie in another file; give allow_remote=True if you "
            "trust it"
        )
    if local and not allow_remote:
        suffix = Path(name).suffix.lower()
        driver = {".tif": "GTiff", ".tiff": "GTiff", ".vrt": "VRT"}.get(suffix)
        if driver == "VRT":
            check_references(Path(name))
        elif refers_elsewhere(Path(name)):
            raise RasterError(
                f"{name} is a text that names other data; call it .vrt if it is a VRT, or give "
                "allow_remote=True if you trust it"
            )
    try:
        with _quiet(), rasterio.open(name, driver=driver) as source:
            return _described(source, name, None, local)
    except rasterio.errors.RasterioIOError as error:
        raise RasterError(f"{name} cannot be opened as a raster: {error}") from error


def open_raster(header: Raster) -> Any:
    """Open the raster, or the overview, that a header is of."""
    options = {} if header.level is None else {"overview_level": header.level}
    with _quiet():
        return rasterio.open(header.path, driver=header.driver, **options)


_one_at_a_time = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """No warning that a raster has no place on the map: pixel boxes need none."""
    # Python's filters of warnings belong to the process, and threads of ours open rasters
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def _is_local(name: str) -> bool:
    """Whether a name is that of a file or folder here, which then is a proper one."""
    if name.startswith("/vsi") or "://" in name:
        return False
    if not os.path.lexists(name) and (":" in name or name.lstrip().startswith("<")):
        return False  # a driver's own syntax, or a VRT as text
    check_file(name, "raster")
    if Path(name).is_dir() and not any(Path(name).iterdir()):
        raise RasterError(f"{name} is an empty folder, not a raster")
    return True


def check_file(name: str | os.PathLike[str], what: str) -> None:
    """Raise where there is no file or folder, or something that cannot be read to its end."""
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"there is no {what} at {name!s:.200}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise RasterError(f"{name} is a device, a pipe or a socket, not a file with a {what}")


def _state(file: str) -> tuple[int, int] | None:
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def refers_elsewhere(file: Path) -> bool:
    """Whether a file is a text that GDAL would follow to other data."""
    if file.is_dir() or ".gti" in file.suffixes:
        return not file.is_dir()
    with file.open("rb") as content:
        head = content.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith((b"<", b"{")) and bool(_REFERRING.search(head))


def check_references(path: Path) -> None:
    """Follow what a VRT names: refuse remote data, warn of files outside its folder."""
    outside: list[Path] = []
    waiting = [path.absolute()]
    seen = set(waiting)
    while waiting:
        vrt = waiting.pop()
        for relative, source in _SOURCE.findall(vrt.read_text(errors="replace")):
            source = unescape(source).strip()
            if _REMOTE.search(source):
                raise RasterError(
                    f"{vrt} reads {source!r:.200}; give allow_remote=True if you trust it"
                )
            file = (
                vrt.parent / source
                if re.search(r"relative\w+\s*=\s*.1", relative)
                else Path(source)
            )
            file = file.absolute()
            if file in seen or not file.is_file():
                continue
            seen.add(file)
            if not file.resolve().is_relative_to(path.resolve().parent):
                outside.append(file)
            if file.suffix.lower() == ".vrt":
                waiting.append(file)
            elif refers_elsewhere(file):
                raise RasterError(
                    f"{vrt} reads {file}, a text that names other data; give allow_remote=True if "
                    "you trust it"
                )
    if outside:
        warnings.warn(
            f"{path} reads {len(outside)} files outside its own folder, the first {outside[0]}",
            RasterWarning,
            stacklevel=4,
        )


def _described(source: Any, name: str, level: int | None, local: bool) -> Raster:
    if source.count == 0:
        parts = ", ".join(source.subdatasets[:3]) or "none"
        raise RasterError(f"{name} has no bands of its own; its subdatasets: {parts}")
    if source.transform.is_degenerate:
        raise RasterError(f"the transform of {name} cannot be inverted: {source.transform!r}")
    unplaced = source.transform.is_identity
    points, point_crs = source.gcps if unplaced else ([], None)
    crs = source.crs or point_crs
    files = _files(source) if local else []
    return Raster(
        path=name,
        driver=source.driver,
        width=source.width,
        height=source.height,
        bands=tuple(_band(source, number) for number in source.indexes),
        crs=crs.to_wkt() if crs else None,
        transform=tuple(float(number) for number in source.transform.to_gdal()),
        block=(int(source.block_shapes[0][0]), int(source.block_shapes[0][1])),
        interleave=source.interleaving.name if source.interleaving else "pixel",
        files=tuple(files),
        state=tuple(_state(file) or (0, 0) for file in files),
        overviews=_overviews(source),
        level=level,
        tags=_tags(source.tags()),
        gcps=tuple((point.row, point.col, point.x, point.y, point.z or 0.0) for point in points),
        rpcs=tuple(source.rpcs.to_gdal().items()) if unplaced and source.rpcs else (),
    )


def _files(source: Any) -> list[str]:
    """The files that a raster's pixels lie in, of nested VRTs too."""
    files: dict[str, None] = {}
    waiting = list(source.files)
    while waiting:
        file = waiting.pop(0)
        if file in files or file.endswith(".aux.xml") or not Path(file).exists():
            continue  # statistics, which a viewer may write at any time, are no pixels
        files[file] = None
        if file.lower().endswith(".vrt") and file != source.name:
            with rasterio.open(file, driver="VRT") as nested:
                waiting += nested.files
    return list(files)


def _band(source: Any, number: int) -> Band:
    flags = {flag.name for flag in source.mask_flag_enums[number - 1]}
    color = source.colorinterp[number - 1].name
    colors = source.colormap(number) if color == "palette" else {}
    return Band(
        # NumPy has no complex numbers of integers; float32 holds those of 16 bits exactly
        dtype=source.dtypes[number - 1].replace("complex_int16", "complex64"),
        nodata=source.nodatavals[number - 1],
        masked_by="nodata" if "nodata" in flags else "mask" if "per_dataset" in flags else "",
        description=source.descriptions[number - 1] or "",
        color=color,
        scale=source.scales[number - 1],
        offset=source.offsets[number - 1],
        unit=source.units[number - 1] or "",
        colors=tuple((value, *color) for value, color in sorted(colors.items())),
        tags=_tags(source.tags(number)),
    )


def _tags(tags: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """What was said of the raster, but for statistics of its pixels: they are not the chips'."""
    return tuple(item for item in tags.items() if not item[0].startswith("STATISTICS_"))


def _overviews_elsewhere(path: str) -> Path | None:
    """The side file by which GDAL would take a raster's overviews from a file that it names."""
    side = Path(f"{path}.aux.xml")
    return side if side.is_file() and b"OVERVIEW_FILE" in side.read_bytes() else None


def _overviews(source: Any) -> tuple[int, ...]:
    """Factors of the overviews, if all bands have the same."""
    factors = [tuple(source.overviews(band)) for band in source.indexes]
    return factors[0] if len(set(factors)) == 1 else ()


def densified(boxes: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points along the edges of map boxes (left, bottom, right, top): two (box, point) arrays.

    Edges curve when they are reprojected, so that four corners do not bound them.
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
    """How a person calls a CRS: its authority's code, else its name."""
    found = pyproj.CRS.from_user_input(crs)
    authority = found.to_authority()
    return ":".join(authority) if authority else str(found.name)


def extent(bounds: Sequence[float]) -> str:
    """A bounding box in words."""
    left, bottom, right, top = bounds
    return f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"
