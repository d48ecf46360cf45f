"""What is wrong with the labels of each class."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A class with fewer labels than this share of the median class is named.
RARE = 0.1
PAIRS = 10


class Joint:
    """Expected counts of true and given class, added up block by block."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes))
        self.predicted = np.zeros(classes, dtype=np.int64)
        self.errors = np.zeros(4)

    def add(
        self,
        p: NDArray[np.float64],
        given: NDArray[np.int64],
        predicted: NDArray[np.int64],
        wrong: NDArray[np.float64],
        errors: NDArray[np.float64],
    ) -> None:
        """Add samples: wrong with that probability, then of another class as likely as `p` says."""
        k = len(self.counts)
        self.errors += errors
        self.predicted += np.bincount(predicted, minlength=k)
        own = p[np.arange(len(given)), given]
        moved = p * (wrong / (1 - own))[:, None]
        by_label = np.zeros((len(given), k))
        by_label[np.arange(len(given)), given] = 1
        counts = moved.T @ by_label
        np.fill_diagonal(counts, np.bincount(given, weights=1 - wrong, minlength=k))
        self.counts += counts

    def summary(self, expected: tuple[float, float, float]) -> dict[str, Any]:
        """The numbers, in a form that a DataFrame's ``attrs`` can carry.

        `expected` is the number of errors, the least and the most.
        """
        errors, low, high = (min(number, self.counts.sum()) for number in expected)
        counts = self.counts.copy()
        off = counts * (1 - np.eye(len(counts)))
        if off.sum():
            # The scores rank; the number of errors is estimated apart, and these follow it.
            scale = min(1.0, errors / off.sum())
            counts += (1 - scale) * (np.diag(off.sum(axis=0)) - off)
            off *= scale
        total = counts.sum(axis=1, keepdims=True)
        matrix = np.divide(counts, total, out=np.eye(len(counts)), where=total > 0)
        order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
        pairs = [(int(i // len(off)), int(i % len(off))) for i in order]
        return {
            "n_errors": float(errors),
            "n_errors_low": float(low),
            "n_errors_high": float(high),
            "noise_matrix": matrix.round(6).tolist(),
            "noisiest_pairs": [
                {"true": true, "given": given, "expected": round(float(off[true, given]), 2)}
                for true, given in pairs
                if off[true, given] > 0
            ],
        }


def imbalances(given: NDArray[np.int64], predicted: NDArray[np.int64]) -> list[str]:
    """Classes that are never given, never predicted, or far rarer than the others."""
    counts = np.bincount(given, minlength=len(predicted))
    median = float(np.median(counts[counts > 0]))
    found = [f"class {k} is never given" for k in np.flatnonzero(counts == 0)]
    found += [
        f"class {k} is given {counts[k]} times and never predicted"
        for k in np.flatnonzero((predicted == 0) & (counts > 0))
    ]
    found += [
        f"class {k} has {counts[k]} labels, the median class {median:.0f}: what is said of it is "
        "uncertain"
        for k in np.flatnonzero((counts > 0) & (counts < RARE * median))
    ]
    return found
