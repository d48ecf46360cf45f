"""What a network looks at: class activation maps, how faithful they are, receptive fields."""

# ruff: noqa: E402
from workbench._extras import need

need("torch", extra="gradcam")

from workbench.gradcam.faithfulness import (
    Faithfulness,
    faithfulness,
    randomization,
)
from workbench.gradcam.forward import images_for
from workbench.gradcam.localization import (
    centre_maps,
    energy_inside,
    mosaics,
    photographs,
    points_inside,
    random_maps,
)
from workbench.gradcam.probe import (
    LAYER_METHODS,
    METHODS,
    PIXEL_METHODS,
    Probe,
    ProbeResult,
    resize,
)
from workbench.gradcam.receptive_field import narrowest, receptive_field
from workbench.gradcam.survey import survey, suspects
from workbench.gradcam.targets import (
    detection_target,
    regression_target,
    segmentation_target,
    similarity_target,
)

__all__ = [
    "Probe",
    "ProbeResult",
    "METHODS",
    "LAYER_METHODS",
    "PIXEL_METHODS",
    "images_for",
    "resize",
    "faithfulness",
    "Faithfulness",
    "randomization",
    "random_maps",
    "centre_maps",
    "energy_inside",
    "points_inside",
    "survey",
    "suspects",
    "segmentation_target",
    "detection_target",
    "regression_target",
    "similarity_target",
    "receptive_field",
    "narrowest",
    "photographs",
    "mosaics",
]
