"""Boxes, polygons and points on images: read, draw, review and write them."""

from workbench.datasets.boxes import as_table, clip, image_sizes

__all__ = ["as_table", "clip", "image_sizes"]
