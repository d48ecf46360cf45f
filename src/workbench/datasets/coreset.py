"""Coresets: the part of a dataset that is to stand for all of it."""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from workbench._samples import same_samples
from workbench.datasets.dataset import choose, class_shares
from workbench.datasets.errors import BadDataError

Method = Literal["random", "hardest", "moderate", "ccs", "k-center", "herding"]
#: Ranges of equal width that `ccs` cuts the scores into, as the paper does.
STRATA = 50


def coreset(
    ds: xr.Dataset,
    keep: float,
    method: Method = "random",
    *,
    scores: ArrayLike | xr.DataArray | None = None,
    features: ArrayLike | xr.DataArray | None = None,
    drop: float = 0.1,
    seed: int = 0,
) -> xr.Dataset:
    """Coreset selection: keep a part of a dataset to train on.

    No method beats a random part everywhere, so that is the default: measure another beside it,
    with its spread over seeds (:func:`workbench.show.control`).

    Parameters
    ----------
    ds
        An image dataset; where it has ``label``, the methods that go by class use it.
    keep
        A share of the samples (a float, up to 1.0), or a number of them (an int).
    method
        ``"random"``: at random, each class in its proportion (:func:`workbench.datasets.subset`).

        ``"hardest"``: the largest `scores`. Wrong labels are among them.

        ``"ccs"``: coverage-centric (Zheng et al. 2023, arXiv:2210.15809, Algorithm 1): without
        the hardest share `drop`, the range of `scores` is cut into 50 strata of equal width, of
        which each gives as many at random, the small ones all they have.

        ``"moderate"``: of each class, those whose distance to the class's mean is nearest to the
        median distance (Xia et al. 2023, ICLR).

        ``"k-center"``: greedily the sample that is farthest from those kept (Sener and Savarese
        2018, arXiv:1708.00489); no sample is then farther from the kept ones than twice what the
        best choice could reach.

        ``"herding"``: of each class, one after the other, what brings the mean of those kept
        nearest to the class's mean (Welling 2009).
    scores
        float (sample,), high is hard, such as :func:`workbench.dynamics.el2n`; for ``"hardest"``
        and ``"ccs"``.
    features
        float (sample, feature), for the last three.
    drop
        For ``"ccs"``.
    seed
        Of what is left to chance.

    Returns
    -------
    xarray.Dataset
        The kept samples in their former order, with ``attrs["coreset"]``, ``attrs["seed"]`` and
        ``attrs["n_available"]``.

    Raises
    ------
    BadDataError
        `method` or `keep` is none of the possible, or what the method goes by is missing or NaN.
    ValueError
        `scores` or `features` are of other samples.

    Examples
    --------
    >>> from workbench.datasets import load
    >>> digits = load("digits", split="test")
    >>> pixels = digits.image.values.reshape(len(digits.sample), -1)
    >>> coreset(digits, 0.1, "k-center", features=pixels).sizes["sample"]
    60
    """
    if method not in get_args(Method):
        raise BadDataError(f"method={method!r} is not one of {', '.join(get_args(Method))}")
    total = ds.sizes["sample"]
    n = _number(keep, total)
    label = ds["label"].values if "label" in ds else np.zeros(total, dtype=np.int64)
    rng = np.random.default_rng(seed)
    if method == "random":
        chosen = choose(label, total, n, seed)
    elif method in ("hardest", "ccs"):
        score = _given(scores, ds, f"{method} goes by scores=", 1)
        hardest = np.argsort(-score, kind="stable")
        chosen = hardest[:n] if method == "hardest" else _ccs(score, hardest, n, drop, rng)
    else:
        vectors = _given(features, ds, f"{method} goes by features=", 2)
        if method == "k-center":
            chosen = farthest(vectors, n, [int(rng.integers(total))])
        else:
            chosen = _by_class(_moderate if method == "moderate" else _herd, vectors, label, n, rng)
    kept = ds.isel(sample=np.sort(chosen))
    return kept.assign_attrs(coreset=method, seed=int(seed), n_available=total)


def farthest(
    vectors: NDArray[np.float64], n: int, start: list[int] | NDArray[np.intp]
) -> NDArray[np.intp]:
    """Positions of `n` vectors, each the farthest from those before it (Gonzalez 1985).

    The first are those of `start`, which may be more than `n`; ties go to the first.
    """
    chosen = [int(i) for i in start]
    square = (vectors**2).sum(axis=1)
    away = np.full(len(vectors), np.inf)
    for i in range(max(n, len(chosen))):
        if i == len(chosen):
            chosen.append(int(away.argmax()))
        to_it = square + square[chosen[i]] - 2 * vectors @ vectors[chosen[i]]
        away = np.minimum(away, to_it.clip(0))
        away[chosen[i]] = -1  # never again, even where all the others are copies
    return np.array(chosen, dtype=np.intp)


def _number(keep: float, total: int) -> int:
    """How many samples a share or a number means."""
    n = round(keep * total) if isinstance(keep, float) else int(keep)
    if isinstance(keep, bool) or not 1 <= n <= total or (isinstance(keep, float) and keep > 1):
        raise BadDataError(
            f"keep={keep!r} of {total} samples: give a share up to 1.0 that leaves one at least, "
            f"or a number from 1 to {total}"
        )
    return n


def _given(
    values: ArrayLike | xr.DataArray | None, ds: xr.Dataset, why: str, ndim: int
) -> NDArray[np.float64]:
    if values is None:
        raise BadDataError(f"{why}; none were given")
    values = same_samples(values, ds, ("the scores or features", "the dataset"))
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != ndim or np.isnan(found).any():
        bad = f"{np.isnan(found).sum()} NaN among them"
        raise BadDataError(f"{why}, {ndim}-D and without NaN; given were {found.shape}, {bad}")
    return found


def _ccs(
    score: NDArray[np.float64],
    hardest: NDArray[np.intp],
    n: int,
    drop: float,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """As many of each stratum of the scores, without the hardest."""
    dropped = round(drop * len(score))
    if n > len(score) - dropped:
        raise BadDataError(
            f"ccs drops the hardest {dropped} of {len(score)} samples, which leaves fewer than "
            f"{n}; keep less, or give a smaller drop="
        )
    left = hardest[dropped:]
    edges = np.linspace(score[left].min(), score[left].max(), STRATA + 1)
    stratum = np.searchsorted(edges[1:-1], score[left], side="right")
    parts = [left[stratum == i] for i in range(STRATA)]
    parts = sorted((part for part in parts if len(part)), key=len)
    chosen: list[NDArray[np.intp]] = []
    missing = n
    for i, part in enumerate(parts):
        share = missing / (len(parts) - i)
        # fewer samples than strata: at random, which stratum gives one
        budget = min(len(part), int(share)) if share >= 1 else int(rng.random() < share)
        chosen.append(rng.choice(part, budget, replace=False))
        missing -= budget
    return np.concatenate(chosen)


def _by_class(
    pick: Callable[[NDArray[np.float64], int], NDArray[np.intp]],
    vectors: NDArray[np.float64],
    label: NDArray[np.int64],
    n: int,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """What `pick` takes of each class, its share of `n`."""
    classes, counts = np.unique(label, return_counts=True)
    members = [np.flatnonzero(label == name) for name in classes]
    each = zip(members, class_shares(counts, n, rng), strict=True)
    return np.concatenate([rows[pick(vectors[rows], int(share))] for rows, share in each])


def _moderate(vectors: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    away = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)
    return np.argsort(np.abs(away - np.median(away)), kind="stable")[:n]


def _herd(vectors: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    centered = vectors - vectors.mean(axis=0)
    square = (centered**2).sum(axis=1)
    total = np.zeros(vectors.shape[1])
    chosen: list[int] = []
    for _ in range(n):
        error = square + 2 * centered @ total  # |total + v|^2, less what all have in common
        error[chosen] = np.inf
        chosen.append(int(error.argmin()))
        total += centered[chosen[-1]]
    return np.array(chosen, dtype=np.intp)
