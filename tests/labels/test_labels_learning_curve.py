"""What more labels would be worth: the law is found, the interval holds, the answer says so."""

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

from workbench.labels import LearningCurve, learning_curve


def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return xr.DataArray(x[order] / 16, dims=("sample", "feature")), y[order]


def bayes():
    return GaussianNB(var_smoothing=0.01)


def exact(alpha, beta, c, sizes=(50, 100, 200, 400, 800)):
    """A curve that follows its law, with two classes that share the error by three to one."""
    law = alpha * np.array(sizes, float) ** beta + c
    coords = {"seed": [0, 1], "size": list(sizes), "class": ["cat", "dog"]}
    shares = np.array([[0.75], [0.25]]) * law
    values = {
        "error": (("seed", "size"), np.array([law, law])),
        "class_error": (("class", "size"), shares),
    }
    return LearningCurve(xr.Dataset(values, coords), np.tile(law, (20, 1)), labelled=800)


class TestPowerLaw:
    @pytest.mark.parametrize("law", [(2.0, -0.5, 0.05), (0.9, -0.2, 0.0), (5.0, -1.0, 0.01)])
    def test_is_found_where_it_is_exact(self, law):
        curve = exact(*law)
        assert curve.power_law == pytest.approx(law, rel=0.2, abs=0.03)
        expected = law[0] * 3200.0 ** law[1] + law[2]
        assert curve.predict([3200])["error"].item() == pytest.approx(expected, rel=0.02)

    def test_errors_that_do_not_fall_have_no_gain(self):
        curve = exact(-1.0, -0.5, 0.5)
        alpha, _, c = curve.power_law
        assert alpha == 0
        assert c == pytest.approx(curve.measured["error"].mean().item(), abs=0.02)
        assert curve.answer(100).startswith("100 more labels: expected gain 0.0")

    def test_the_answer_names_the_class_that_gains_the_most(self):
        assert exact(2.0, -0.5, 0.05).answer(200) == (
            "200 more labels: expected gain 0.7 ± 0.0 points; most of it from class cat"
        )


class TestLearningCurve:
    @pytest.mark.long
    def test_the_interval_holds_a_larger_size_in_85_of_100_trials(self):
        """Trained on 300 digits and less, asked about 600, measured on the 1,197 others."""
        x, y = digits()
        inside = 0
        for trial in range(100):
            order = np.random.default_rng(trial).permutation(len(x))
            pool, larger, others = order[:300], order[:600], order[600:]
            curve = learning_curve(
                bayes, x[pool], y[pool], [30, 60, 120, 225], seeds=4, progress=False
            )
            measured = 1 - bayes().fit(x[larger], y[larger]).score(x[others], y[others])
            expected = curve.predict([600]).iloc[0]
            inside += expected["low"] <= measured <= expected["high"]
        assert inside >= 85

    def test_more_labels_narrow_the_interval(self):
        x, y = digits()
        widths = []
        for n in (200, 1200):
            found = learning_curve(bayes, x[:n], y[:n], seeds=5, progress=False).predict([2 * n])
            widths.append((found["high"] - found["low"]).item())
        assert widths[1] < 0.6 * widths[0]

    def test_samples_without_a_label_are_left_out(self):
        x, y = digits()
        some = np.where(np.arange(len(y)) % 3 == 0, y, -1)
        curve = learning_curve("logistic", x, some, [60, 90, 120, 150], seeds=2, progress=False)
        assert curve.labelled == (some >= 0).sum()
        assert curve.measured["error"].shape == (2, 4)
        assert np.allclose(
            curve.measured["class_error"].sum("class"),
            curve.measured["error"].mean("seed"),
            atol=0.01,
        )

    @pytest.mark.parametrize(
        "options",
        [
            {"sizes": [60, 90]},
            {"seeds": 1},
            {"sizes": [5, 20, 30, 40]},
            {"sizes": [20, 30, 40, 76]},
        ],
    )
    def test_errors(self, options):
        x, y = digits()
        with pytest.raises(
            ValueError, match="give at least four sizes from 10, the classes, to 75"
        ):
            learning_curve(bayes, x[:100], y[:100], progress=False, **options)
