"""Regions of large rasters as an image dataset: each block read once, in bounded memory."""

from workbench.rasters.spatial import nearest, pair_blocks, pairs_within

__all__ = [
    "pairs_within",
    "pair_blocks",
    "nearest",
]
