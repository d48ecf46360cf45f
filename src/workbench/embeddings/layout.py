"""What a method makes: the points, and as plain data what it takes to place more beside them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Layout:
    """The points of a map, and what it takes to place further samples beside them.

    `points` is float (sample, axis); `arrays` is empty where the method places nothing; `settings`
    holds whatever JSON can.
    """

    points: np.ndarray
    arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
