"""Labels and probabilities as they come in, checked a block of rows at a time."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from workbench._extras import need

#: Elements of a block: 64 MiB as float64.
BLOCK = 2**23
#: How far a row's sum may be from 1: ten classes written with three decimals.
ROUNDING = 0.01

Source = ArrayLike | xr.DataArray | pd.DataFrame | str | os.PathLike[str]


def load_probabilities(source: Source | Any) -> xr.DataArray:
    """Class probabilities from wherever they are kept, checked.

    Parameters
    ----------
    source
        (sample, class): a NumPy array or memory map, a dask array, a DataArray, a table with one
        column a class in the order of their numbers, or the path of a ``.npy``, ``.parquet`` or
        ``.csv`` file of one. A table's column ``sample`` becomes the coordinate. A ``.npy`` file
        stays on disk and is read in blocks, as dask arrays and memory maps are.

    Returns
    -------
    xarray.DataArray
        (sample, class), the values as they were.

    Raises
    ------
    ValueError
        The shape is not (sample, class), there are fewer than two classes or no sample, a value
        is NaN, negative or above 1, or a row does not sum to 1: how many rows, and the first.

    Examples
    --------
    >>> load_probabilities([[0.9, 0.1], [0.2, 0.8]]).sizes["class"]
    2
    """
    found = _array(_read(source) if isinstance(source, str | os.PathLike) else source)
    if found.ndim != 2 or found.shape[1] < 2 or found.shape[0] == 0:
        raise ValueError(
            f"probabilities must have the shape (sample, class), with at least one sample and two "
            f"classes, not {found.shape}"
        )
    found = found.rename(dict(zip(found.dims, ("sample", "class"), strict=True)))
    for rows, block in blocks(found):
        _check_block(block, rows.start)
    return found


def blocks(probabilities: xr.DataArray) -> Iterator[tuple[slice, NDArray[np.floating[Any]]]]:
    """Yield runs of rows as NumPy arrays, about 64 MiB each, and where they lie."""
    total, classes = probabilities.shape
    step = max(1, BLOCK // classes)
    for start in range(0, total, step):
        rows = slice(start, min(start + step, total))
        block = np.asarray(probabilities.data[rows])
        yield rows, block if block.dtype.kind == "f" else block.astype(np.float64)


def class_numbers(
    labels: ArrayLike | xr.DataArray, classes: int | None = None
) -> NDArray[np.int64]:
    """Labels as int64 (sample,), or an error that says which of them is no class.

    Parameters
    ----------
    labels
        Whole numbers (sample,).
    classes
        How many classes there are; None takes any number from 0 up.
    """
    given = np.asarray(labels)
    if given.ndim != 1 or len(given) == 0:
        raise ValueError(f"labels must have the shape (sample,), not {given.shape}")
    whole = given.dtype.kind in "iu"
    if given.dtype.kind == "f":
        whole = np.isfinite(given) & (given == np.floor(given))
    if not np.all(whole):
        first = given[int(np.argmin(np.broadcast_to(whole, given.shape)))].item()
        raise ValueError(
            f"labels must be class numbers, whole numbers from 0 up, not {given.dtype} such as "
            f"{first!r}"
        )
    numbers = given.astype(np.int64)
    none = np.flatnonzero(numbers == -1)
    if none.size:
        raise ValueError(
            f"{none.size} samples have no label (-1), the first at position {none[0]}; leave them "
            "out: ds.isel(sample=ds.label.values >= 0)"
        )
    top = np.iinfo(np.int64).max if classes is None else classes
    outside = np.flatnonzero((numbers < 0) | (numbers >= top))
    if outside.size:
        raise ValueError(
            f"{outside.size} labels are none of the {classes or ''} classes, the first is "
            f"{numbers[outside[0]]} at position {outside[0]}; classes are numbered from 0"
            + (f" to {classes - 1}" if classes else "")
        )
    return numbers


def _read(path: str | os.PathLike[str]) -> Any:
    """Return what a file holds."""
    kind = Path(path).suffix.lower()
    readers: dict[str, Callable[[Any], Any]] = {
        ".npy": lambda file: np.load(file, mmap_mode="r"),
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".pq": pd.read_parquet,
    }
    if kind not in readers:
        raise ValueError(f"{path}: probabilities are read from .npy, .parquet or .csv files")
    if kind in (".parquet", ".pq"):
        need("pyarrow", extra="images")
    try:
        return readers[kind](path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as {kind}: {error}") from error


def _array(source: Any) -> xr.DataArray:
    """Wrap the values without copying or loading them."""
    if isinstance(source, xr.DataArray):
        named = set(source.dims) == {"sample", "class"}
        return source.transpose("sample", "class") if named else source
    if isinstance(source, pd.DataFrame):
        table = source.set_index("sample") if "sample" in source else source
        texts = [str(name) for name, kind in table.dtypes.items() if kind.kind not in "fiu"]
        if texts:
            raise ValueError(f"columns {', '.join(texts)} of the probabilities hold no numbers")
        return xr.DataArray(
            table.to_numpy(), dims=("sample", "class"), coords={"sample": table.index.to_numpy()}
        )
    lazy = hasattr(source, "dtype") and hasattr(source, "ndim")
    values = source if lazy else np.asarray(source, dtype=np.float64)
    return xr.DataArray(values, dims=[f"dim_{i}" for i in range(values.ndim)])


def _check_block(block: NDArray[np.floating[Any]], start: int) -> None:
    """Raise where a row is no distribution. NaN fails every comparison, so it is asked first."""
    total = block.sum(axis=1, dtype=np.float64)
    if block.min() >= 0 and block.max() <= 1 + ROUNDING and np.abs(total - 1).max() <= ROUNDING:
        return
    wrong = {
        "hold NaN": np.isnan(block).any(axis=1),
        "hold negative values": (block < 0).any(axis=1),
        "hold values above 1": (block > 1 + ROUNDING).any(axis=1),
        "do not sum to 1": np.abs(total - 1) > ROUNDING,
    }
    for what, rows in wrong.items():
        if rows.any():
            first = int(np.argmax(rows))
            raise ValueError(
                f"{np.count_nonzero(rows)} rows of the probabilities {what}, the first at "
                f"position {start + first}: {block[first][:5]}"
                + (f", sum {total[first]:.3f}" if what == "do not sum to 1" else "")
                + "; if these are logits, give their softmax"
            )
