"""How labels go wrong: two models of it, each fitted by expectation and maximisation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

#: Sharpness that is tried for the class model, as shares of the calibrating temperature.
SHARPNESS = (1.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15)
#: Labels of each class that count as seen to be right before any is looked at.
TRUST = 10.0
#: Added to every probability, so that none is impossible: votes of a few neighbours hold zeros.
FLOOR = 1e-3


@dataclass(frozen=True)
class ClassModel:
    """The label was drawn from the row of the true class, whatever the image.

    `temperature` sharpens the probabilities, ``p^(1/temperature)``; `transition` is
    P(given | true), one row a true class.
    """

    temperature: float
    transition: Floats

    def wrong(self, p: Floats, given: Numbers) -> Floats:
        """P(true class is not the given | probabilities, given)."""
        return _wrong(tempered(p, self.temperature) * self.transition[:, given].T, given)


@dataclass(frozen=True)
class AbsorbedModel:
    """The probabilities have learnt the noise: they look like the row of the true class.

    A sample is of class k as far as its probabilities, counted as `weight` labels, and its label
    would be drawn from row k.
    """

    weight: float
    transition: Floats

    def wrong(self, p: Floats, given: Numbers) -> Floats:
        """P(true class is not the given | probabilities, given)."""
        return _wrong(self._likely(p) * self.transition[:, given].T, given)

    def _likely(self, p: Floats) -> Floats:
        fit = self.weight * (np.log(self.transition.clip(1e-4)) @ p.T).T
        fit -= fit.max(axis=1, keepdims=True)
        found: Floats = np.exp(fit)
        return found


def smoothed(p: NDArray[np.floating[Any]]) -> Floats:
    """The probabilities as float64, none of them zero.

    A column lies in one piece: maxima and sums over a few classes are then several times faster.
    """
    found: Floats = (p.astype(np.float64, order="F") + FLOOR) / (1 + FLOOR * p.shape[1])
    return found


def tempered(p: Floats, temperature: float) -> Floats:
    """``p^(1/temperature)``, its rows summing to 1 again."""
    power = np.log(p) / temperature
    power -= power.max(axis=1, keepdims=True)
    np.exp(power, out=power)
    power /= power.sum(axis=1, keepdims=True)
    return power


def calibrating_temperature(p: Floats, given: Numbers) -> float:
    """The temperature under which the probabilities fit the given labels best.

    Guo et al. 2017 (arXiv:1706.04599), with half a percent of the labels left to chance, so that
    a few absurd ones do not decide.
    """
    power = np.log(p)
    power -= power.max(axis=1, keepdims=True)
    own = power[np.arange(len(given)), given]
    tried = np.geomspace(0.2, 6, 24)
    likely = [np.exp(own / t) / np.exp(power / t).sum(axis=1) for t in tried]
    fit = [np.log(0.995 * q + 0.005 / p.shape[1]).mean() for q in likely]
    return float(tried[int(np.argmax(fit))])


def fit_class_model(p: Floats, given: Numbers, calibrated: float, rounds: int = 8) -> ClassModel:
    """Estimate sharpness and transition together, by maximum likelihood.

    For each temperature the transition is estimated by expectation and maximisation (Dawid and
    Skene 1979, with one annotator and the tempered probabilities as prior), with a Dirichlet
    prior that holds labels to be right.
    """
    labels, rows = np.eye(p.shape[1])[given], np.arange(len(given))
    transition = _diagonal(p.shape[1], 0.9)
    best: tuple[float, ClassModel] | None = None
    for share in SHARPNESS:
        likely = tempered(p, share * calibrated)
        for _ in range(rounds):
            total = (transition.T @ likely.T)[given, rows]
            # Row sums of likely * transition[:, given].T / total by label, as one product.
            transition = _rows(transition * ((likely / total[:, None]).T @ labels))
        fit = float(np.log(total).mean())
        if best is None or fit > best[0]:
            best = fit, ClassModel(share * calibrated, transition)
    assert best is not None  # noqa: S101 - SHARPNESS is not empty
    return best[1]


def fit_absorbed_model(p: Floats, given: Numbers, weight: float, rounds: int = 12) -> AbsorbedModel:
    """Estimate the rows that probabilities and labels of each true class look like."""
    model = AbsorbedModel(weight, _diagonal(p.shape[1], 0.7))
    seen = (np.eye(p.shape[1])[given] + p) / 2
    for _ in range(rounds):
        joint = model._likely(p) * model.transition[:, given].T
        joint /= joint.sum(axis=1, keepdims=True)
        model = AbsorbedModel(weight, _rows(joint.T @ seen))
    return model


def _wrong(joint: Floats, given: Numbers) -> Floats:
    total = joint.sum(axis=1)
    own = joint[np.arange(len(given)), given]
    wrong: Floats = 1 - own / total
    return wrong


def _rows(counts: Floats) -> Floats:
    """Counts with the prior added, as probabilities."""
    k = len(counts)
    seen = counts + 1 / k + TRUST * np.eye(k)
    found: Floats = seen / seen.sum(axis=1, keepdims=True)
    return found


def _diagonal(k: int, right: float) -> Floats:
    found: Floats = np.full((k, k), (1 - right) / (k - 1))
    np.fill_diagonal(found, right)
    return found
