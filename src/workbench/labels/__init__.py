"""Labels that are wrong: find them, review them, and say how many are left."""

from workbench.labels.inputs import load_probabilities
from workbench.labels.issues import find_issues
from workbench.labels.noise import inject_noise
from workbench.labels.probabilities import out_of_fold

__all__ = [
    "out_of_fold",
    "load_probabilities",
    "find_issues",
    "inject_noise",
]
