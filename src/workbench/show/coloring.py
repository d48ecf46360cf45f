"""What colour every sample of a map has: that of its class, or that of a measured value."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.dates import date2num
from numpy.typing import NDArray

from workbench._samples import same_samples
from workbench.show.style import OTHERS, UNLABELLED, colors

#: More classes than this cannot be told apart; the rarer ones become one grey group.
MOST_CLASSES = 20
#: The palette holds this many colours twice, light and dark; the second time as triangles.
_CIRCLES = 10
_LONGEST_NAME = 32
Color = str | xr.DataArray | Literal[False]


@dataclass(frozen=True)
class Group:
    """Samples that look alike on a map: those of one class, of all the rare ones, of none."""

    name: str
    color: str
    members: NDArray[np.intp]
    marker: str = "o"
    #: A real class, drawn over the grey groups and named where it is densest.
    named: bool = True


@dataclass(frozen=True)
class Groups:
    """The samples by class."""

    groups: list[Group]
    title: str = ""


@dataclass(frozen=True)
class Values:
    """A measured value for every sample."""

    values: NDArray[np.float64]
    title: str
    #: Whether they are days, as matplotlib counts them.
    dates: bool = False

    @property
    def groups(self) -> list[Group]:
        """The samples without a value, as the group that they are in a legend."""
        missing = np.flatnonzero(~np.isfinite(self.values))
        text = f"no {self.title}" if self.title else "no value"
        return [Group(text, UNLABELLED, missing, named=False)] if len(missing) else []

    def extent(self) -> tuple[float, float, NDArray[np.bool_]]:
        """The smallest and the largest finite value, and which ones are finite."""
        known = np.isfinite(self.values)
        there = self.values[known] if known.any() else np.zeros(1)
        return float(there.min()), float(there.max()), known


def read_color(ds: xr.Dataset, color: Color) -> Groups | Values:
    """Turn what a caller wants to colour by into groups or values.

    Integers are class numbers, named by the array's ``attrs["classes"]`` or else by the
    dataset's ``class``; integers that these names do not fit stand for themselves, and where
    there are more than 20 of them they are values. Text and bool are categories, floats values.

    Raises
    ------
    ValueError
        The dataset has no such variable, or the array is not one number or text for each sample.
    """
    everything = np.arange(ds.sizes["sample"])
    if color is False or (isinstance(color, str) and color == "label" and "label" not in ds):
        return Groups([Group("", colors(1)[0], everything, named=False)])
    by = _variable(ds, color) if isinstance(color, str) else color
    if by.shape[:1] != everything.shape or by.dims[1:] not in ((), ("class",)):
        raise ValueError(
            f"to colour {len(everything)} samples takes as many values; "
            f"{by.name or 'the array'!r} has shape {by.shape}"
        )
    by = same_samples(by, ds, (repr(by.name or "the colours"), "the dataset"))
    title = "" if by.name in (None, "label") else str(by.name)
    values = np.asarray(by.values)
    if values.ndim == 2:
        return _groups(*_combinations(by), title)
    if values.dtype.kind == "M":
        days: Any = date2num(values)  # type: ignore[no-untyped-call]
        return Values(np.asarray(days, dtype=np.float64), title, dates=True)
    if values.dtype.kind == "f":
        return Values(values.astype(np.float64), title)
    if values.dtype.kind == "b":
        return _groups(values.astype(np.int64), ["no", "yes"], title)
    if values.dtype.kind in "iu":
        names = by.attrs.get("classes", ds["class"].values if "class" in ds.coords else [])
        return _integers(values.astype(np.int64), [str(name) for name in names], title)
    if values.dtype.kind in "OUST":
        return _groups(*_categories(values), title)
    raise ValueError(f"{by.name or 'the array'!r} of type {values.dtype} has no colours")


def _variable(ds: xr.Dataset, name: str) -> xr.DataArray:
    if name in ds:
        return ds[name]
    known = [str(key) for key, var in ds.variables.items() if var.dims == ("sample",)]
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known) or 'none'}"
    raise ValueError(f"the dataset has no variable {name!r} to colour by; {hint}")


def _integers(numbers: NDArray[np.int64], names: list[str], title: str) -> Groups | Values:
    """Class numbers, or numbers that mean themselves."""
    if len(numbers) == 0 or -1 <= numbers.min() <= numbers.max() < len(names):
        return _groups(numbers, names, title)
    distinct = np.unique(numbers)
    if len(distinct) > MOST_CLASSES:
        return Values(numbers.astype(np.float64), title)
    known = distinct[distinct != -1]
    codes = np.where(numbers == -1, -1, np.searchsorted(known, numbers))
    return _groups(codes, [str(number) for number in known], title)


def _combinations(by: xr.DataArray) -> tuple[NDArray[np.int64], list[str]]:
    """Number the sets of labels that occur; -1 for none."""
    names = by["class"].values if "class" in by.coords else np.arange(by.shape[1])
    sets, codes = np.unique(by.values.astype(bool), axis=0, return_inverse=True)
    codes = np.where(np.any(sets, axis=1, keepdims=True)[codes.ravel(), 0], codes.ravel(), -1)
    return codes.astype(np.int64), [" + ".join(map(str, names[row])) for row in sets]


def _categories(values: NDArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Number texts in their sorted order; missing and empty ones become -1."""
    texts = [None if pd.isna(value) or str(value) == "" else str(value) for value in values]
    codes, names = pd.factorize(np.array(texts, dtype=object), sort=True)
    return codes.astype(np.int64), [str(name) for name in names]


def _groups(numbers: NDArray[np.int64], names: Sequence[str], title: str) -> Groups:
    """The classes that occur, in their order; the rarest together; those without one."""
    present, counts = np.unique(numbers[numbers >= 0], return_counts=True)
    kept = np.sort(present[np.argsort(-counts, kind="stable")[:MOST_CLASSES]])
    # A class keeps its colour in every subset of the data, unless there are too many for that.
    places = kept if len(names) <= MOST_CLASSES else np.arange(len(kept))
    palette = colors(MOST_CLASSES)
    groups = [
        Group(
            shorten(names[number]),
            palette[place],
            np.flatnonzero(numbers == number),
            "o" if place < _CIRCLES else "^",
            # With classes left out, the names that are not there would mislead; and two halves
            # of the data, such as its splits, are hardly ever clusters.
            named=2 < len(present) == len(kept),
        )
        for number, place in zip(kept, places, strict=True)
    ]
    rest = np.flatnonzero((numbers >= 0) & ~np.isin(numbers, kept))
    if len(rest):
        groups.append(Group(f"and {len(present) - len(kept)} more", OTHERS, rest, named=False))
    none = np.flatnonzero(numbers < 0)
    if len(none):
        text = f"no {title}" if title else "no label"
        groups.append(Group(text, UNLABELLED, none, named=False))
    return Groups(groups, title)


def shorten(text: str, longest: int = _LONGEST_NAME) -> str:
    """Cut a text that no legend has room for.

    Examples
    --------
    >>> shorten("a long story", longest=7)
    'a long…'
    """
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
