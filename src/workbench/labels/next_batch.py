"""Active learning: which samples to label next."""

import warnings
from typing import Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from workbench._extras import need
from workbench._samples import same_samples
from workbench.datasets.coreset import farthest
from workbench.labels.probabilities import Source, load_probabilities

Method = Literal["typical", "margin", "coverage", "random"]
#: At most so many clusters, and neighbours of a typical sample, as in arXiv:2202.02794.
CLUSTERS, NEIGHBORS = 500, 20


def next_batch(
    features: ArrayLike | xr.DataArray,
    labels: ArrayLike | xr.DataArray,
    n: int,
    method: Method = "typical",
    *,
    probabilities: Source | None = None,
    seed: int = 0,
) -> NDArray[np.generic]:
    """Active learning: the samples whose labels are worth the most now.

    Give the result to a review: ``labels.review(ds.sel(sample=found), ...)``.

    Parameters
    ----------
    features
        float (sample, feature).
    labels
        int (sample,), -1 for those without a label.
    n
        How many to choose.
    method
        ``"typical"``: the densest sample of each of the largest clusters that hold no label yet
        (TypiClust: Hacohen et al. 2022, arXiv:2202.02794); good from the first label on.

        ``"margin"``: those whose two most probable classes are nearest to one another, by the
        `probabilities` of a model trained so far; good once that model is.

        ``"coverage"``: one after the other, the sample farthest from all that are labelled or
        chosen (Sener and Savarese 2018, arXiv:1708.00489).

        ``"random"``: at random, the control.
    probabilities
        (sample, class), for ``"margin"``.
    seed
        Of the clusters and the lot.

    Returns
    -------
    numpy.ndarray
        (n,) ids out of the coordinate ``sample`` of `features`, positions where it has none; the
        most valuable first. Never one that has a label; fewer than `n`, with a warning, where no
        more lack one.

    Raises
    ------
    ValueError
        Every sample has a label already, `n` is below 1, `method` is not known, the probabilities
        are missing, or the arguments are of other samples.

    Examples
    --------
    >>> next_batch([[0.0], [0.1], [0.2], [5.0]], [-1, 0, -1, -1], 1, "coverage").tolist()
    [3]
    """
    if method not in get_args(Method):
        raise ValueError(f"method={method!r} is not one of {', '.join(get_args(Method))}")
    if n < 1:
        raise ValueError(f"n={n} must be 1 or more")
    labels = same_samples(labels, features, ("labels", "features"))
    vectors, given = np.asarray(features, dtype=np.float64), np.asarray(labels)
    pool = np.flatnonzero(given < 0)
    if not len(pool):
        raise ValueError(f"all {len(given)} samples have a label: the pool is used up")
    if n > len(pool):
        text = f"only {len(pool)} samples without a label are left, {n} were asked for"
        warnings.warn(text, stacklevel=2)
    n = min(n, len(pool))
    rng = np.random.default_rng(seed)
    if method == "margin":
        chosen = pool[_margins(probabilities, features)[pool].argsort(kind="stable")[:n]]
    elif method == "random":
        chosen = rng.choice(pool, n, replace=False)
    elif method == "coverage":
        known = np.flatnonzero(given >= 0)
        start = known if len(known) else rng.choice(pool, 1)
        chosen = farthest(vectors, len(known) + n, start)[len(known) :]
    else:
        chosen = _typical(vectors, given >= 0, n, seed)
    if isinstance(features, xr.DataArray) and "sample" in features.coords:
        return np.asarray(features["sample"].values[chosen])
    return np.asarray(chosen)


def _margins(
    probabilities: Source | None, features: ArrayLike | xr.DataArray
) -> NDArray[np.float64]:
    if probabilities is None:
        raise ValueError('method="margin" needs the probabilities= of a model trained so far')
    found = load_probabilities(probabilities)
    found = same_samples(found, features, ("probabilities", "features"))
    second, first = np.sort(np.asarray(found.values), axis=1)[:, -2:].T
    return np.asarray(first - second, dtype=np.float64)


def _typical(
    vectors: NDArray[np.float64], labelled: NDArray[np.bool_], n: int, seed: int
) -> NDArray[np.intp]:
    """The densest unlabelled sample of each cluster, those first that hold the fewest labels."""
    cluster = need("sklearn.cluster", extra="images")
    wanted = min(int(labelled.sum()) + n, CLUSTERS, len(vectors))
    large = cluster.MiniBatchKMeans if wanted > 50 else cluster.KMeans
    member = large(wanted, n_init=1, random_state=seed).fit_predict(vectors)
    size, known = (np.bincount(member[rows], minlength=wanted) for rows in (..., labelled))
    order, free, chosen = np.lexsort((-size, known)), ~labelled, list[int]()
    while len(chosen) < n:  # a second round only where there are more to choose than clusters
        for name in order:
            rows = np.flatnonzero(member == name)
            if len(chosen) < n and free[rows].any():
                density = np.where(free[rows], _typicality(vectors[rows]), -1)
                chosen.append(int(rows[density.argmax()]))
                free[chosen[-1]] = False
    return np.array(chosen, dtype=np.intp)


def _typicality(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / mean distance to the nearest neighbours within the cluster."""
    k = min(NEIGHBORS, len(vectors) - 1)
    if k < 1:
        return np.ones(len(vectors))
    search = need("sklearn.neighbors", extra="images").NearestNeighbors(n_neighbors=k)
    distance = search.fit(vectors).kneighbors()[0]
    return np.asarray(1 / (distance.mean(axis=1) + 1e-12))
