"""The one form of an image dataset, and how the parts of a named dataset are put into it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.datasets.choosing import choose
from workbench.datasets.errors import BadDataError

Scalar = str | int | list[int] | list[str]


@dataclass(frozen=True)
class Part:
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
        data["label"] = ("sample", label.astype(np.int64))
    if labels is not None:
        data["labels"] = (("sample", "class"), labels.astype(np.bool_))
    for key, values in (("split", split), ("path", path)):
        if values is not None:
            data[key] = ("sample", np.asarray(values, dtype=np.str_))
    return xr.Dataset(data, coords={"sample": sample, "class": names}, attrs=dict(attrs))


def assemble(
    parts: Sequence[Part],
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
