"""How probably each label is wrong, and where to cut: models of the noise, weighed by evidence.

Measured by ``tests/benchmarks/label_noise.py`` on uniform, pair, confusion and annotator noise at
5, 10, 20 and 40%, with weak and strong probabilities, and by ``label_noise_unseen.py`` beside it
on data, noise (of one class alone, of clusters) and models of another kind: mean F1 over the
cells. Short is where ours falls below the better of the two, by more than .0005.

=========================  =====  ========  =======  =================================
cells                      ours   cleanlab  differs  short of the better of the two
=========================  =====  ========  =======  =================================
MNIST and CIFAR-10 (128)   .770   .720      .686     25, 6 by over .05, .106 at most
digits, six models (96)    .900   .846      .809     12, 5 by over .05, .104 at most
wine and cancer (288)      .817   .765      .758     119, 37 by over .05, .204 at most
=========================  =====  ========  =======  =================================

CIFAR-10's vectors and pretrained probabilities were those of an earlier shipped network, of
88.95%. The constants below were chosen on the first two rows, all of seed 0; nothing was chosen on
the third, tables of 178 and 569 samples, where one error more or less moves F1 by a hundredth.

The short cells of the first two rows: model, rate, F1 ours / the better of the two.

- CIFAR-10: annotator weak-log 5% .119/.123, strong-mlp 10% .553/.556, weak-log 10% .221/.224,
  strong-mlp 20% .732/.752; confusion weak-log 10% .237/.238; pair strong-mlp 5% .536/.607,
  weak-log 5% .143/.164, strong-mlp 10% .662/.736, weak-log 10% .262/.269, strong-log 20%
  .862/.866, strong-mlp 20% .764/.826, weak-log 20% .416/.417; uniform pretrained 5% .485/.575,
  weak-log 5% .139/.158, pretrained 10% .662/.721, weak-log 10% .267/.274, weak-log 20% .436/.439,
  weak-log 40% .627/.632.
- Digits: annotator strong-log 10% .727/.736, pretrained 20% .899/.929, rbf-log 20% .839/.902,
  strong-knn 20% .932/.939, strong-log 20% .752/.856, strong-mlp 20% .889/.898, weak-log 20%
  .856/.864, rbf-log 40% .849/.918, strong-knn 40% .934/.939, strong-mlp 40% .865/.925, weak-log
  40% .845/.924; confusion weak-log 40% .824/.829.
- MNIST: annotator strong-log 5% .623/.653, strong-log 10% .778/.795, pretrained 20% .950/.956,
  strong-mlp 20% .848/.862, weak-log 20% .611/.717, pretrained 40% .960/.980, strong-mlp 40%
  .863/.892.

Where it falls short, a model's own errors look as an annotator's do, or the other way round, and
nothing that was tried tells them apart.

The score's mean average precision over the first row is .823; cleanlab's normalized margin has
.790, the loss .789, FiftyOne's mistakenness .766 (by confidence .774).

The range of the number of errors held the truth in 95% of the first row's cells (81% of those with
annotator noise, all others), 98% of the second's and 95% of the third's; its ends were chosen on
the first two. It is wide: in half of the cells nearly as wide as the number itself, or wider.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.labels.hypotheses import (
    AbsorbedModel,
    ClassModel,
    Floats,
    Numbers,
    calibrating_temperature,
    fit_absorbed_model,
    fit_class_model,
)

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
class Cut:
    """Fitted on some of the samples; tells of any how probably its label is wrong."""

    temperature: float
    class_model: ClassModel
    absorbed: AbsorbedModel
    firmly_absorbed: AbsorbedModel
    evidence: float
    unseen: float
    threshold: float

    def scores(self, p: Floats, given: Numbers) -> tuple[Floats, Floats]:
        """In [0, 1], (sample,), where above `threshold` is an issue; and what :meth:`errors` takes.

        The latter adds up over parts of a dataset.
        """
        by_class = self.class_model.wrong(p, given)
        absorbed = self.absorbed.wrong(p, given)
        score = self.evidence * _hedged(by_class, absorbed)
        score += (1 - self.evidence) * self._trusting(p, given)
        differs = np.count_nonzero(p.max(axis=1) > p[np.arange(len(given)), given])
        certain = by_class[by_class > CERTAIN].sum()
        return score, np.array([by_class.sum(), absorbed.sum(), differs, certain])

    def _trusting(self, p: Floats, given: Numbers) -> Floats:
        """P(wrong) where the probabilities have absorbed the noise."""
        pairwise = (1 - self.unseen) * against_best_other(p, given)
        if self.unseen:
            pairwise += self.unseen * self.firmly_absorbed.wrong(p, given)
        return pairwise

    def errors(self, counts: Floats) -> tuple[float, float, float]:
        """Estimate of the number of errors, the least and the most.

        The least is what the class model is certain of; the most is what the models come to where
        each is taken for as likely as the evidence says, and a tenth. Chance, two standard
        deviations of a Poisson number, widens both.
        """
        by_class, absorbed, differs, certain = counts.tolist()
        e, most = self.evidence, max(by_class, absorbed, differs)
        middle = e * by_class + (1 - e) * (self.unseen * absorbed + (1 - self.unseen) * differs)
        high = max(middle, 1.1 * (e * max(by_class, absorbed) + (1 - e) * most))
        low, high = max(0.0, certain - 2 * certain**0.5), high + 2 * high**0.5
        return min(max(middle, low), high), low, high


def fit_cut(p: Floats, given: Numbers) -> Cut:
    """Fit the models of :func:`workbench.labels.find_issues` and weigh them.

    Parameters
    ----------
    p
        float64 (sample, class), none of them zero.
    given
        int64 (sample,).
    """
    temperature = calibrating_temperature(p, given)
    class_model = fit_class_model(p, given, temperature)
    absorbed, firm = (fit_absorbed_model(p, given, weight) for weight in (3.0, 10.0))
    by_class = class_model.wrong(p, given)
    evidence = _ramp(_evidence(p, by_class), EVIDENCE)
    unseen = _ramp(_unseen(p, given, firm.wrong(p, given)), UNSEEN)
    # Half-way between the cut that is best if the model is right, and the one that never errs by
    # much if it is not.
    by_class_cut = (best_f1_cut(_hedged(by_class, absorbed.wrong(p, given))) + 0.5) / 2
    threshold = evidence * by_class_cut + (1 - evidence) * 0.5
    return Cut(temperature, class_model, absorbed, firm, evidence, unseen, threshold)


def _hedged(by_class: Floats, absorbed: Floats) -> Floats:
    return (1 - HEDGE) * by_class + HEDGE * absorbed


def against_best_other(p: Floats, given: Numbers) -> NDArray[np.float64]:
    """In [0, 1], how far the best other class is above the given one; 0.5 is a tie."""
    rows = np.arange(len(given))
    others = p.copy(order="K")
    others[rows, given] = 0
    found: Floats = (1 + others.max(axis=1) - p[rows, given]) / 2
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

    Errors that depend on the class alone are named with certainty, and are as frequent among the
    samples that the model is sure of. Where the probabilities have learnt the errors of an
    annotator, the class model finds few, is unsure of each, and finds them on hard samples. So
    does confusion of classes that are hard to tell apart, and therefore sureness counts for more.
    """
    if wrong.sum() < TINY:
        return 0.0
    confidence = p.max(axis=1)
    easy = confidence >= np.quantile(confidence, 1 - EASY)
    sureness = (wrong**2).sum() / wrong.sum()
    return float(sureness + EASY_WEIGHT * min(wrong[easy].mean() / wrong.mean(), 1.0))


def _unseen(p: Floats, given: Numbers, wrong: Floats) -> float:
    """Share of the errors that lie where the prediction agrees with the label."""
    agrees = p.argmax(axis=1) == given
    return float(wrong[agrees].sum() / max(wrong.sum(), TINY))


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """0 below the first end, 1 above the second, straight between."""
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0, 1))
