"""Errors left: an anytime-valid interval from random audit draws, with reviewers who err."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need

#: At most so many hypotheses on a number of errors; between them limits are rounded outwards.
_POINTS = 2001
#: Strata of the ranking end after these multiples of the flagged part, the last at its end.
_ENDS = (0.5, 1.0, 1.5, 2.0, 4.0)
#: Samples that count as flagged at least, so that the strata have a width.
_LEAST_FLAGGED = 10
#: Errors and right labels that the bet imagines to have seen: in the flagged part, behind it.
_GUESS = ((0.5, 0.5), (0.5, 50.0))
#: Multipliers at which the bound on the sum over the strata is looked for.
_MULTIPLIERS = np.geomspace(1e-3, 1e5, 80)
#: Weight of a score as a guess of its own error probability, against one decision.
_GUESS_WEIGHT = 0.5
#: How often an answer is taken to be wrong at most, until answers given twice tell it.
ASSUMED_MISTAKES = 0.1
#: A number is said once so many draws behind the emptied part are errors, or the interval is
#: narrower than this share of the dataset.
_CARRIED = 3
_NARROW = 0.02


@dataclass(frozen=True)
class ErrorsLeft:
    """What the decisions so far say about the samples that nobody has reviewed.

    Attributes
    ----------
    reviewed, unreviewed, found, audited
        Samples with and without a decision, errors among the former, audit draws used.
    estimate
        Errors left; NaN until three draws behind the emptied part of the ranking were errors or
        the interval is narrower than 2 % of the dataset: it is too early to say.
    low, high
        The interval for the number of errors left. It holds although reviewers err.
    level
        Of the interval, 0.9.
    mistakes
        How often an answer is wrong at most, from answers given twice; 0.1 before there are any.
    """

    reviewed: int
    unreviewed: int
    found: int
    audited: int
    estimate: float
    low: int
    high: int
    level: float
    mistakes: float = 0.0

    @property
    def share(self) -> tuple[float, float, float]:
        """Estimate, low and high as shares of the whole dataset."""
        total = max(self.reviewed + self.unreviewed, 1)
        return self.estimate / total, self.low / total, self.high / total


class Stratum:
    """The errors in one part of a dataset, some of it reviewed by choice and some at random.

    An audit draw is uniform over the samples of the part that are unreviewed at that moment. If
    the part holds K errors, f of them found and n samples unreviewed, the draw is an error with
    probability (K - f) / n, whatever was reviewed by choice before. For every K the ratio of a
    bet on the draws, placed before each of them, to their likelihood is a martingale that starts
    at 1; by Ville's inequality it reaches 1 / alpha with probability alpha at most, at whatever
    time one looks. The K whose ratio is below that are the interval (Waudby-Smith and Ramdas
    2020, arXiv:2006.04347, section 2, with a plug-in bet that follows the review).

    Parameters
    ----------
    size
        Samples in the part.
    guess
        Errors and right labels that the bet imagines to have seen, a Beta prior. A wrong guess
        makes the interval wider, never invalid.

    Examples
    --------
    >>> part = Stratum(1000)
    >>> for _ in range(400):
    ...     part.draw(False)
    >>> part.limits(0.1)
    (0, 11)
    """

    def __init__(self, size: int, guess: tuple[float, float] = (0.5, 0.5)) -> None:
        points = np.linspace(0, size, min(size + 1, _POINTS))
        self.total: NDArray[np.float64] = np.unique(np.rint(points))
        self.unseen = size
        self.found = 0
        self.draws = 0
        self._hits = 0
        self._guess = guess
        self._log_likelihood = np.zeros(len(self.total))
        self._log_bet = 0.0

    def draw(self, error: bool) -> None:
        """Review a sample drawn at random from the unreviewed ones."""
        rate = (self.total - self.found) / self.unseen
        likelihood = np.clip(rate if error else 1 - rate, 0, None)
        with np.errstate(divide="ignore"):
            self._log_likelihood += np.log(likelihood)
        bet = (self._hits + self._guess[0]) / (self.draws + sum(self._guess))
        self._log_bet += float(np.log(bet if error else 1 - bet))
        self.draws += 1
        self._hits += error
        self.review(error)

    def review(self, error: bool) -> None:
        """Review a sample that was chosen, such as the next of the ranking."""
        self.found += error
        self.unseen -= 1

    def log_ratios(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Numbers of errors left and the log of the martingale for each; infinite if impossible."""
        left = self.total - self.found
        possible = (left >= 0) & (left <= self.unseen)
        return left, np.where(possible, self._log_bet - self._log_likelihood, np.inf)

    def limits(self, alpha: float) -> tuple[int, int]:
        """The smallest and the largest number of errors left that the draws do not refute."""
        left, ratio = self.log_ratios()
        inside = np.flatnonzero(ratio < -np.log(alpha))
        if len(inside) == 0:
            inside = np.array([ratio.argmin()])
        # Numbers between two hypotheses count as not refuted.
        low = left[inside[0] - 1] + 1 if inside[0] > 0 else 0
        high = left[inside[-1] + 1] - 1 if inside[-1] + 1 < len(left) else self.unseen
        return int(np.clip(low, 0, self.unseen)), int(np.clip(high, 0, self.unseen))


def rank(score: NDArray[np.float64], flagged: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rank of every sample, 0 for the most suspicious: flagged ones first, then by score."""
    ranking = np.lexsort((-score, ~flagged))  # the last key is the first in rank
    found = np.empty(len(score), dtype=np.int64)
    found[ranking] = np.arange(len(score))
    return found


def strata(flagged: NDArray[np.bool_], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """The stratum of every sample, from 0: halves of the flagged part, then what lies behind it.

    Parameters
    ----------
    flagged
        bool (sample,): those that are taken for errors before anybody has looked.
    rank
        int (sample,): 0 for the most suspicious sample.

    Examples
    --------
    >>> strata(np.arange(100) < 20, np.arange(100))[[0, 10, 20, 30, 40, 99]]
    array([0, 1, 2, 3, 4, 5])
    """
    wide = max(int(np.count_nonzero(flagged)), _LEAST_FLAGGED)
    ends = np.unique(np.rint(np.array(_ENDS) * wide).astype(np.int64).clip(max=len(rank)))
    found: NDArray[np.int64] = np.searchsorted(ends, rank, side="right").astype(np.int64)
    return found


class Audit:
    """The errors left in a whole dataset, while it is reviewed.

    The ranking is divided into strata. A draw from all samples, and one from a single stratum, is
    uniform within its stratum, so that the product of the strata's martingales is one as well; the
    interval holds the sums of all combinations that the product does not refute. Its ends are
    bounded by Lagrange's dual problem, which can only widen it.

    Reviewers err. A label that an audit draw behind the flagged part finds wrong is asked again,
    and where the two answers differ a third time, so that few right labels pass for wrong. How
    often an answer is wrong at most is bounded by how often two answers of a reviewer to the same
    label differ (Clopper and Pearson 1934, 95 %); the ends of the interval move as far as that
    allows. ``docs/benchmarks.md`` holds the coverage that was simulated.

    Parameters
    ----------
    flagged
        bool (sample,): those that are taken for errors before anybody has looked.
    rank
        int (sample,): 0 for the most suspicious sample. Both must not depend on the draws.
    stratum
        int (sample,): the strata, if they are not those of flags and ranks.
    """

    def __init__(
        self,
        flagged: NDArray[np.bool_],
        rank: NDArray[np.int64],
        stratum: NDArray[np.int64] | None = None,
    ) -> None:
        self._rank = rank
        self._stratum = strata(flagged, rank) if stratum is None else stratum
        sizes = np.bincount(self._stratum)
        behind = int(rank[flagged].max(initial=-1))
        self._parts = [
            Stratum(int(size), _GUESS[int(size == 0 or rank[self._stratum == k].min() > behind)])
            for k, size in enumerate(sizes)
        ]
        n = len(rank)
        self._reviewed = np.zeros(n + 1, dtype=bool)
        self._depth = 0
        self._found = 0
        self._drawn: list[tuple[int, int, bool]] = []
        self._asked_twice = 0
        self._differed = 0

    def review(self, position: int, error: bool, drawn: bool) -> None:
        """Take in the decision on one more sample."""
        rank = int(self._rank[position])
        stratum = int(self._stratum[position])
        part = self._parts[stratum]
        (part.draw if drawn else part.review)(error)
        if drawn:
            self._drawn.append((rank, stratum, error))
        self._found += error
        self._reviewed[rank] = True
        while self._reviewed[self._depth]:
            self._depth += 1

    def repeat(self, differs: bool) -> None:
        """Take in that a reviewer was asked about a label again, one chosen at random."""
        self._asked_twice += 1
        self._differed += differs

    def mistakes(self) -> float:
        """How often an answer is wrong at most.

        Two answers of which each is wrong with probability e differ with 2 e (1 - e) or more.
        """
        return _mistakes(self._asked_twice, self._differed)

    def left(self, level: float = 0.9) -> ErrorsLeft:
        """The errors left, with an interval that holds at every moment of the review at once."""
        reviewed = int(self._reviewed.sum())
        unseen = len(self._rank) - reviewed
        low, high = self._limits(-np.log(1 - level))
        mistakes = self.mistakes()
        # Answers that would find a label wrong are less than the wrong labels by those that are
        # missed, and more by the right labels that two of three answers call wrong.
        high = min(unseen, int(np.ceil(high / (1 - min(mistakes, 0.5)))))
        low = max(0, int(low - 2 * mistakes**2 * unseen))
        estimate, carried = self._estimate(unseen)
        if not carried and high - low > _NARROW * len(self._rank):
            estimate = np.nan
        return ErrorsLeft(
            reviewed=reviewed,
            unreviewed=unseen,
            found=self._found,
            audited=len(self._drawn),
            estimate=estimate,
            low=min(low, high),
            high=high,
            level=level,
            mistakes=mistakes,
        )

    def _limits(self, bound: float) -> tuple[int, int]:
        """Least and largest sum over the strata that their ratios together do not refute."""
        least = -bound * _MULTIPLIERS
        most = bound * _MULTIPLIERS
        for part in self._parts:
            left, ratio = part.log_ratios()
            inside = np.isfinite(ratio)
            if not part.unseen or not inside.any():
                continue
            step = float(np.diff(part.total).max(initial=1)) - 1  # numbers between two hypotheses
            weighed = np.multiply.outer(_MULTIPLIERS, ratio[inside])
            least += (left[inside] + weighed).min(axis=1) - step
            most += (left[inside] - weighed).max(axis=1) + step
        unseen = sum(part.unseen for part in self._parts)
        low = int(np.clip(np.ceil(least.max() - 1e-9), 0, unseen))
        return low, max(low, int(np.clip(np.floor(most.min() + 1e-9), 0, unseen)))

    def _estimate(self, unseen: int) -> tuple[float, bool]:
        """Errors left by the draws behind the part that the ranking has emptied.

        There they are simple random samples of their strata; a stratum without a draw gets the
        share of all of them. And whether enough of them are errors to carry the number.
        """
        behind = [(stratum, error) for rank, stratum, error in self._drawn if rank >= self._depth]
        if not behind:
            return (0.0, True) if unseen == 0 else (np.nan, False)
        stratum, error = np.array(behind).T
        total = 0.0
        for k, part in enumerate(self._parts):
            own = error[stratum == k]
            total += part.unseen * float(own.mean() if len(own) else error.mean())
        return total, bool(error.sum() >= _CARRIED)


@lru_cache(maxsize=4096)
def _mistakes(asked: int, differed: int) -> float:
    """The upper end of how often an answer is wrong, for so many asked twice."""
    if not asked:
        return ASSUMED_MISTAKES
    beta = need("scipy.stats", extra="labels").beta
    right = asked - differed
    most = float(beta.ppf(0.95, differed + 1, right)) if right else 1.0
    least = float(beta.ppf(0.05, differed, right + 1)) if differed else 0.0
    bound, evident = ((1 - np.sqrt(1 - 2 * min(share, 0.5))) / 2 for share in (most, least))
    return float(bound if evident > ASSUMED_MISTAKES else min(bound, ASSUMED_MISTAKES))


def expected_yield(
    scores: NDArray[np.float64],
    errors: Sequence[bool] | NDArray[np.bool_],
    ahead: NDArray[np.float64],
) -> float:
    """How many errors samples of the scores `ahead` are expected to hold.

    The share of errors is taken to rise with the score (isotonic regression on the decisions so
    far, `scores` and `errors`); each score also counts half a decision as a guess of its own.

    Examples
    --------
    >>> expected_yield(np.array([]), [], np.array([0.75, 0.25]))
    1.0
    """
    return float(yield_rates(scores, errors, ahead).sum())


def yield_rates(
    scores: NDArray[np.float64],
    errors: Sequence[bool] | NDArray[np.bool_],
    ahead: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How probably each sample ahead is an error; see :func:`expected_yield`."""
    if len(ahead) == 0:
        return np.zeros(0)
    isotonic = need("sklearn.isotonic", extra="labels")
    x = np.concatenate([scores, ahead])
    y = np.concatenate([np.asarray(errors, dtype=float), np.clip(ahead, 0, 1)])
    weight = np.r_[np.ones(len(scores)), np.full(len(ahead), _GUESS_WEIGHT)]
    fitted = isotonic.IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    rates: NDArray[np.float64] = fitted.fit(x, y, sample_weight=weight).predict(ahead)
    return rates
