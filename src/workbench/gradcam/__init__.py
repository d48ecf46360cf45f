"""What a network looks at: class activation maps, how faithful they are, receptive fields."""

from workbench._extras import need

need("torch", extra="gradcam")

from workbench.gradcam.probe import Probe  # noqa: E402
from workbench.gradcam.seen import METHODS, Seen, resize  # noqa: E402

__all__ = ["METHODS", "Probe", "Seen", "resize"]
