"""Read one picture of any format, mode and size as an array of bytes."""

import io
import os
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from workbench.datasets.errors import BadImageError

Fit = Literal["crop", "pad", "stretch"]
Mode = Literal["RGB", "L"]
Size = tuple[int, int]

FITS: tuple[str, ...] = get_args(Fit)
MODES: tuple[str, ...] = get_args(Mode)
CHANNELS = {"RGB": 3, "L": 1}


def decode(
    content: bytes, where: str, size: Size | None = None, fit: Fit = "crop", mode: Mode = "RGB"
) -> NDArray[np.uint8]:
    """Return the first frame of an encoded picture, upright, as (y, x, channel).

    Transparency is laid on white. 16-bit grey is divided by 257; other integer and float pictures
    that go beyond bytes are stretched from their least to their greatest value.

    Raises
    ------
    BadImageError
        The picture is broken, cut off or of an unknown format; ``where`` names it.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if size is not None:  # a large JPEG is decoded at a half, a quarter or an eighth
                image.draft(None, (2 * max(size), 2 * max(size)))
            picture = _plain(ImageOps.exif_transpose(image), mode)
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
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:  # type: ignore[arg-type]
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5
            return (width, height) if turned else (height, width)
    except Exception:  # whatever is wrong with it is reported when it is decoded
        return None


def _plain(image: Image.Image, mode: Mode) -> Image.Image:
    """Return the picture in 8-bit grey or RGB."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_bytes(np.asarray(image), image))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert("RGB").convert(mode) if image.mode != mode else image


def _to_bytes(values: NDArray[np.generic], image: Image.Image) -> NDArray[np.uint8]:
    """Scale pixels of more than 8 bits. A clip would turn most 16-bit pictures white."""
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    # Pillow has opened a 16-bit PNG both as I;16 and as I, depending on its version
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        low, high = 0.0, 65535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    span = (high - low) or 1.0
    return np.rint((numbers - low) / span * 255).astype(np.uint8)


def _fitted(image: Image.Image, size: Size, fit: Fit) -> Image.Image:
    target = size[::-1]
    if image.size == target:
        return image
    if fit == "crop":
        return ImageOps.fit(image, target)
    if fit == "pad":
        return ImageOps.pad(image, target)
    return image.resize(target)
