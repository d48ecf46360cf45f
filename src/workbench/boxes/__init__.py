"""Boxes, polygons and points on images: read, draw, review and write them."""

from workbench.boxes.annotation import annotate
from workbench.boxes.decisions import annotated, apply_boxes, box_agreement
from workbench.boxes.formats import (
    from_annotorious,
    from_coco,
    from_voc,
    from_yolo,
    load,
    to_annotorious,
    to_coco,
    to_voc,
    to_yolo,
)
from workbench.boxes.issues import find_box_issues
from workbench.boxes.review import review
from workbench.datasets.boxes import as_table, clip, image_sizes
from workbench.datasets.detections import average_precision

__all__ = [
    "load", "as_table", "clip", "image_sizes",
    "annotate", "apply_boxes", "annotated", "box_agreement", "find_box_issues",
    "review", "average_precision",
    "from_coco", "to_coco", "from_yolo", "to_yolo",
    "from_voc", "to_voc", "from_annotorious", "to_annotorious",
]  # fmt: skip
