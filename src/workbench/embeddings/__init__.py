"""Feature vectors, their nearest neighbours, maps of them, and how far a map can be trusted."""

from workbench.embeddings.collisions import collisions, duplicates
from workbench.embeddings.features import features
from workbench.embeddings.mixing import mixing
from workbench.embeddings.neighbors import neighbors
from workbench.embeddings.outliers import outliers
from workbench.embeddings.projections import Projection, fit, project
from workbench.embeddings.quality import quality
from workbench.embeddings.votes import label_accuracy, neighbor_votes

__all__ = [
    "features",
    "neighbors",
    "project",
    "fit",
    "Projection",
    "quality",
    "label_accuracy",
    "neighbor_votes",
    "mixing",
    "collisions",
    "duplicates",
    "outliers",
]
