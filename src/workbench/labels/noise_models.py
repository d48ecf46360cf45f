"""Label noise models, fitted by expectation and maximisation and weighed by evidence."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Weighed = tuple[Numbers, Numbers, Floats]
#: Sharpness that is tried for the class model, as shares of the calibrating temperature.
SHARPNESS = (1.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15)
#: Labels of each class that count as seen to be right before any is looked at.
TRUST = 10.0
#: Added to every probability, so that none is impossible: votes of a few neighbours hold zeros.
FLOOR = 1e-3
#: Of more classes than this only the given and the most probable ones of each sample are weighed,
#: and only the class model is fitted: the others' share is lost in the noise, their time is not.
MOST_CLASSES = 64
WEIGHED = 10
#: Evidence of class noise from which on the class model gets a say, and at which it has all of it.
EVIDENCE = (0.55, 0.75)
#: What the evidence takes from how often errors lie among the most confident samples.
EASY_WEIGHT = 0.1
#: Share of the absorbed model's errors that "prediction differs" cannot see, from which on that
#: model replaces the pairwise comparison, and at which it has done so.
UNSEEN = (0.07, 0.13)
#: What the class model yields to the absorbed model where class noise is evident.
HEDGE = 0.35
#: The most confident share of the samples: noise that depends on the class alone hits them too.
EASY = 0.3
#: The class model is certain of an error above this probability.
CERTAIN = 0.9
TINY = 1e-9


@dataclass(frozen=True)
class ClassModel:
    """The label was drawn from the true class's row of P(given | true), whatever the image.

    `temperature` sharpens the probabilities, ``p^(1/temperature)``.
    """

    temperature: float
    transition: Floats

    def wrong(self, parts: Weighed, given: Numbers) -> Floats:
        """P(true class is not the given | probabilities, given)."""
        classes, own, p = parts
        joint = tempered(np.log(p), self.temperature)
        joint *= self.transition[classes, given[:, None]]
        return _wrong(joint, own)


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


def smoothed(p: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The probabilities, none of them zero: float64, or float32 of many classes.

    A column lies in one piece: maxima and sums over a few classes are then several times faster.
    """
    few = p.shape[1] <= MOST_CLASSES
    found: NDArray[np.floating[Any]] = (
        p.astype(np.float64, order="F") if few else p.astype(np.float32, order="C")
    )
    found += FLOOR
    found /= 1 + FLOOR * p.shape[1]
    return found


def weighed(p: NDArray[np.floating[Any]], given: Numbers) -> Weighed:
    """The classes that are weighed (sample, few), where the given one is, and their shares."""
    n, k = p.shape
    if k <= MOST_CLASSES:
        return np.broadcast_to(np.arange(k), (n, k)), given, p.astype(np.float64, copy=False)
    rows = np.arange(n)
    classes = np.empty((n, WEIGHED), dtype=np.int64)
    left = p.copy()
    for k in range(WEIGHED):  # several times faster than argpartition
        classes[:, k] = left.argmax(axis=1)
        left[rows, classes[:, k]] = -1
    at = classes == given[:, None]
    own = np.where(at.any(axis=1), at.argmax(axis=1), WEIGHED - 1)
    classes[rows, own] = given
    return classes, own, np.take_along_axis(p, classes, axis=1).astype(np.float64)


def tempered(logs: Floats, temperature: float) -> Floats:
    """``p^(1/temperature)`` of the logarithms of p, its rows summing to 1 again."""
    power = logs / temperature
    power -= power.max(axis=1, keepdims=True)
    np.exp(power, out=power)
    power /= power.sum(axis=1, keepdims=True)
    return power


def calibrating_temperature(parts: Weighed, classes: int) -> float:
    """Temperature scaling (Guo et al. 2017, arXiv:1706.04599), half a percent left to chance."""
    _, at, p = parts
    power = np.log(p)
    power -= power.max(axis=1, keepdims=True)
    own = power[np.arange(len(at)), at]
    tried = np.geomspace(0.2, 6, 24)
    likely = [np.exp(own / t) / np.exp(power / t).sum(axis=1) for t in tried]
    fit = [np.log(0.995 * q + 0.005 / classes).mean() for q in likely]
    return float(tried[int(np.argmax(fit))])


def fit_class_model(
    parts: Weighed, given: Numbers, k: int, calibrated: float, rounds: int = 8
) -> ClassModel:
    """Estimate sharpness and transition together, by maximum likelihood.

    For each temperature the transition is estimated by expectation and maximisation (Dawid and
    Skene 1979, with one annotator and the tempered probabilities as prior), with a Dirichlet
    prior that holds labels to be right.
    """
    classes, _, p = parts
    logs = np.log(p)
    cells = (classes * k + given[:, None]).ravel()
    transition = _diagonal(k, 0.9)
    best: tuple[float, ClassModel] | None = None
    few = k <= MOST_CLASSES
    for share in SHARPNESS if few else SHARPNESS[1::2]:
        likely = tempered(logs, share * calibrated)
        for _ in range(rounds if few else rounds // 2):
            joint = likely * transition.take(cells).reshape(likely.shape)
            total = joint.sum(axis=1)
            joint /= total[:, None]
            counts = np.bincount(cells, joint.ravel(), k * k).astype(np.float64)
            transition = _rows(counts.reshape(k, k))
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
    seen: Floats = counts + 1 / k
    seen[np.diag_indices(k)] += TRUST
    seen /= seen.sum(axis=1, keepdims=True)
    return seen


def _diagonal(k: int, right: float) -> Floats:
    found: Floats = np.full((k, k), (1 - right) / (k - 1))
    np.fill_diagonal(found, right)
    return found


@dataclass(frozen=True)
class NoiseMixture:
    """Fitted on some of the samples; tells of any how probably its label is wrong."""

    temperature: float
    class_model: ClassModel
    absorbed: AbsorbedModel | None
    firmly_absorbed: AbsorbedModel | None
    evidence: float
    unseen: float
    threshold: float

    def scores(self, p: NDArray[np.floating[Any]], given: Numbers) -> tuple[Floats, Floats]:
        """In [0, 1], (sample,), where above `threshold` is an issue; and what :meth:`errors` takes.

        The latter adds up over parts of a dataset.
        """
        parts = weighed(p, given)
        by_class = self.class_model.wrong(parts, given)
        absorbed = by_class if self.absorbed is None else self.absorbed.wrong(parts[2], given)
        score = self.evidence * _hedged(by_class, absorbed)
        trusting = against_best_other(*parts[1:])
        differs = np.count_nonzero(trusting > 0.5)
        if self.unseen and self.firmly_absorbed is not None:
            trusting *= 1 - self.unseen
            trusting += self.unseen * self.firmly_absorbed.wrong(parts[2], given)
        score += (1 - self.evidence) * trusting
        certain = by_class[by_class > CERTAIN].sum()
        return score, np.array([by_class.sum(), absorbed.sum(), differs, certain])

    def errors(self, counts: Floats) -> tuple[float, float, float]:
        """Estimate of the number of errors, the least and the most, two Poisson deviations wider.

        The least is what the class model is certain of; the most is what the models come to,
        weighed by the evidence, and a tenth.
        """
        by_class, absorbed, differs, certain = counts.tolist()
        e = self.evidence
        most = max(by_class, absorbed, differs)
        middle = e * by_class + (1 - e) * (self.unseen * absorbed + (1 - self.unseen) * differs)
        high = max(middle, 1.1 * (e * max(by_class, absorbed) + (1 - e) * most))
        high += 2 * high**0.5
        low = max(0.0, certain - 2 * certain**0.5)
        return min(max(middle, low), high), low, high


def fit_noise(p: NDArray[np.floating[Any]], given: Numbers) -> NoiseMixture:
    """Fit the models of :func:`workbench.labels.find_issues` to :func:`smoothed` probabilities."""
    parts = weighed(p, given)
    temperature = calibrating_temperature(parts, p.shape[1])
    class_model = fit_class_model(parts, given, p.shape[1], temperature)
    by_class = class_model.wrong(parts, given)
    evidence = _ramp(_evidence(parts[2], by_class), EVIDENCE)
    absorbed = firm = None
    unseen = 0.0
    if p.shape[1] <= MOST_CLASSES:
        absorbed, firm = (fit_absorbed_model(parts[2], given, weight) for weight in (3.0, 10.0))
        unseen = _ramp(_unseen(p, given, firm.wrong(parts[2], given)), UNSEEN)
        by_class = _hedged(by_class, absorbed.wrong(parts[2], given))
    # Half-way between the cut that is best if the model is right, and the one that never errs by
    # much if it is not.
    threshold = evidence * (best_f1_cut(by_class) + 0.5) / 2 + (1 - evidence) * 0.5
    return NoiseMixture(temperature, class_model, absorbed, firm, evidence, unseen, threshold)


def _hedged(by_class: Floats, absorbed: Floats) -> Floats:
    return (1 - HEDGE) * by_class + HEDGE * absorbed


def against_best_other(own: Numbers, p: Floats) -> Floats:
    """In [0, 1], how far the best other class is above the given one; 0.5 is a tie."""
    rows = np.arange(len(own))
    others = p.copy(order="K")
    others[rows, own] = 0
    found: Floats = (1 + others.max(axis=1) - p[rows, own]) / 2
    return found


def best_f1_cut(wrong: Floats) -> float:
    """The probability down to which to flag for the largest expected F1.

    Expected true positives are the sum of the flagged probabilities; F1 is taken as the ratio of
    expectations, 2 TP / (flagged + wrong).

    Examples
    --------
    >>> best_f1_cut(np.array([0.9, 0.8, 0.1, 0.1]))
    0.8
    """
    ordered = np.sort(wrong)[::-1]
    total = ordered.cumsum()
    f1 = 2 * total / (np.arange(1, len(wrong) + 1) + total[-1])
    return float(ordered[int(np.argmax(f1))])


def _evidence(p: Floats, wrong: Floats) -> float:
    """How surely the class model names its errors, and whether easy samples hold as many.

    Where the probabilities have learnt an annotator's errors it is unsure of each, and finds them
    on hard samples; so it does where classes are hard to tell apart, and sureness counts for more.
    """
    if wrong.sum() < TINY:
        return 0.0
    confidence = p.max(axis=1)
    easy = confidence >= np.quantile(confidence, 1 - EASY)
    sureness = (wrong**2).sum() / wrong.sum()
    return float(sureness + EASY_WEIGHT * min(wrong[easy].mean() / wrong.mean(), 1.0))


def _unseen(p: NDArray[np.floating[Any]], given: Numbers, wrong: Floats) -> float:
    """Share of the errors that lie where the prediction agrees with the label."""
    agrees = p.argmax(axis=1) == given
    return float(wrong[agrees].sum() / max(wrong.sum(), TINY))


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """0 below the first end, 1 above the second, straight between."""
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0, 1))
