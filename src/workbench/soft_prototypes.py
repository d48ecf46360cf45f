"""Nearest neighbours with soft labels: a few prototypes that stand for more classes than they are.

Sucholutsky and Schonlau 2021, "Less than one"-shot learning (arXiv:2009.08449).
"""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from workbench._extras import need

__all__ = ["classify", "soft_labels_for"]


def classify(
    x: ArrayLike, prototypes: ArrayLike, soft_labels: ArrayLike, k: int | None = None
) -> xr.DataArray:
    """Soft-label prototype k-nearest-neighbour classification (SLaPkNN, arXiv:2009.08449, Eq. 1).

    The soft labels of the `k` nearest prototypes are added up, each divided by its distance; the
    class with the largest sum wins, the first of them where several are equal.

    Parameters
    ----------
    x
        float (sample, feature).
    prototypes
        float (prototype, feature).
    soft_labels
        float (prototype, class), not negative; they need not sum to 1.
    k
        How many prototypes have a say; by default all.

    Returns
    -------
    xarray.DataArray
        int64 (sample,).

    Raises
    ------
    ValueError
        The shapes do not fit one another, `k` is not 1 to the number of prototypes, or a soft
        label is negative or NaN.

    Examples
    --------
    Two prototypes that tell three classes apart:

    >>> two = [[0.0], [1.0]], [[.6, .4, 0], [0, .4, .6]]
    >>> classify([[0.1], [0.5], [0.9]], *two).values.tolist()
    [0, 1, 2]
    """
    soft = np.asarray(soft_labels, dtype=np.float64)
    weight = _weights(x, prototypes, k)
    if soft.ndim != 2 or len(soft) != weight.shape[1]:
        raise ValueError(f"soft labels are {soft.shape} for {weight.shape[1]} prototypes")
    if not (soft >= 0).all():
        raise ValueError("soft labels must be 0 or more; some are negative or NaN")
    coords = {"sample": x["sample"]} if isinstance(x, xr.DataArray) and "sample" in x.coords else {}
    return xr.DataArray((weight @ soft).argmax(axis=1), dims="sample", coords=coords, name="label")


def soft_labels_for(
    prototypes: ArrayLike, x: ArrayLike, labels: ArrayLike, k: int | None = None
) -> NDArray[np.float64]:
    """Soft labels by linear programming, so that the prototypes give every sample its class.

    Each prototype's label sums to 1, and the smallest lead of a sample's class over any other, as
    a share of the weights 1 / distance, is as large as it can be.

    Parameters
    ----------
    prototypes
        float (prototype, feature).
    x, labels
        float (sample, feature) and int (sample,): what is to be told apart, classes from 0 up.
    k
        As in :func:`classify`.

    Returns
    -------
    numpy.ndarray
        float64 (prototype, class).

    Raises
    ------
    ValueError
        No soft labels give every sample its class, or the shapes do not fit one another.

    Examples
    --------
    >>> found = soft_labels_for([[0.0], [1.0]], [[0.1], [0.5], [0.9]], [0, 1, 2])
    >>> classify([[0.1], [0.5], [0.9]], [[0.0], [1.0]], found).values.tolist()
    [0, 1, 2]
    """
    weight = _weights(x, prototypes, k)
    given = np.asarray(labels)
    if given.shape != weight.shape[:1] or given.dtype.kind not in "iu" or given.min() < 0:
        raise ValueError(f"labels must be {len(weight)} whole numbers from 0 up, not {labels!r}")
    (n, m), classes = weight.shape, int(given.max()) + 1
    sample, other = np.nonzero(np.arange(classes) != given[:, None])
    lead = np.zeros((len(sample), m, classes))
    row = np.arange(len(sample))
    lead[row, :, given[sample]] = -weight[sample]
    lead[row, :, other] = weight[sample]
    # unknown: the labels, then the margin, which is to grow
    found = need("scipy.optimize", extra="images").linprog(
        np.r_[np.zeros(m * classes), -1.0],
        A_ub=np.c_[lead.reshape(len(sample), -1), np.ones(len(sample))],
        b_ub=np.zeros(len(sample)),
        A_eq=np.c_[np.repeat(np.eye(m), classes, axis=1), np.zeros(m)],
        b_eq=np.ones(m),
        bounds=[(0, 1)] * (m * classes) + [(None, None)],
    )
    if not found.success or found.x[-1] <= 1e-9:
        raise ValueError(
            f"no soft labels of {m} prototypes give all {n} samples their class; "
            "take more prototypes, other places for them, or fewer samples"
        )
    labels_found: NDArray[np.float64] = found.x[:-1].reshape(m, classes)
    return labels_found


def _weights(x: ArrayLike, prototypes: ArrayLike, k: int | None) -> NDArray[np.float64]:
    """(sample, prototype): 1 / distance of the k nearest, their sum 1, the others 0."""
    points, centers = (np.asarray(values, dtype=np.float64) for values in (x, prototypes))
    if points.ndim != 2 or centers.ndim != 2 or points.shape[1] != centers.shape[1]:
        raise ValueError(
            f"samples are {points.shape} and prototypes {centers.shape}: both must be 2-D, with "
            "as many features"
        )
    if k is not None and not 1 <= k <= len(centers):
        raise ValueError(f"k={k} must be 1 to {len(centers)}, the number of prototypes")
    distance = need("scipy.spatial.distance", extra="images").cdist(points, centers)
    rank = distance.argsort(axis=1, kind="stable").argsort(axis=1)
    near: NDArray[np.float64] = np.where(rank < (k or len(centers)), distance, np.inf)
    # divided by the least first, so that a distance of 0 weighs all
    least = near.min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = np.where(least > 0, least / near, near == 0)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))
