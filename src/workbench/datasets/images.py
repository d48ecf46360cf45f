"""Decode encoded images: one, or many in threads; from regular files and known formats only."""

import functools
import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from workbench.datasets.errors import BadImageError, SkippedWarning
from workbench.datasets.parquet import read_cell

Fit = Literal["crop", "pad", "stretch"]
Mode = Literal["RGB", "L"]
Size = tuple[int, int]
Values = tuple[float, float]
Item = str | bytes | None  # a path, an encoded picture, or nothing where one should be
FITS: tuple[str, ...] = get_args(Fit)
MODES: tuple[str, ...] = get_args(Mode)
CHANNELS = {"RGB": 3, "L": 1}
_DEEP = ("I", "F")  # modes of more than 8 bits
_PART = re.compile(r"(.+)#offset=(\d{1,18})&size=(\d{1,18})")
_CELL = re.compile(r"(.+)#column=([^#]+)&row=(\d{1,18})&size=\d{1,18}")
_BATCH = 1024
_ROWS = 64
# Formats that are decoded in this process: not EPS, whose decoder starts Ghostscript, and not what
# Pillow only knows by name.
_FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG"),
    *("PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
)
LARGEST_FILE = 2**30
# To open a pipe without the first would wait for whoever writes into it.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that are read: those of ours that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def open_image(encoded: bytes | BinaryIO) -> Image.Image:
    """Open an encoded image of one of :func:`formats`."""
    return Image.open(
        io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, "r", formats()
    )


def open_file(path: str) -> BinaryIO:
    """Open a regular file; raise ``OSError`` for a pipe, a device or a socket, and for no file."""
    try:
        number = os.open(path, os.O_RDONLY | _AT_ONCE)
    except ValueError as error:  # a NUL in the path
        raise OSError(0, str(error)) from error
    file = os.fdopen(number, "rb")
    if not stat.S_ISREG(os.fstat(number).st_mode):
        file.close()
        raise OSError(0, "not a regular file")
    return file


def decode(
    content: bytes,
    where: str,
    size: Size | None = None,
    fit: Fit = "crop",
    mode: Mode = "RGB",
    values: Values | None = None,
) -> NDArray[np.uint8]:
    """Return the first frame of an encoded picture, upright, as (y, x, channel).

    Transparency is laid on white. In pictures of more than 8 bits `values`, the least and the
    greatest, become 0 and 255, and what lies beyond is clipped; left out, those of
    :func:`value_range` of this picture alone.

    Raises
    ------
    BadImageError
        The picture is broken, cut off or of an unknown format; ``where`` names it.
    """
    try:
        with open_image(content) as image:
            if size is not None:  # a large JPEG is decoded at a half, a quarter or an eighth
                image.draft(None, (2 * max(size), 2 * max(size)))
            picture = _plain(_upright(image), mode, values)
        if size is not None:
            picture = _fitted(picture, size, fit)
        return np.asarray(picture, dtype=np.uint8).reshape(*picture.size[::-1], CHANNELS[mode])
    except MemoryError:
        raise
    except Exception as error:  # Pillow's many decoders raise errors of nearly every kind
        reason = "not an image in a format that Pillow reads"
        if not isinstance(error, UnidentifiedImageError):
            reason = str(error) or type(error).__name__
        raise BadImageError(where, reason) from error


def header_size(file: str | os.PathLike[str] | bytes | None) -> Size | None:
    """Return (height, width) from a picture's header, upright; None where it cannot be read."""
    try:
        path = "" if isinstance(file, bytes) else os.fspath(file or "")
        whole = path and not is_part(path)
        encoded = file if isinstance(file, bytes) else b"" if whole else content(path, path)
        with open_file(path) if whole else io.BytesIO(encoded) as opened:
            image = open_image(opened)
            width, height = image.size
            turned = _orientation(image) >= 5
            if image.format == "TIFF":  # whose size Pillow turns already, depending on its version
                tags = image.tag_v2  # type: ignore[attr-defined]
                width, height = tags[0x0100], tags[0x0101]
            return (width, height) if turned else (height, width)
    except Exception:  # whatever is wrong with it is reported when it is decoded
        return None


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where the EXIF data are broken, which keeps the pixels."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # Pillow raises errors of nearly every kind for broken EXIF data
        return 1


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # so that no broken pixels are taken for a broken EXIF
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above
        return image


def deep_values(encoded: bytes) -> tuple[Values, bool] | None:
    """Least and greatest value of a picture of more than 8 bits, and whether it has just 16.

    None for one of 8 bits, and for one that cannot be read, which is reported when it is decoded.
    """
    try:
        with open_image(encoded) as image:
            if not image.mode.startswith(_DEEP):
                return None
            # Pillow has opened a 16-bit PNG both as I;16 and as I, depending on its version
            sixteen = image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")
            return _ends(np.asarray(image)), sixteen
    except Exception:  # as above
        return None


def value_range(seen: Values, sixteen: bool) -> Values:
    """The range of pictures of more than 8 bits whose values lie where they were seen.

    0 to 65,535 for 16 bits; for others, which have no range of their own, the first of 0 to 1, 0
    to 255 and 0 to 65,535 that holds the values, else their least and greatest.
    """
    tops = (65535.0,) if sixteen else (1.0, 255.0, 65535.0)
    for top in tops:
        if seen[0] >= 0 and seen[1] <= top:
            return 0.0, top
    return seen


def _plain(image: Image.Image, mode: Mode, values: Values | None) -> Image.Image:
    """Return the picture in 8-bit grey or RGB."""
    if image.mode.startswith(_DEEP):
        sixteen = image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")
        image = Image.fromarray(_to_bytes(np.asarray(image), values, sixteen))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert("RGB").convert(mode) if image.mode != mode else image


def _ends(pixels: NDArray[Any]) -> Values:
    """Least and greatest finite value, without a copy of the pixels in a wider type."""
    if pixels.dtype.kind == "f":
        pixels = np.where(np.isfinite(pixels), pixels, np.float32(0))
    return float(pixels.min()), float(pixels.max())


def _to_bytes(pixels: NDArray[Any], values: Values | None, sixteen: bool) -> NDArray[np.uint8]:
    low, high = values or value_range(_ends(pixels), sixteen)
    scaled = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _ROWS):  # whole, it would take 30 bytes a pixel
        rows = pixels[top : top + _ROWS].astype(np.float64)
        share = (np.nan_to_num(rows, posinf=0.0, neginf=0.0) - low) / ((high - low) or 1.0)
        scaled[top : top + _ROWS] = np.rint(np.clip(share, 0, 1) * 255)
    return scaled


def _fitted(image: Image.Image, size: Size, fit: Fit) -> Image.Image:
    target = size[::-1]
    if image.size == target:
        return image
    if fit == "crop":
        return ImageOps.fit(image, target)
    if fit == "pad":
        return ImageOps.pad(image, target)
    return image.resize(target)


@dataclass(frozen=True)
class Pictures:
    """Encoded pictures, what to call each in a message, and how to decode them.

    It slices like an array of shape (sample, y, x, channel), which is all that dask needs to read
    one block of it; a picture that cannot be read is then blank and named in a warning.
    """

    items: Sequence[Item]
    names: Sequence[str]
    size: Size | None = None
    fit: Fit = "crop"
    mode: Mode = "RGB"
    on_bad: str = "skip"
    values: Values | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array that the pictures make. They need a common size for it."""
        height, width = self.size or (0, 0)
        return (len(self.items), height, width, CHANNELS[self.mode])

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[np.uint8]:
        rows, *rest = key
        wanted = np.arange(len(self.items))[rows]
        image = np.zeros((np.size(wanted), *self.shape[1:]), np.uint8)
        bad = []
        for i, row in enumerate(np.atleast_1d(wanted)):
            try:
                image[i] = self.read(int(row))[0]
            except BadImageError as error:
                if self.on_bad == "raise":
                    raise
                bad.append(error)
        if bad:
            warnings.warn(f"left blank: {listed(bad)}", SkippedWarning, stacklevel=2)
        blocks: NDArray[np.uint8] = image.reshape(*np.shape(wanted), *self.shape[1:])
        return blocks[(*[slice(None)] * np.ndim(wanted), *rest)]

    def read(self, row: int) -> tuple[NDArray[np.uint8], bytes]:
        """Return one picture and the SHA-256 digest of its encoded bytes."""
        encoded = content(self.items[row], self.names[row])
        image = decode(encoded, self.names[row], self.size, self.fit, self.mode, self.values)
        return image, hashlib.sha256(encoded).digest()

    def try_all(
        self, progress: bool = True
    ) -> Iterator[tuple[NDArray[np.uint8], bytes] | BadImageError]:
        """Yield in order what ``read`` returns for each picture, or the error it raises."""
        from tqdm import tqdm

        def attempt(row: int) -> tuple[NDArray[np.uint8], bytes] | BadImageError:
            try:
                return self.read(row)
            except BadImageError as error:
                return error

        total = len(self.items)
        # Threads hide the waiting for files; for small pictures in memory they only contend.
        in_memory = all(isinstance(item, bytes) for item in self.items)
        with (
            ThreadPoolExecutor(1 if in_memory else min(8, os.cpu_count() or 1)) as pool,
            tqdm(
                total=total,
                desc="Reading images",
                unit="image",
                delay=2,
                leave=False,
                disable=not progress,
            ) as bar,
        ):
            for start in range(0, total, _BATCH):  # so that decoded pictures do not pile up
                yield from pool.map(attempt, range(start, min(start + _BATCH, total)))
                bar.update(min(_BATCH, total - start))

    def keep(self, rows: NDArray[np.intp]) -> "Pictures":
        """Return some of the pictures, given by position."""
        items = [self.items[row] for row in rows]
        return replace(self, items=items, names=[self.names[row] for row in rows])


def listed(bad: Sequence[BadImageError], most: int = 5) -> str:
    """Return the first few bad images with their reasons, and how many more there are."""
    lines = "".join(f"\n  {error}" for error in bad[:most])
    more = f"\n  and {len(bad) - most} more" if len(bad) > most else ""
    return f"{len(bad)} image{'s'[: len(bad) > 1]} could not be read:{lines}{more}"


def located(item: str) -> tuple[str, int, int]:
    """Return path, offset and size of an encoded picture; 0 and -1 where it is the whole file.

    ``shard-00000.tar#offset=512&size=1234`` is a part of one.
    """
    part = _PART.fullmatch(item)
    return (part[1], int(part[2]), int(part[3])) if part else (item, 0, -1)


def encoded_size(item: Item) -> int:
    """The number of an encoded picture's bytes; 0 where its file is missing, as is told later."""
    if not isinstance(item, str):
        return len(item or b"")
    if is_part(item):
        return int(item.rpartition("=")[2])
    try:
        return os.stat(item).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return 0


def is_part(item: str) -> bool:
    """Whether an item is a part of a file: of a tar, or a cell of a Parquet table."""
    return bool(_PART.fullmatch(item) or _CELL.fullmatch(item))


def content(item: Item, name: str) -> bytes:
    """Return an encoded picture's bytes, out of its file where it is not given itself."""
    if isinstance(item, bytes):
        found = item
    elif not item:
        raise BadImageError(name, "no image is given")
    else:
        try:
            found = _read(item)
        except OSError as error:
            raise BadImageError(name, error.strerror or str(error)) from error
    if not found:
        raise BadImageError(name, "the image is empty")
    return found


def _read(item: str) -> bytes:
    if cell := _CELL.fullmatch(item):
        return read_cell(cell[1], cell[2], int(cell[3]))
    path, offset, size = located(item)
    with open_file(path) as file:
        if size < 0 and os.fstat(file.fileno()).st_size > LARGEST_FILE:
            raise OSError(0, f"larger than {LARGEST_FILE:,} bytes, the most that is read")
        file.seek(offset)
        return file.read(size)
