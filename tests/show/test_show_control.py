"""A figure whose method does not beat its control is grey, and says so."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from workbench import show


def pixels(fig):
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def is_grey(fig):
    values = pixels(fig)
    return np.ptp(values, axis=2).max() == 0


CHANCE = np.random.default_rng(0).normal(0.5, 0.02, 20)


class TestBeats:
    @pytest.mark.parametrize(
        ("values", "higher", "expected"),
        [
            (CHANCE + 0.05, True, True),
            (CHANCE - 0.05, True, False),
            (CHANCE - 0.05, False, True),
            (CHANCE, True, False),
            ([0.6], True, True),
            ([0.51], True, False),
        ],
    )
    def test_as_the_numbers_say(self, values, higher, expected):
        assert show.beats(values, CHANCE, higher=higher) is expected

    def test_seldom_where_there_is_nothing(self):
        rng = np.random.default_rng(0)
        false = np.mean([show.beats(rng.normal(size=8), rng.normal(size=8)) for _ in range(500)])
        assert 0.02 < false < 0.08
        false = np.mean([show.beats(rng.normal(), rng.normal(size=8)) for _ in range(500)])
        assert 0.02 < false < 0.08

    def test_one_draw_decides_nothing(self):
        with pytest.raises(ValueError, match="3 values against 1 draws of the control"):
            show.beats([1, 2, 3], [0])


class TestControl:
    def test_what_wins_stays_in_colour_and_says_by_how_much(self):
        fig = show.curve({"a": [1, 2, 3]}, caption="n = 3 · data")
        before = pixels(fig)
        out = show.control(fig, {"ours": CHANCE + 0.1, "theirs": CHANCE}, CHANCE, name="random")
        assert out is fig
        assert not is_grey(fig)
        text = fig.get_supxlabel().replace("\n", " · ")
        assert text.startswith("n = 3 · data · better than random: ours (0.596")
        assert "NOT better than random: theirs (0.496" in text
        assert before.shape == pixels(fig).shape

    def test_what_loses_is_grey_and_says_so(self):
        fig = show.curve({"a": [1, 2, 3], "b": [3, 2, 1]}, caption="n = 3")
        assert not is_grey(fig)
        fig = show.control(fig, {"ours": CHANCE - 0.1}, CHANCE, name="random")
        assert is_grey(fig)
        assert [text.get_text() for text in fig.texts] == ["Not better than random"]
        assert pixels(fig).std() > 3, "the figure is still to be seen"

    def test_each_method_may_have_a_control_of_its_own(self):
        fig = show.curve([1, 2])
        values = {"a": [1.0, 1.1], "b": [1.0, 1.1]}
        show.control(fig, values, {"a": [0.0, 0.1], "b": [2.0, 2.1]})
        assert "better than chance: a (1.05 against 0.05 ± 0.071)" in fig.get_supxlabel()


class TestControlCurve:
    def test_says_where_each_method_wins(self):
        noise = np.random.default_rng(0).normal(0, 0.01, (10, 2))
        methods = {"ccs": noise + np.array([0.9, 0.8]), "hardest": noise + np.array([0.95, 0.2])}
        fig = show.control_curve(methods, noise[::-1] + np.array([0.9, 0.7]), [0.5, 0.1])
        text = fig.get_supxlabel().replace("\n", " · ")
        assert "better than random: ccs at 0.1" in text
        assert "better than random: hardest at 0.5" in text
        assert "NOT better than random: hardest at 0.1" in text
        assert not is_grey(fig)

    def test_is_grey_where_nothing_wins(self):
        noise = np.random.default_rng(0).normal(0, 0.01, (10, 2))
        assert is_grey(show.control_curve({"ours": noise}, noise + 0.1, [1, 2]))
