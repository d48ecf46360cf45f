"""How many label errors are left: from a random audit, valid however often one looks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need

#: At most so many hypotheses on a number of errors; between them limits are rounded outwards.
_POINTS = 2001
#: The tails of the ranking that are bounded: where each begins, from the end of the flagged part
#: (0) to that of the ranking (1), -1 for its start; its part of the allowed miss; and the errors
#: and right labels that its bet imagines to have seen.
_TAILS = (
    (-1.0, 0.1, (0.5, 2.0)),
    (0.0, 0.5, (0.5, 50.0)),
    (0.1, 0.15, (0.5, 50.0)),
    (0.2, 0.15, (0.5, 50.0)),
    (0.4, 0.1, (0.5, 50.0)),
)
#: Weight of a score as a guess of its own error probability, against one decision.
_GUESS_WEIGHT = 0.5


@dataclass(frozen=True)
class Left:
    """What the decisions so far say about the samples that nobody has reviewed.

    Attributes
    ----------
    reviewed, unreviewed, found, audited
        Samples with and without a decision, errors among the former, audit draws used.
    estimate
        Errors left, unbiased; NaN before the first audit draw of the part that is left.
    low, high
        The interval for the number of errors left.
    level
        Of the interval, 0.9.
    """

    reviewed: int
    unreviewed: int
    found: int
    audited: int
    estimate: float
    low: int
    high: int
    level: float

    @property
    def share(self) -> tuple[float, float, float]:
        """Estimate, low and high as shares of the whole dataset."""
        total = max(self.reviewed + self.unreviewed, 1)
        return self.estimate / total, self.low / total, self.high / total


class Stratum:
    """The errors in one part of a dataset, some of it reviewed by choice and some by lot.

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
        self.unseen, self.found, self.draws, self._hits = size, 0, 0, 0
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

    def limits(self, alpha: float) -> tuple[int, int]:
        """The smallest and the largest number of errors left that the draws do not refute."""
        left = self.total - self.found
        possible = (left >= 0) & (left <= self.unseen)
        ratio = np.where(possible, self._log_bet - self._log_likelihood, np.inf)
        inside = np.flatnonzero(ratio < -np.log(alpha))
        if len(inside) == 0:
            inside = np.array([ratio.argmin()])
        # Numbers between two hypotheses count as not refuted.
        low = left[inside[0] - 1] + 1 if inside[0] > 0 else 0
        high = left[inside[-1] + 1] - 1 if inside[-1] + 1 < len(left) else self.unseen
        return int(np.clip(low, 0, self.unseen)), int(np.clip(high, 0, self.unseen))


class Audit:
    """The errors left in a whole dataset, while it is reviewed.

    The number is bounded in several tails of the ranking at once, the whole ranking and what
    lies behind the flagged samples among them. What is unreviewed before a tail counts as wrong
    altogether, so that the bound of a tail is worth something once the review has come there, and
    then every draw that fell into it before has its full worth. The bounds share the allowed
    miss, and hold together.

    In 200 simulated reviews each of 2,000 labels, 0.5, 5 and 20 % of them wrong and ranked well,
    fairly or blindly, the 90 % interval held on every page of at least 94.5 %, and at least
    99.5 % of the stops at 1 % were right (tests/benchmarks/label_stopping.py).

    Parameters
    ----------
    flagged
        bool (sample,): those that are taken for errors before anybody has looked.
    rank
        int (sample,): 0 for the most suspicious sample. Both must not depend on the draws.
    """

    def __init__(self, flagged: NDArray[np.bool_], rank: NDArray[np.int64]) -> None:
        self._rank = rank
        n = len(rank)
        behind = 1 + int(rank[flagged].max(initial=-1))
        self._tails: dict[int, tuple[float, Stratum]] = {}
        for place, part, guess in _TAILS:
            start = 0 if place < 0 else behind + round(place * (n - behind))
            before = self._tails[start][0] if start in self._tails else 0.0
            self._tails[start] = (before + part, Stratum(n - start, guess))
        self._reviewed = np.zeros(n + 1, dtype=bool)
        self._depth = self._found = 0
        self._drawn: list[tuple[int, bool]] = []

    def review(self, position: int, error: bool, drawn: bool) -> None:
        """Take in the decision on one more sample."""
        rank = int(self._rank[position])
        for start, (_, tail) in self._tails.items():
            if rank >= start:
                (tail.draw if drawn else tail.review)(error)
        if drawn:
            self._drawn.append((rank, error))
        self._found += error
        self._reviewed[rank] = True
        while self._reviewed[self._depth]:
            self._depth += 1

    def left(self, level: float = 0.9) -> Left:
        """The errors left, with an interval that holds at every moment of the review at once.

        The estimate: behind the part that the ranking has emptied, the audit draws are a simple
        random sample, and their share of errors is that of the samples left there.
        """
        reviewed = int(self._reviewed.sum())
        low, high = 0, len(self._rank) - reviewed
        unseen = high
        for part, tail in self._tails.values():
            least, most = tail.limits((1 - level) * part)
            low, high = max(low, least), min(high, most + unseen - tail.unseen)
        behind = [error for rank, error in self._drawn if rank >= self._depth]
        estimate = unseen * float(np.mean(behind)) if behind else (0.0 if unseen == 0 else np.nan)
        return Left(
            reviewed=reviewed,
            unreviewed=unseen,
            found=self._found,
            audited=len(self._drawn),
            estimate=estimate,
            low=min(low, high),
            high=high,
            level=level,
        )


def expected_yield(
    scores: NDArray[np.float64],
    errors: Sequence[bool] | NDArray[np.bool_],
    ahead: NDArray[np.float64],
) -> float:
    """How many errors a page is expected to hold.

    The share of errors is taken to rise with the score (isotonic regression on the decisions so
    far); each score also counts half a decision as a guess of its own.

    Parameters
    ----------
    scores, errors
        Score of every reviewed sample, and whether its label was wrong.
    ahead
        Scores of the page.

    Examples
    --------
    >>> expected_yield(np.array([]), [], np.array([0.75, 0.25]))
    1.0
    """
    if len(ahead) == 0:
        return 0.0
    isotonic = need("sklearn.isotonic", extra="labels")
    x = np.concatenate([scores, ahead])
    y = np.concatenate([np.asarray(errors, dtype=float), np.clip(ahead, 0, 1)])
    weight = np.r_[np.ones(len(scores)), np.full(len(ahead), _GUESS_WEIGHT)]
    fitted = isotonic.IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    return float(fitted.fit(x, y, sample_weight=weight).predict(ahead).sum())
