"""What every topic asks of samples: that they are the same ones, and pixels from 0 to 1."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray


def same_samples(one: Any, other: Any, names: tuple[str, str]) -> None:
    """Raise unless two things are of the same samples, as far as lengths and ids tell.

    Parameters
    ----------
    one, other
        DataArrays or Datasets along ``sample``, or bare arrays, of which only the length is known.
    names
        What the message calls them.

    Raises
    ------
    ValueError
        The lengths differ, or both have ids and these differ or come in another order.

    Examples
    --------
    >>> points = xr.DataArray([1, 2], dims="sample", coords={"sample": [7, 8]})
    >>> same_samples(points, points[::-1], ("the points", "the features"))
    Traceback (most recent call last):
    ValueError: the points and the features hold other samples, or in another order: 2 of 2 ids \
differ, the first at position 0 (7 and 8); .sel(sample=...) puts the same ids in order
    """
    n, m = _count(one), _count(other)
    if n != m:
        raise ValueError(
            f"{names[0]} hold {n} samples and {names[1]} {m}: both must come from the same data"
        )
    labelled = isinstance(one, xr.DataArray | xr.Dataset) and hasattr(other, "coords")
    if not labelled or "sample" not in one.coords or "sample" not in other.coords:
        return
    ours, theirs = one["sample"].values, other["sample"].values
    if not np.array_equal(ours, theirs):
        differ = np.broadcast_to(ours != theirs, ours.shape)
        at = int(np.argmax(differ))
        raise ValueError(
            f"{names[0]} and {names[1]} hold other samples, or in another order: "
            f"{np.count_nonzero(differ)} of {len(ours)} ids differ, the first at position {at} "
            f"({ours[at]} and {theirs[at]}); .sel(sample=...) puts the same ids in order"
        )


def _count(values: Any) -> int:
    along = "sample" in getattr(values, "sizes", ())
    return int(values.sizes["sample"]) if along else len(values)


def unit_range(values: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels as float32: integers divided by the largest number of their type, others as they are.

    Examples
    --------
    >>> unit_range(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    top = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
    return np.ascontiguousarray(values, dtype=np.float32) / np.float32(top)
