"""How many boxes are missing: from images drawn at random, valid however often one looks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: At most so many hypotheses on the number of missing boxes; between them limits go outwards.
_POINTS = 4001
#: A bet risks at most this share of what the worst outcome would take.
_BOLDNESS = 0.95


@dataclass(frozen=True)
class MissingLeft:
    """Boxes that are still missing: an estimate, and an interval of `level`.

    ``audited`` images were drawn at random and looked through, ``unseen`` ones were not, and
    ``found`` boxes were missing and are not any more. `estimate` is NaN before the first draw.
    """

    audited: int
    unseen: int
    found: int
    estimate: float
    low: int
    high: int
    level: float


class MissingAudit:
    """Confidence sequence for the number of missing boxes, from draws without replacement.

    An image drawn at random misses X boxes that nobody has found, from 0 to `most`. If K are
    missing in all, f of them found and n images not looked through, X has the mean (K - f) / n,
    whatever was found by choice before. Two bets on every K, that there are more and that there
    are fewer, are martingales under it; by Ville's inequality their mean reaches 1 / alpha with
    probability alpha at most, at whatever time one looks. The K whose mean is below that are the
    interval (Waudby-Smith and Ramdas 2024, JRSS B 86(1), sections 4 and 5).

    Parameters
    ----------
    images
        How many there are.
    most
        No image misses more boxes than this. The smaller it is, the narrower the interval.

    Examples
    --------
    >>> audit = MissingAudit(1000, most=5)
    >>> for _ in range(300):
    ...     audit.draw(0)
    >>> audit.left().high
    44
    """

    def __init__(self, images: int, most: int = 20) -> None:
        points = np.linspace(0, images * most, min(images * most + 1, _POINTS))
        self._total: NDArray[np.float64] = np.unique(np.rint(points))
        self._most, self._unseen, self._found = most, images, 0
        self._log_capital = np.zeros((2, len(self._total)))
        self._seen: list[int] = []
        self._guesses: list[float] = []

    def find(self, boxes: int = 1) -> None:
        """Count boxes that were found missing by choice, such as the next of the ranking."""
        self._found += boxes

    def look(self, boxes: int) -> None:
        """Count an image that was looked through by choice, and what it missed."""
        self._found += boxes
        self._unseen -= 1

    def draw(self, boxes: int) -> None:
        """Count an image drawn at random, and the boxes it missed that were not found before.

        Raises
        ------
        ValueError
            They are more than `most`.
        """
        if boxes > self._most:
            raise ValueError(
                f"an image misses {boxes} boxes and the interval is for {self._most} at most; give "
                f"most={boxes} or more"
            )
        seen = np.array([*self._seen, 0.5])  # the first guess
        guess, spread = seen.mean(), seen.var() + 0.25 / len(seen)
        mean = (self._total - self._found) / self._unseen
        possible = (mean >= 0) & (mean <= self._most)
        wide = np.where(possible, mean, self._most / 2)
        edge = (guess - wide) / (spread + (guess - wide) ** 2)  # aGRAPA, section 4.2
        more = edge.clip(0, _BOLDNESS / np.maximum(wide, 1e-9))
        fewer = (-edge).clip(0, _BOLDNESS / np.maximum(self._most - wide, 1e-9))
        gain = np.stack([np.log1p(more * (boxes - wide)), np.log1p(-fewer * (boxes - wide))])
        self._log_capital += np.where(possible, gain, np.inf)
        self._seen.append(boxes)
        self._guesses.append(self._found + self._unseen * boxes)
        self.look(boxes)

    def left(self, level: float = 0.9) -> MissingLeft:
        """The boxes still missing, with an interval that holds at every moment at once."""
        left = self._total - self._found
        with np.errstate(over="ignore"):
            capital = np.exp(self._log_capital).mean(axis=0)
        possible = (left >= 0) & (left <= self._most * self._unseen)
        inside = np.flatnonzero(possible & (capital < 1 / (1 - level)))
        if not len(inside):
            inside = np.array([np.where(possible, capital, np.inf).argmin()])
        # Numbers between two hypotheses count as not refuted.
        low = left[inside[0] - 1] + 1 if inside[0] > 0 else 0
        last = inside[-1] + 1
        high = left[last] - 1 if last < len(left) else self._most * self._unseen
        low, high = (int(np.clip(x, 0, self._most * self._unseen)) for x in (low, high))
        guess = float(np.mean(self._guesses)) - self._found if self._guesses else np.nan
        estimate = float(np.clip(guess, low, high))
        counts = (len(self._seen), self._unseen, self._found)
        return MissingLeft(*counts, estimate, low, high, level)
