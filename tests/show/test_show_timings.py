"""Figures of measurements: what is drawn is what was given."""

import numpy as np
import pandas as pd
import pytest

from workbench import show


@pytest.fixture
def times():
    return pd.DataFrame(
        {
            "way": ["slow", "fast", "slow", "fast"],
            "regions": [10, 10, 100, 100],
            "measured": [10, 10, 10, 100],
            "seconds": [2.0, 0.1, 20.0, 0.5],
        }
    )


def test_bars_are_as_high_as_the_times_and_hatched_where_multiplied_up(times):
    fig = show.durations(times, title="t", caption="n = 100")
    (ax,) = fig.axes
    assert ax.get_yscale() == "log"
    heights = [bar.get_height() for bar in ax.patches]
    assert sorted(heights) == sorted(times["seconds"])
    assert [bar.get_height() for bar in ax.patches if bar.get_hatch()] == [20.0]
    assert any("multiplied up" in text.get_text() for text in fig.legends[0].get_texts())


def test_what_writes_has_a_panel_of_its_own(times):
    fig = show.durations(times.assign(written=[False, True, False, True]))
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["into memory", "written to disk"]


def test_growth_has_a_line_for_each_way(times):
    table = times.rename(columns={"regions": "points"}).assign(extrapolated=[False] * 3 + [True])
    (ax,) = show.growth(table).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in ax.get_lines()}
    assert lines == {"slow": [2.0, 20.0], "fast": [0.1, 0.5]}


def test_memory_shows_the_cap():
    table = pd.DataFrame({"seconds": [0.0, 1.0], "bytes": [2**20, 2**22]})
    (ax,) = show.memory(table, 2**23).axes
    line, cap = ax.get_lines()
    assert line.get_ydata().tolist() == [1, 4]
    assert set(cap.get_ydata()) == {8}


def test_boxes_before_and_after():
    halves = np.array([[0, 0, 4, 4], [4, 0, 8, 4]])
    fig = show.merged_boxes({"cut": (halves, {"joined": [[0, 0, 8, 4]]})})
    before, after = fig.axes
    assert after.get_xlabel() == "1 left"
    widths = [patch.get_width() for patch in after.patches]
    assert widths == [4, 4, 8]
    assert before.get_title() == "cut"


@pytest.mark.parametrize("figure", [show.durations, show.growth, lambda t: show.memory(t, 1)])
def test_nothing_measured(times, figure):
    with pytest.raises(ValueError, match="nothing to show"):
        figure(times.iloc[:0])
    with pytest.raises(ValueError, match="nothing to show"):
        show.merged_boxes({})
