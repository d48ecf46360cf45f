"""What is drawn of boxes before and after they are merged is what was given."""

import numpy as np
import pytest

from workbench import show


def test_boxes_before_and_after():
    halves = np.array([[0, 0, 4, 4], [4, 0, 8, 4]])
    fig = show.merged_boxes({"cut": (halves, {"joined": [[0, 0, 8, 4]]})})
    before, after = fig.axes
    assert after.get_xlabel() == "1 left"
    widths = [patch.get_width() for patch in after.patches]
    assert widths == [4, 4, 8]
    assert before.get_title() == "cut"


def test_nothing_to_show():
    with pytest.raises(ValueError, match="nothing to show"):
        show.merged_boxes({})
