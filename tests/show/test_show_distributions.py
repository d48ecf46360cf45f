"""Histograms with boxes, and the tables of a joint, show the numbers that they are given."""

import numpy as np
import pytest
import xarray as xr

from workbench import show


def test_histograms_count_every_sample_and_boxes_show_each_groups_median():
    scores = np.r_[np.zeros(10), np.ones(5), 0.25, 0.5, 0.75]
    groups = np.repeat(["low", "high", "rest"], [10, 5, 3])
    fig = show.distributions({"one": scores, "two": 1 - scores}, groups, caption="n = 18")
    assert len(fig.axes) == 4
    for top in fig.axes[0], fig.axes[1]:
        assert sum(bar.get_height() for bar in top.patches) == 18
    left = next(
        ax for ax in fig.axes if [t.get_text() for t in ax.get_yticklabels()][:1] == ["low"]
    )
    assert [t.get_text() for t in left.get_yticklabels()] == ["low", "high", "rest"]
    medians = [line.get_xdata()[0] for line in left.lines if line.get_linewidth() == 2]
    assert medians == [0, 1, 0.5]


def test_scores_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"\['b'\] do not match 2 groups"):
        show.distributions({"a": [1, 2], "b": [1]}, ["x", "y"])


def test_a_joint_is_drawn_as_numbers():
    joint = xr.DataArray(
        np.arange(8).reshape(2, 2, 2),
        dims=("class", "given", "true"),
        coords={"class": ["cars", "trees"], "given": [0, 1], "true": [0, 1]},
    )
    fig = show.joints(joint)
    drawn = [[text.get_text() for text in ax.texts] for ax in fig.axes]
    assert drawn == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]
    assert [ax.get_title() for ax in fig.axes] == ["cars", "trees"]
