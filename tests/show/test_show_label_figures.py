"""Figures of a label review."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench import show


@pytest.fixture
def progress():
    return pd.DataFrame(
        {"reviewed": [10, 20, 30], "left": [8.0, 4.0, 0.0], "low": [1, 0, 0], "high": [30, 12, 3]}
    )


def test_errors_left_are_shares_with_their_interval_and_the_truth(progress):
    fig = show.errors_left(progress, total=200, truth=[7, 5, 1], target=0.01, caption="n = 200")
    ax = fig.axes[0]
    estimate, truth, target = (line.get_ydata() for line in ax.get_lines())
    np.testing.assert_allclose(estimate, [0.04, 0.02, 0.0])
    np.testing.assert_allclose(truth, [0.035, 0.025, 0.005])
    np.testing.assert_allclose(target, 0.01)
    edges = ax.collections[0].get_paths()[0].vertices
    assert edges[:, 1].max() == pytest.approx(0.15)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "90 % interval", "estimate", "truth",
    ]  # fmt: skip
    assert "stop below 1%" in [t.get_text() for t in ax.texts]
    assert fig.get_supxlabel() == "n = 200"


def test_without_a_page_there_is_nothing_to_show(progress):
    with pytest.raises(ValueError, match="no page was reviewed"):
        show.errors_left(progress[:0], total=200)


def test_unknown_and_zero_estimates_are_drawn(progress):
    none = progress.assign(left=[np.nan, 0.0, 0.0])
    whole = show.errors_left(none, total=200).axes[0].get_ylim()
    assert whole == (0, pytest.approx(1.05 * 30 / 200))  # the interval, whatever the estimate


def test_cartography_draws_each_group_and_the_largest_below():
    scores = xr.Dataset(
        {"confidence": ("sample", [0.9, 0.8, 0.1]), "variability": ("sample", [0.1, 0.2, 0.3])}
    )
    ax = show.cartography(scores, ["right", "right", "wrong"]).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["right (2)", "wrong (1)"]
    assert [len(points.get_offsets()) for points in ax.collections] == [2, 1]
    assert ax.collections[1].get_offsets()[0].tolist() == [0.3, 0.1]
    assert show.cartography(scores).axes[0].get_legend() is None
