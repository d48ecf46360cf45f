"""What training tells of each sample: recordings of the logits, and scores made of them."""

# ruff: noqa: E402
from workbench._extras import need

need("torch", extra="networks")

from workbench.dynamics.gradients import grand
from workbench.dynamics.recording import Recorder, record
from workbench.dynamics.scores import aum, cartography, el2n, forgetting

__all__ = ["record", "Recorder", "el2n", "grand", "forgetting", "aum", "cartography"]
