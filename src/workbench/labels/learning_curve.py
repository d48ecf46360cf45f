"""Learning curves: what more labels would be worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from workbench._samples import same_samples
from workbench.datasets.dataset import choose
from workbench.labels.probabilities import Factory, class_numbers, learner

DRAWS, TAILS, HELD_OUT = 500, (0.05, 0.95), 0.25
#: Exponents that are tried.
_BETAS = -np.geomspace(0.02, 3, 60)


@dataclass(frozen=True)
class LearningCurve:
    """A power law of the error over the number of labels, ``alpha m^beta + c``.

    Attributes
    ----------
    measured
        ``error`` (seed, size); ``class_error`` (class, size): the share of all held-out samples
        that are of the class and wrong.
    draws
        (draw, size): mean errors of bootstrapped samples and trainings.
    labelled
        How many labels there are now.
    """

    measured: xr.Dataset
    draws: NDArray[np.float64]
    labelled: int

    @property
    def _mean(self) -> NDArray[np.float64]:
        return np.asarray(self.measured["error"].mean("seed"))

    @property
    def power_law(self) -> tuple[float, float, float]:
        """Alpha (at least 0), beta (below 0) and c (at least 0)."""
        return tuple(self._fit(self._mean[None], [1])[1][0].tolist())

    def predict(self, sizes: Sequence[int]) -> pd.DataFrame:
        """The expected error with so many labels: ``error``, and the 90 % interval around it."""
        low, high = np.quantile(self._fit(self.draws, sizes, drawn=True)[0], TAILS, axis=0)
        mean = self._fit(self._mean[None], sizes)[0][0]
        index = pd.Index(sizes, name="labels")
        return pd.DataFrame({"error": mean, "low": low, "high": high}, index=index)

    def answer(self, more: int) -> str:
        """What `more` labels are expected to gain, in words."""
        ahead = [self.labelled, self.labelled + more]
        now, then = self._fit(self.draws, ahead, drawn=True)[0].T
        low, high = np.quantile(now - then, TAILS)
        now, then = self._fit(self._mean[None], ahead)[0][0]
        text = (
            f"{more} more labels: expected gain {100 * (now - then):.1f} ± "
            f"{50 * (high - low):.1f} points"
        )
        each = self._fit(self.measured["class_error"].values, ahead)[0]
        gain = each[:, 0] - each[:, 1]
        if gain.max() <= 0 or now == then:
            return text
        first, share = self.measured["class"].values[gain.argmax()], gain.max() / gain.sum()
        return f"{text}; {'most' if share > 0.5 else f'{share:.0%}'} of it from class {first}"

    def _fit(
        self, errors: NDArray[np.float64], at: Sequence[int], drawn: bool = False
    ) -> tuple[NDArray[np.float64], ...]:
        """Least squares for each row of errors: the law's values `at`, and its parameters.

        Where the rows are draws, the sizes are weighted anew for each: the law is no truth.
        """
        sizes = self.measured["size"].values.astype(float)
        best = np.full(len(errors), np.inf)
        values, laws = np.zeros((len(errors), len(at))), np.zeros((len(errors), 3))
        weight = np.tile(1 / (self._mean + 1e-6), (len(errors), 1))  # variance follows the error
        if drawn:
            weight *= np.random.default_rng(0).exponential(size=weight.shape)
        weight /= weight.sum(axis=1, keepdims=True)
        level = (weight * errors).sum(axis=1)
        for beta in _BETAS:
            power = sizes**beta
            middle, both, square = weight @ power, (weight * errors) @ power, weight @ power**2
            alpha = (both - level * middle) / (square - middle**2)
            c = level - alpha * middle
            alpha = np.where(c < 0, both / square, alpha)
            alpha, c = np.where(alpha < 0, 0, alpha), np.where(alpha < 0, level, c.clip(0))
            miss = (weight * (errors - alpha[:, None] * power - c[:, None]) ** 2).sum(axis=1)
            better = miss < best
            best[better] = miss[better]
            then = alpha[:, None] * np.asarray(at, float) ** beta + c[:, None]
            values[better] = then[better]
            laws[better] = np.c_[alpha, np.full(len(c), beta), c][better]
        return values, laws


def learning_curve(
    model: Literal["logistic"] | Factory,
    features: xr.DataArray | xr.Dataset,
    labels: ArrayLike | xr.DataArray,
    sizes: Sequence[int] | None = None,
    seeds: int = 10,
    *,
    progress: bool = True,
) -> LearningCurve:
    """Learning curve: the error with fewer labels, and so the gain to expect of more.

    For each seed a quarter of the samples is held out, and the model trained on parts of the
    rest. The power law ``alpha m^beta + c`` is fitted to the mean errors; its interval comes from
    bootstrapping the samples, the trainings and the sizes. Ask for a few times the labels there
    are, not for a hundred times.

    Parameters
    ----------
    model, features
        As in :func:`out_of_fold`.
    labels
        int (sample,), -1 for those without, which are left out.
    sizes
        Numbers of labels to train on, at least four; by default eight up to three quarters.
    seeds
        How many trainings of each size, at least two.
    progress
        Show a bar.

    Returns
    -------
    LearningCurve
        ``predict([1000, 2000])`` is a table, ``answer(200)`` a sentence.

    Raises
    ------
    ValueError
        There are too few sizes or seeds, or a size is below the number of classes or above three
        quarters of the labels.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = xr.DataArray(rng.normal(size=(200, 5)), dims=("sample", "feature"))
    >>> curve = learning_curve("logistic", x, (x[:, 0] > 0).astype(int), progress=False)
    >>> curve.answer(100).startswith("100 more labels: expected gain")
    True
    """
    labels = same_samples(labels, features, ("labels", "features"))
    known = np.flatnonzero(np.asarray(labels) >= 0)
    given, source = class_numbers(np.asarray(labels)[known]), features.isel(sample=known)
    n, classes = len(given), np.unique(given)
    most = n - round(HELD_OUT * n)
    if sizes is None:
        sizes = np.unique(
            np.geomspace(max(2 * len(classes), most / 10), most, 8).astype(int)
        ).tolist()
    if len(sizes) < 4 or seeds < 2 or min(sizes) < len(classes) or max(sizes) > most:
        raise ValueError(
            f"sizes={list(sizes)}, seeds={seeds}: give at least four sizes from {len(classes)}, "
            f"the classes, to {most}, three quarters of the labels, and two seeds"
        )
    wrong = np.full((seeds, len(sizes), n), np.nan, np.float32)
    bar = tqdm(total=seeds * len(sizes), unit="training", disable=not progress)
    for seed in range(seeds):
        learn = learner(model, source, given, (int(given.max()) + 1, seed, None))
        rest = choose(given, n, most, seed)
        asked = np.setdiff1d(np.arange(n), rest)
        for j, size in enumerate(sizes):
            found = learn(rest[choose(given[rest], most, size, seed)], asked)
            wrong[seed, j, asked] = found.argmax(axis=1) != given[asked]
            bar.update()
    bar.close()
    coords = {"seed": range(seeds), "size": list(sizes), "class": classes}
    held = np.isfinite(wrong).sum(axis=(0, 2))
    of_class = [np.nansum(wrong[:, :, given == k], axis=(0, 2)) / held for k in classes]
    values = {
        "error": (("seed", "size"), np.nanmean(wrong, axis=2)),
        "class_error": (("class", "size"), np.array(of_class)),
    }
    return LearningCurve(xr.Dataset(values, coords), _bootstrap(wrong), n)


def _bootstrap(wrong: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean errors (draw, size), the samples and the trainings drawn anew with replacement."""
    seeds, sizes, n = wrong.shape
    rng = np.random.default_rng(0)
    held = np.isfinite(wrong[:, 0]).astype(float)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(float)
    counts = (drawn @ np.nan_to_num(wrong).reshape(-1, n).T).reshape(DRAWS, seeds, sizes)
    errors = counts / (drawn @ held.T)[:, :, None]
    weight = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    return np.asarray(np.einsum("ds,dsj->dj", weight, errors))
