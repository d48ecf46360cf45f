"""Regions of large rasters as an image dataset: each block read once, in bounded memory."""

__all__: list[str] = []
