"""Feature vectors, their nearest neighbours, maps of them, and how far a map can be trusted."""

from workbench.embeddings.clusters import clusters
from workbench.embeddings.features import features
from workbench.embeddings.graph import duplicates, label_accuracy, mixing, neighbor_votes, outliers
from workbench.embeddings.neighbors import neighbors
from workbench.embeddings.projection import Projection, fit, project
from workbench.embeddings.quality import collisions, quality

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
    "clusters",
    "duplicates",
    "outliers",
]
