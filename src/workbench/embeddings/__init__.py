"""Feature vectors, their nearest neighbours, maps of them, and how far a map can be trusted."""

from workbench.embeddings.features import features
from workbench.embeddings.neighbors import neighbors
from workbench.embeddings.outliers import outliers
from workbench.embeddings.projections import project
from workbench.embeddings.quality import label_accuracy

__all__ = ["features", "label_accuracy", "neighbors", "outliers", "project"]
