"""What a network looks at: class activation maps, how faithful they are, receptive fields."""

from workbench._extras import need

need("torch", extra="gradcam")

from workbench.gradcam.baselines import (  # noqa: E402
    centre_maps,
    energy_inside,
    points_inside,
    random_maps,
)
from workbench.gradcam.examples import mosaics, photographs  # noqa: E402
from workbench.gradcam.faithfulness import Faithfulness, faithfulness  # noqa: E402
from workbench.gradcam.probe import Probe  # noqa: E402
from workbench.gradcam.randomization import randomization  # noqa: E402
from workbench.gradcam.receptive_field import narrowest, receptive_field  # noqa: E402
from workbench.gradcam.running import images_for  # noqa: E402
from workbench.gradcam.seen import METHODS, Seen, resize  # noqa: E402

__all__ = [
    "Probe", "Seen", "METHODS", "images_for", "resize",
    "faithfulness", "Faithfulness", "randomization",
    "random_maps", "centre_maps", "energy_inside", "points_inside",
    "receptive_field", "narrowest",
    "photographs", "mosaics",
]  # fmt: skip
