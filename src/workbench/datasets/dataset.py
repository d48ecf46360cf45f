"""Image dataset as one xarray.Dataset: built, checked, joined from splits, and subset."""

import hashlib
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.datasets.errors import BadDataError

Scalar = str | int | list[int] | list[float] | list[str]


def subset(ds: xr.Dataset, n: int, seed: int = 0) -> xr.Dataset:
    """Draw ``n`` samples, each class in its proportion, and keep their order.

    Parameters
    ----------
    ds
        An image dataset: anything with a dimension ``sample``. Where it has ``label`` (sample,)
        the draw is stratified by it, -1 counting as a class of its own; otherwise it is plain.
    n
        How many samples to keep, 1 to the number there are. From as many as there are classes
        on, each class that has members keeps at least one.
    seed
        Seed of the draw.

    Returns
    -------
    xarray.Dataset
        The chosen samples in their former order, ``sample`` unchanged, with ``attrs["seed"]`` and
        ``attrs["n_available"]``.

    Raises
    ------
    TypeError
        ``n`` or ``seed`` is not a whole number.
    BadDataError
        ``n`` is less than 1 or more than there is.

    Examples
    --------
    >>> from workbench.datasets import load
    >>> digits = load("digits", split="test")
    >>> subset(digits, 100, seed=1).sizes["sample"]
    100
    """
    label = ds["label"].values if "label" in ds else None
    chosen = choose(label, ds.sizes["sample"], n, seed)
    return ds.isel(sample=chosen).assign_attrs(seed=int(seed), n_available=ds.sizes["sample"])


def choose(label: NDArray[Any] | None, total: int, n: int, seed: int) -> NDArray[np.intp]:
    """Return the ascending positions of ``n`` of ``total`` samples, stratified by ``label``."""
    _check(n, total, seed)
    rng = np.random.default_rng(int(seed))
    if label is None:
        return np.sort(rng.choice(total, size=n, replace=False))
    classes, members, counts = np.unique(label, return_inverse=True, return_counts=True)
    shares = class_shares(counts, int(n), rng)
    drawn = [
        rng.choice(np.flatnonzero(members == k), size=shares[k], replace=False)
        for k in range(len(classes))
    ]
    return np.sort(np.concatenate(drawn))


def class_shares(counts: NDArray[np.intp], n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Share ``n`` out in proportion to ``counts`` by largest remainder, ties at random."""
    shares: NDArray[np.intp] = n * counts // counts.sum()
    remainders = n * counts % counts.sum()
    lots = rng.random(len(counts))
    if n >= len(counts):
        remainders = np.where(shares == 0, -1, remainders)  # lifted to 1: served already
        shares = np.maximum(shares, 1)
    left = n - int(shares.sum())
    if left > 0:
        shares[np.lexsort((lots, -remainders))[:left]] += 1
    while left < 0:  # small classes were lifted: the classes furthest above their share give
        excess = np.where(shares > 1, shares * counts.sum() - n * counts, -np.inf)
        shares[np.lexsort((lots, -excess))[0]] -= 1
        left += 1
    return shares


def _check(n: int, total: int, seed: int) -> None:
    given: tuple[tuple[str, Any], ...] = (("n", n), ("seed", seed))
    for name, value in given:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{name} must be a whole number, not {value!r}")
    if seed < 0:
        raise BadDataError(f"seed must be 0 or more, not {seed}")
    if n < 1:
        raise BadDataError(f"n must be 1 or more, not {n}; leave it out to load everything")
    if n > total:
        raise BadDataError(
            f"n={n} is more than there is: {total} samples. Use n={total} or less, or leave it out."
        )


@dataclass(frozen=True)
class SplitImages:
    """One split of a named dataset, its images not yet chosen.

    ``images`` takes ascending positions in the split and returns (sample, y, x, channel), so that
    a format that decodes image by image decodes only the chosen ones.
    """

    split: str
    label: NDArray[np.int64]
    images: Callable[[NDArray[np.intp]], NDArray[np.uint8]]
    sha256: str


def build(
    image: Any,
    *,
    sample: NDArray[Any],
    classes: Sequence[str],
    label: NDArray[np.int64] | None = None,
    labels: NDArray[np.bool_] | None = None,
    split: NDArray[np.str_] | None = None,
    path: NDArray[np.str_] | None = None,
    attrs: Mapping[str, Scalar],
) -> xr.Dataset:
    """Return the image dataset; raise ``BadDataError`` where its pieces contradict each other."""
    ids, counts = np.unique(sample, return_counts=True)
    if (counts > 1).any():
        raise BadDataError(f"sample ids must be unique; {ids[counts > 1][0]} occurs twice")
    if label is not None and label.size and not -1 <= label.min() <= label.max() < len(classes):
        raise BadDataError(
            f"labels run from {label.min()} to {label.max()}; "
            f"with {len(classes)} classes they must lie in -1 to {len(classes) - 1}"
        )
    names = np.asarray(list(classes), dtype=np.str_)
    data: dict[str, Any] = {"image": (("sample", "y", "x", "channel"), image)}
    if label is not None:
        # The names go with the labels, so that whoever gets these alone can match by name.
        data["label"] = ("sample", label.astype(np.int64), {"classes": names.tolist()})
    if labels is not None:
        data["labels"] = (("sample", "class"), labels.astype(np.bool_))
    for key, values in (("split", split), ("path", path)):
        if values is not None:
            data[key] = ("sample", np.asarray(values, dtype=np.str_))
    return xr.Dataset(data, coords={"sample": sample, "class": names}, attrs=dict(attrs))


def assemble(
    parts: Sequence[SplitImages],
    classes: Sequence[str],
    attrs: Mapping[str, Scalar],
    n: int | None,
    seed: int,
) -> xr.Dataset:
    """Join the parts of a named dataset and keep ``n`` of their samples.

    ``sample`` is the official index within its split; the second part's indices follow the
    first's, so that they stay unique.
    """
    label = np.concatenate([part.label for part in parts]).astype(np.int64)
    chosen = np.arange(len(label)) if n is None else choose(label, len(label), n, seed)
    ends = np.cumsum([len(part.label) for part in parts])
    rows = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    starts = ends - [len(part.label) for part in parts]
    pieces = [
        part.images(row - start) for part, row, start in zip(parts, rows, starts, strict=True)
    ]
    split = np.repeat([part.split for part in parts], [len(row) for row in rows])
    shas = [part.sha256 for part in parts]
    sha = shas[0] if len(shas) == 1 else hashlib.sha256("".join(shas).encode()).hexdigest()
    drawn: dict[str, Scalar] = {} if n is None else {"seed": seed, "n_available": len(label)}
    return build(
        pieces[0] if len(pieces) == 1 else np.concatenate(pieces),
        sample=chosen.astype(np.int64),
        classes=classes,
        label=label[chosen],
        split=split,
        attrs={**attrs, "sha256": sha, **drawn},
    )
