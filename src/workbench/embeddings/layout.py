"""What a method makes: the points, and as plain data what it takes to place more beside them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Layout:
    """Points (sample, axis), and what it takes to place others; no arrays where nothing does."""

    points: np.ndarray
    arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
