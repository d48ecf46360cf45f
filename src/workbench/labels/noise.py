"""Wrong labels made on purpose, with the true ones kept."""

from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from workbench._samples import same_samples
from workbench.labels.inputs import Source, class_numbers, load_probabilities

Kind = Literal["uniform", "pair", "confusion", "annotator"]
KINDS: tuple[Kind, ...] = ("uniform", "pair", "confusion", "annotator")


def inject_noise(
    labels: ArrayLike | xr.DataArray,
    kind: Kind = "uniform",
    rate: float = 0.1,
    seed: int = 0,
    *,
    classes: int | None = None,
    probabilities: Source | None = None,
) -> xr.Dataset:
    """Make a share of the labels wrong, and keep the true ones.

    Parameters
    ----------
    labels
        int (sample,): the true class numbers.
    kind
        ``"uniform"``: any sample, to any other class. ``"pair"``: any sample, to the next class,
        the last to the first. ``"confusion"``: classes are confused as a model confuses them, in
        proportion to the confusion matrix of `probabilities`. ``"annotator"``: samples are drawn
        the more often the less a model is sure of the true class, and go to the classes that it
        holds likely: an annotator who errs on hard images.
    rate
        Share of the labels to make wrong, exactly, up to rounding to whole samples.
    seed
        Fixes the draw.
    classes
        How many there are; by default one more than the largest label, or the columns of
        `probabilities`.
    probabilities
        (sample, class), of a model that knows the true labels; for ``"confusion"`` and
        ``"annotator"``.

    Returns
    -------
    xarray.Dataset
        ``label`` int64, the noisy labels; ``label_true`` int64; ``is_wrong`` bool; all (sample,).

    Raises
    ------
    ValueError
        `kind` is not known, `rate` is not in [0, 1), `probabilities` are missing or of another
        length, there is one class only, or fewer samples can be confused than `rate` asks for.

    Examples
    --------
    >>> noisy = inject_noise([0, 1, 2, 0, 1, 2, 0, 1, 2, 0], kind="pair", rate=0.3)
    >>> int(noisy.is_wrong.sum()), set(((noisy.label - noisy.label_true) % 3).values.tolist())
    (3, {0, 1})
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not known; it can be one of {', '.join(KINDS)}")
    if not 0 <= rate < 1:
        raise ValueError(f"rate={rate} must be a share of the labels, from 0 to below 1")
    likely = None if probabilities is None else _likely(labels, probabilities)
    if likely is None and kind in ("confusion", "annotator"):
        raise ValueError(f"kind={kind!r} needs the probabilities of a model")
    true = class_numbers(labels, classes if likely is None else likely.shape[1])
    k = likely.shape[1] if likely is not None else classes or int(true.max()) + 1
    if k < 2:
        raise ValueError("labels of one class cannot be made wrong; say how many classes there are")
    rng = np.random.default_rng(seed)
    weight, target = _plan(kind, true, k, likely)
    wrong = _draw(weight, round(rate * len(true)), rng)
    label = true.copy()
    label[wrong] = _targets(target[wrong] if kind == "annotator" else target[true[wrong]], rng)
    values = {"label": label, "label_true": true, "is_wrong": label != true}
    coords = {"sample": labels["sample"]} if isinstance(labels, xr.DataArray) else {}
    return xr.Dataset({name: ("sample", value) for name, value in values.items()}, coords=coords)


def _likely(labels: ArrayLike | xr.DataArray, probabilities: Source) -> NDArray[np.float64]:
    found = load_probabilities(probabilities)
    same_samples(labels, found, ("labels", "probabilities"))
    return np.asarray(found.values, dtype=np.float64)


def _plan(
    kind: Kind, true: NDArray[np.int64], k: int, likely: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How readily each sample goes wrong, and where to: a row a class, or one a sample."""
    other = 1 - np.eye(k)
    if kind == "annotator" and likely is not None:
        target = likely * other[true]
        return target.sum(axis=1) + 1e-6, target + 1e-9 * other[true]
    if kind == "confusion" and likely is not None:
        counts = np.zeros((k, k))
        np.add.at(counts, (true, likely.argmax(axis=1)), 1)
        share = counts * other / counts.sum(axis=1, keepdims=True).clip(1)
        return share.sum(axis=1)[true], share
    target = np.roll(np.eye(k), 1, axis=1) if kind == "pair" else other
    return np.ones(len(true)), target


def _draw(weight: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Positions of `n` samples without replacement (Efraimidis and Spirakis 2006, algorithm A)."""
    if n > np.count_nonzero(weight):
        raise ValueError(
            f"only {np.count_nonzero(weight)} of {len(weight)} samples are of a class that the "
            f"model confuses with another; {n} cannot be made wrong"
        )
    with np.errstate(divide="ignore"):
        key = np.log(rng.random(len(weight))) / weight
    return np.argsort(-key)[:n]


def _targets(weight: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One class a row, drawn in proportion to its weight."""
    edges = weight.cumsum(axis=1)
    drawn = rng.random(len(weight)) * edges[:, -1] if len(weight) else np.zeros(0)
    found: NDArray[np.int64] = (edges <= drawn[:, None]).sum(axis=1).astype(np.int64)
    return found
