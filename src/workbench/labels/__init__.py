"""Labels that are wrong: find them, review them, and say how many are left."""

from workbench.labels.decisions import (
    agreement,
    apply_decisions,
    decisions,
    from_tags,
    review_tags,
)
from workbench.labels.export import export
from workbench.labels.inputs import load_probabilities
from workbench.labels.issues import find_issues
from workbench.labels.multilabel import find_multilabel_issues, multilabel_joint
from workbench.labels.multilabel_probabilities import multilabel_out_of_fold
from workbench.labels.noise import inject_noise
from workbench.labels.probabilities import out_of_fold
from workbench.labels.published import published_errors
from workbench.labels.ranking import losses, method_agreement, mistakenness
from workbench.labels.review import review
from workbench.labels.scenes import compose_scenes
from workbench.labels.scripted import review_batch
from workbench.labels.sqlite_file import StoreError

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
    "decisions",
    "apply_decisions",
    "export",
    "agreement",
    "review_tags",
    "from_tags",
    "published_errors",
    "StoreError",
]
