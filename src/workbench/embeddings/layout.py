"""What a method makes: the points, and as plain data what it takes to place more beside them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Layout:
    """The points of a map, and arrays and numbers from which further samples find their places.

    Attributes
    ----------
    points
        float (sample, axis).
    arrays
        Those that the method needs to place others; empty where it cannot.
    settings
        The same for numbers and texts: whatever JSON can hold.
    """

    points: np.ndarray
    arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
