"""MLRSNet's layout: aerial images by category, with a table of 0/1 labels for each category."""

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from workbench.datasets.class_numbers import flags
from workbench.datasets.errors import BadDataError, DataNotFoundError
from workbench.datasets.images import Size
from workbench.datasets.listing import Listing, Options, collect


def load_mlrsnet(
    folder: str | os.PathLike[str],
    categories: str = "*",
    classes: Sequence[str] | None = None,
    n: int | None = None,
    seed: int = 0,
    *,
    size: int | Size | None = None,
    lazy: bool | None = None,
) -> xr.Dataset:
    """Load MLRSNet, or another dataset laid out like it, as a multi-label image dataset.

    ``Images/<category>/*.jpg`` holds the images, ``Labels/<category>.csv`` one row an image: its
    file name in the first column, then 0 or 1 for each label (Qi et al. 2020, arXiv:2010.00243).

    Parameters
    ----------
    folder
        Holds ``Images`` and ``Labels``.
    categories
        Which categories, as a file pattern: ``"air*"`` for airplane, airport, ...
    classes
        Which labels to keep, and their order; by default all.
    n
        Draw so many images.
    seed
        Fixes the draw.
    size, lazy
        As :func:`workbench.datasets.load` takes them.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, y, x, channel), ``labels`` bool (sample, class), ``path``; ``sample`` is
        ``<category>/<file name>``.

    Raises
    ------
    DataNotFoundError
        The folder has no ``Images`` or ``Labels``, or no category matches.
    BadDataError
        A table lacks one of `classes`, holds something else than 0 and 1, or names an image that
        is not there.
    """
    root = Path(folder).expanduser().absolute()
    tables = sorted((root / "Labels").glob("*.csv"))
    if not tables or not (root / "Images").is_dir():
        raise DataNotFoundError(f"{root} does not hold the folders Images and Labels (with .csv)")
    chosen = [table for table in tables if fnmatch.fnmatch(table.stem, categories)]
    if not chosen:
        there = ", ".join(table.stem for table in tables[:10])
        raise DataNotFoundError(f"no category in {root} matches {categories!r}; there is {there}")
    read = [_read(root, table, classes) for table in chosen]
    names = list(classes or dict.fromkeys(name for table in read for name in table.columns))
    rows = pd.concat([table.reindex(columns=names, fill_value=0) for table in read])
    sample = rows.index.to_numpy(dtype=str)
    columns = [flags(rows[name].tolist(), f"label {name!r}") for name in names]
    listing = Listing(
        items=[str(root / "Images" / name) for name in sample],
        names=sample.tolist(),
        sample=sample,
        classes=names,
        attrs={"name": "mlrsnet", "source": f"folder {root.name}, categories {categories}"},
        labels=np.column_stack(columns),
        path=np.array([str(root / "Images" / name) for name in sample], np.str_),
        root=str(root),
    )
    return collect(listing, Options(size=size, lazy=lazy), n, seed)


def _read(root: Path, table: Path, classes: Sequence[str] | None) -> pd.DataFrame:
    """Return one category's labels, indexed by ``<category>/<file name>``."""
    rows = pd.read_csv(table, index_col=0)
    rows.columns = [str(name).strip() for name in rows.columns]
    lacking = [name for name in classes or () if name not in rows]
    if lacking:
        raise BadDataError(f"{table} has no label {', '.join(lacking)}; it has {list(rows)[:70]}")
    rows.index = pd.Index([f"{table.stem}/{name}" for name in rows.index])
    absent = [name for name in rows.index if not (root / "Images" / name).is_file()]
    if absent:
        raise BadDataError(
            f"{table} names {len(absent)} images that are not in {root / 'Images'}, the first "
            f"{absent[0]}"
        )
    return rows
