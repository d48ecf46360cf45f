"""Labels that are wrong: find them, review them, and say how many are left."""

from workbench.labels.decisions import (
    agreement,
    apply_decisions,
    decisions,
    from_tags,
    review_tags,
)
from workbench.labels.export import export
from workbench.labels.issues import find_issues
from workbench.labels.known_errors import compose_scenes, inject_noise, published_errors
from workbench.labels.learning_curve import LearningCurve, learning_curve
from workbench.labels.multilabel import find_multilabel_issues, multilabel_joint
from workbench.labels.next_batch import next_batch
from workbench.labels.probabilities import load_probabilities, multilabel_out_of_fold, out_of_fold
from workbench.labels.ranking import losses, method_agreement, mistakenness
from workbench.labels.review import review
from workbench.labels.session import audit_sample, review_batch
from workbench.labels.store import StoreError
from workbench.labels.verified import recut

__all__ = [
    "out_of_fold",
    "load_probabilities",
    "find_issues",
    "inject_noise",
    "compose_scenes",
    "losses",
    "mistakenness",
    "multilabel_out_of_fold",
    "find_multilabel_issues",
    "multilabel_joint",
    "method_agreement",
    "review",
    "review_batch",
    "audit_sample",
    "recut",
    "decisions",
    "apply_decisions",
    "export",
    "agreement",
    "review_tags",
    "from_tags",
    "published_errors",
    "next_batch",
    "learning_curve",
    "LearningCurve",
    "StoreError",
]
