"""Images of any type as something to look at: uint8 RGB, and PNG as text for a page."""

from base64 import b64encode
from io import BytesIO
from typing import Any

import numpy as np


def picture(image: np.ndarray) -> np.ndarray:
    """Make an image (y, x, channel) of any type one that matplotlib shows: uint8 RGB.

    One channel becomes grey, of more than three the first three are shown; types other than
    uint8 are stretched from their smallest to their largest finite value.
    """
    shown = np.asarray(image)
    if shown.dtype != np.uint8:
        values = np.nan_to_num(shown.astype(np.float64), posinf=0.0, neginf=0.0)
        low, high = values.min(), values.max()
        shown = ((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    return np.repeat(shown[..., :1], 3, axis=-1) if shown.shape[-1] < 3 else shown[..., :3]


def data_uri(image: np.ndarray, longest: int, form: str = "PNG") -> str:
    """An image (y, x, channel) of at most `longest` pixels a side, as PNG or JPEG, in the page."""
    from PIL import Image

    small = Image.fromarray(picture(image))
    small.thumbnail((longest, longest))
    return image_uri(small, form)


def image_uri(image: Any, form: str = "PNG") -> str:
    """A Pillow image as text that an ``img`` takes for its address."""
    buffer = BytesIO()
    image.save(buffer, format=form, **({"quality": 90} if form == "JPEG" else {}))
    return f"data:image/{form.lower()};base64,{b64encode(buffer.getvalue()).decode('ascii')}"
