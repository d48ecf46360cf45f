"""One folder of tar shards: encoded images, their annotations, an index; streamed for training."""

from workbench.datasets.boxes import boxes_of
from workbench.datasets.shards import read_boxes
from workbench.store.budget import budget
from workbench.store.perturb import Perturb
from workbench.store.regions import Split, split_regions
from workbench.store.server import Server, serve
from workbench.store.shards import open, verify, write  # noqa: A004 - as files are opened
from workbench.store.stream import Stream, folds, stream

__all__ = [
    "write",
    "open",
    "verify",
    "read_boxes",
    "stream",
    "Stream",
    "Perturb",
    "boxes_of",
    "folds",
    "budget",
    "serve",
    "Server",
    "split_regions",
    "Split",
]
