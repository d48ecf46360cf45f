"""CSV or Parquet table of images: paths or encoded bytes, and their labels as class numbers."""

import difflib
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need
from workbench.datasets.errors import BadDataError
from workbench.datasets.images import Item
from workbench.datasets.listing import Listing

SUFFIXES = (".csv", ".parquet")
_IMAGE = ("image", "path", "file", "filename", "image_path", "filepath")
_LABEL = ("label", "class")
_SAMPLE = ("sample", "id")
Columns = dict[str, list[Any]]
_WHOLE = re.compile(r"(-?\d+)(\.0+)?")
_TRUE = {"1", "1.0", "true"}
_FALSE = {"0", "0.0", "false"}


def blank(value: Any) -> bool:
    """Say whether a cell holds nothing: None, an empty text or not-a-number."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def single(
    values: Sequence[Any], where: str, classes: Sequence[str] | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Return class numbers, -1 for blank cells, and the class names.

    Whole numbers stay as they are, unless they are far from 0 to K-1 (years, identifiers) and no
    names are given: then, like texts, each different one is a class.
    """
    label = np.full(len(values), -1, np.int64)
    rows = [row for row, value in enumerate(values) if not blank(value)]
    numbers = [_whole(values[row]) for row in rows]
    whole = [number for number in numbers if number is not None]
    if len(whole) == len(rows) and (classes is not None or not _sparse(whole)):
        label[rows] = whole
        names = list(classes or map(str, range(max(whole, default=-1) + 1)))
        _check_range(label, names, where)
        return label, names
    texts = [str(values[row]) for row in rows]
    if len(whole) == len(rows):
        names = [str(number) for number in sorted(set(whole))]
        texts = [str(number) for number in whole]
    else:
        names = sorted(set(texts)) if classes is None else list(classes)
    index = {name: number for number, name in enumerate(names)}
    for row, text in zip(rows, texts, strict=True):
        if text not in index:
            close = difflib.get_close_matches(text, names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise BadDataError(f"{where}, row {row}: {text!r} is none of the given classes{hint}")
        label[row] = index[text]
    return label, names


def flags(values: Sequence[Any], where: str) -> NDArray[np.bool_]:
    """Return a 0/1 column as booleans."""
    texts = [str(value).strip().lower() for value in values]
    for row, text in enumerate(texts):
        if text not in _TRUE and text not in _FALSE:
            raise BadDataError(
                f"{where}, row {row} (the first is 0): {values[row]!r} is neither 0 nor 1. "
                "A column of a multi-label table says whether an image is of that class."
            )
    return np.array([text in _TRUE for text in texts], dtype=np.bool_)


def _whole(value: Any) -> int | None:
    """Return the number that a cell holds, if it is a whole one."""
    if isinstance(value, bool | np.bool_):
        return None
    match = _WHOLE.fullmatch(str(value))
    return int(match[1]) if match else None


def _sparse(numbers: Sequence[int]) -> bool:
    return max(numbers, default=0) >= max(100, 10 * len(set(numbers)))


def _check_range(label: NDArray[np.int64], names: Sequence[str], where: str) -> None:
    outside = np.flatnonzero((label < -1) | (label >= len(names)))
    if outside.size:
        row = int(outside[0])
        raise BadDataError(
            f"{where}, row {row} (the first is 0): {label[row]} is not in 0 to {len(names) - 1}, "
            f"the numbers of {len(names)} classes, nor -1 for none"
        )


def splits(path: Path) -> tuple[str, ...]:
    """Return the values of the table's ``split`` column, if it has one."""
    if "split" not in _header(path):
        return ()
    values = sorted(set(_split(_read(path, ["split"])).tolist()) - {""})
    usual = [name for name in ("train", "val", "test") if name in values]
    return (*usual, *(value for value in values if value not in usual))


def listing(
    path: Path,
    image: str | None = None,
    label: str | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Listing:
    """List the images of a table with their labels, without decoding any of them.

    Raises
    ------
    BadDataError
        The table cannot be read or has no rows; a column is missing; a label is not one.
    """
    path = path.expanduser().absolute()
    header = _header(path)
    image = _find(path, header, image, _IMAGE)
    if label is None:
        label = next((name for name in _LABEL if name in header and name != image), [])
    wanted = [label] if isinstance(label, str) else list(label)
    for name in wanted:
        _find(path, header, name, ())
    known = [name for name in (*_SAMPLE, "split") if name in header]
    table = _read(path, list(dict.fromkeys([image, *wanted, *known])))
    rows = len(table[image])
    if not rows:
        raise BadDataError(f"{path} has the columns {', '.join(header)} and no rows")
    items, names, paths = _items(path, table[image])
    return Listing(
        items=items,
        names=names,
        sample=_sample(table, rows),
        attrs={"name": path.stem, "source": f"table {path.name}"},
        split=_split(table) if "split" in table else None,
        path=paths,
        **_labels(path, table, rows, label, classes),
    )


def _labels(
    path: Path,
    table: Columns,
    rows: int,
    label: str | Sequence[str],
    classes: Sequence[str] | None,
) -> dict[str, Any]:
    """Return ``classes`` with ``label``, or with ``labels`` where several columns are given."""
    if isinstance(label, str) or not label:
        column = table[label] if isinstance(label, str) else [None] * rows
        numbers, names = single(column, f"{path}, column {label!r}", classes)
        return {"label": numbers, "classes": names}
    names = list(label if classes is None else classes)
    if len(names) != len(label):
        raise BadDataError(
            f"classes names {len(names)} classes and label names {len(label)} columns: "
            "there must be one name for each column"
        )
    marks = [flags(table[name], f"{path}, column {name!r}") for name in label]
    return {"labels": np.stack(marks, axis=1), "classes": names}


def _items(path: Path, cells: list[Any]) -> tuple[list[Item], list[str], NDArray[np.str_] | None]:
    """Return each image's path or bytes, what to call it, and the paths where there are any."""
    items: list[Item] = []
    names = []
    paths = []
    for row, cell in enumerate(cells):
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        place = cell.get("path") if isinstance(cell, dict) else cell
        if isinstance(content, bytes):
            items.append(content)
            paths.append(place if isinstance(place, str) else "")
            names.append(paths[-1] or f"{path.name}, row {row}")
        elif blank(place):
            items.append(None)
            paths.append("")
            names.append(f"{path.name}, row {row}")
        elif isinstance(place, str):
            items.append(os.path.join(path.parent, place))  # noqa: PTH118 - a Path for each is slow
            paths.append(str(items[-1]))
            names.append(paths[-1])
        else:
            raise BadDataError(
                f"{path}, row {row} (the first is 0): an image must be a path, encoded bytes or "
                f"a struct with bytes and path; found {type(cell).__name__} {str(cell)[:40]!r}"
            )
    return items, names, np.array(paths, dtype=np.str_) if any(paths) else None


def _sample(table: Columns, rows: int) -> NDArray[Any]:
    """Return the table's own ids where they are unique, else row numbers."""
    for name in _SAMPLE:
        values = table.get(name, [])
        if values and len(set(values)) == rows and not any(map(blank, values)):
            whole = all(isinstance(value, int) for value in values)
            return np.array(values, dtype=np.int64 if whole else np.str_)
    return np.arange(rows, dtype=np.int64)


def _split(table: Columns) -> NDArray[np.str_]:
    return np.array(["" if blank(value) else str(value) for value in table["split"]], dtype=np.str_)


def _find(path: Path, header: list[str], wanted: str | None, usual: Sequence[str]) -> str:
    """Return the column that is wanted, else the first of the usual ones that is there."""
    if wanted is None:
        found = next((name for name in usual if name in header), None)
        sought = f"none of {', '.join(usual)}"
    else:
        found = wanted if wanted in header else None
        sought = f"no column {wanted!r}"
    if found is not None:
        return found
    close = difflib.get_close_matches(str(wanted or usual[0]), header, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise BadDataError(
        f"{path} has {sought}; it has {', '.join(header)}.{hint} "
        "Name the columns with image= and label=."
    )


def _header(path: Path) -> list[str]:
    if path.suffix.lower() == ".parquet":
        return list(_parquet(path).schema_arrow.names)
    return [str(name) for name in _csv(path, nrows=0).columns]


def _read(path: Path, columns: list[str]) -> Columns:
    if path.suffix.lower() == ".parquet":
        table = _parquet(path).read(columns=columns)
        return {name: table[name].to_pylist() for name in columns}
    frame = _csv(path, usecols=columns)
    return {name: frame[name].tolist() for name in columns}


def _csv(path: Path, **how: Any) -> Any:
    """Read a CSV file as text: a class may be called NA, and the id 007 is not 7."""
    import pandas as pd

    try:
        return pd.read_csv(
            path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig", **how
        )
    except (ValueError, OSError) as error:  # pandas' own errors and bad UTF-8 are ValueErrors
        raise BadDataError(f"{path} is not a readable CSV table in UTF-8: {error}") from error


def _parquet(path: Path) -> Any:
    pyarrow = need("pyarrow", "images")
    try:
        return need("pyarrow.parquet", "images").ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise BadDataError(f"{path} is not a readable Parquet file: {error}") from error
