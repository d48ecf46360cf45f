"""Image datasets by name, from a folder or from a table, all in one form."""

from workbench.datasets.check import FLAWS, check
from workbench.datasets.coreset import coreset
from workbench.datasets.dataset import subset
from workbench.datasets.distil import distil, predict_distilled
from workbench.datasets.errors import (
    BadDataError,
    BadImageError,
    DataNotFoundError,
    SkippedWarning,
    StandInWarning,
)
from workbench.datasets.loading import load, splits
from workbench.datasets.mlrsnet import load_mlrsnet
from workbench.datasets.named import NAMES

__all__ = [
    "NAMES",
    "load",
    "load_mlrsnet",
    "splits",
    "subset",
    "check",
    "FLAWS",
    "coreset",
    "distil",
    "predict_distilled",
    "BadDataError",
    "BadImageError",
    "DataNotFoundError",
    "SkippedWarning",
    "StandInWarning",
]
