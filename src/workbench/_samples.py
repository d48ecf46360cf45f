"""Samples of two things aligned by their ids, and pixels scaled to 0 to 1."""

import warnings
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

Along = TypeVar("Along")


def classes_of(ds: xr.Dataset) -> list[str]:
    """The names of a dataset's classes by their numbers; none where it has no classes."""
    return [str(name) for name in ds["class"].values] if "class" in ds.coords else []


def same_samples(one: Along, other: Any, names: tuple[str, str]) -> Along:
    """Align by sample id: `one` in the order of `other`, or an error where samples differ.

    Parameters
    ----------
    one, other
        DataArrays or Datasets along ``sample``, or bare arrays, of which only the length is known.
        The positions that a graph's ``index`` (sample, neighbor) holds follow its samples.
    names
        What the message calls them.

    Returns
    -------
    DataArray, Dataset or array
        `one` itself where the order is the same, or where one of the two has no ids.

    Raises
    ------
    ValueError
        The lengths differ, both have ids and these differ, or an id occurs twice.

    Examples
    --------
    >>> points = xr.DataArray([1, 2], dims="sample", coords={"sample": [7, 8]})
    >>> same_samples(points, points[::-1], ("the points", "the features")).values
    array([2, 1])
    """
    n = _count(one)
    m = _count(other)
    if n != m:
        raise ValueError(
            f"{names[0]} hold {n} samples and {names[1]} {m}: both must come from the same data"
        )
    if not isinstance(one, xr.DataArray | xr.Dataset) or not hasattr(other, "coords"):
        return one
    if "sample" not in one.coords or "sample" not in other.coords:
        return one
    ours = pd.Index(one["sample"].values)
    theirs = pd.Index(other["sample"].values)
    if ours.equals(theirs):
        return one
    for index, name in ((ours, names[0]), (theirs, names[1])):
        if index.has_duplicates:
            twice = index[index.duplicated()][0]
            raise ValueError(f"{name} hold the sample {twice} twice: ids must be unique")
    order = ours.get_indexer(theirs)
    if (order < 0).any():
        at = int(np.argmax(order < 0))
        raise ValueError(
            f"{names[0]} and {names[1]} hold other samples: {np.count_nonzero(order < 0)} of "
            f"{len(theirs)} ids of {names[1]} are not among those of {names[0]}, the first is "
            f"{theirs[at]} at position {at}"
        )
    aligned: Any = one.isel(sample=order)
    if isinstance(aligned, xr.Dataset) and aligned.get("index", aligned["sample"]).ndim == 2:
        aligned["index"] = aligned["index"].copy(data=np.argsort(order)[aligned["index"].values])
    return cast("Along", aligned)


def _count(values: Any) -> int:
    along = "sample" in getattr(values, "sizes", ())
    return int(values.sizes["sample"]) if along else len(values)


def unit_range(values: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels as float32 in 0 to 1: 16 bits divided by 65,535, other integers by 255, floats not.

    An integer image that is not of 16 bits holds bytes, whatever its dtype: nobody stores images
    from 0 to 2^31.

    Raises
    ------
    ValueError
        Such an integer is beyond 0 to 255.

    Examples
    --------
    >>> unit_range(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    top = 1
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        top = 65535
        if values.size and values.max() < top / 10:
            warnings.warn(
                "16-bit images use less than a tenth of 0 to 65,535 and look black to a model; "
                "divide them by their greatest possible value to use all of 0 to 1",
                stacklevel=2,
            )
    elif values.dtype.kind in "iu":
        top = 255
        if values.itemsize > 1 and values.size and not 0 <= values.min() <= values.max() <= top:
            raise ValueError(
                f"images of {values.dtype} hold {values.min()} to {values.max()}; integers must "
                "lie in 0 to 255 or be uint16; else divide by the greatest possible value yourself"
            )
    return np.ascontiguousarray(values, dtype=np.float32) / np.float32(top)
