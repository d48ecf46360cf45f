"""Compare maps with what they should be."""

import numpy as np
import torch

TARGETS = [5, 700, 31]


def close(ours, theirs, tolerance=1e-5):
    """Equal within `tolerance` of the largest value."""
    theirs = torch.as_tensor(np.asarray(theirs.detach() if torch.is_tensor(theirs) else theirs))
    assert theirs.abs().max() > 0
    scale = theirs.abs().max()
    torch.testing.assert_close(ours / scale, theirs.to(ours) / scale, rtol=0, atol=tolerance)
