"""Table of images, CSV, JSON Lines or Parquet: paths or encoded bytes, and their labels."""

import difflib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.datasets.class_numbers import Columns, blank, labels_of, whole_number
from workbench.datasets.errors import BadDataError, warn
from workbench.datasets.images import Item, open_file
from workbench.datasets.listing import Listing, split_order
from workbench.datasets.parquet import Embedded, image_cells, open_parquet

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_IMAGE = ("image", "path", "file", "filename", "file_name", "image_path", "filepath", "img")
_LABEL = ("label", "labels", "class", "class_name", "target", "category", "fine_label")
_SAMPLE = ("sample", "id")
_NOT_LABELS = {"label_given", "review", "sample", "split", *_IMAGE}
Parts = Sequence[tuple[Path, str]]  # the files of a table, and the split that each is, or ""


@dataclass(frozen=True)
class ColumnChoice:
    """Which columns of a table are meant, and how. ``load`` documents each."""

    image: str | None = None
    label: str | Sequence[str] | None = None
    classes: Sequence[str] | None = None
    root: str | os.PathLike[str] | None = None
    suffix: str = ""


def splits(parts: Parts) -> tuple[str, ...]:
    """Return the splits that the files' names or the table's ``split`` column give."""
    values = {split for _, split in parts}
    for path, _ in parts:
        for column in _usual(_header(path), ("split",)):
            values |= set(_texts(_read(path, [column])[column]).tolist())
    return split_order(values)


def listing(parts: Parts, choice: ColumnChoice, name: str) -> Listing:
    """List the images of a table in one or several files, without decoding any of them.

    Raises
    ------
    BadDataError
        The table cannot be read or has no rows; a column is missing; a label is not one.
    """
    first = parts[0][0]
    header = _header(first)
    image = _find(first, header, choice.image, _IMAGE)
    label = _label_column(first, header, image) if choice.label is None else choice.label
    wanted = [label] if isinstance(label, str) else list(label)
    for column in wanted:
        _find(first, header, column, ())
    ids = [name for name in _usual(header, _SAMPLE) if name not in wanted]
    split_columns = _usual(header, ("split",))
    chosen = list(dict.fromkeys([image, *wanted, *ids, *split_columns]))
    tables = [_read(path, chosen, image) for path, _ in parts]
    table = {column: [cell for part in tables for cell in part[column]] for column in chosen}
    rows = [len(part[image]) for part in tables]
    if not sum(rows):
        raise BadDataError(f"{first} has the columns {', '.join(header)} and no rows")
    where = [(path, row) for (path, _), n in zip(parts, rows, strict=True) for row in range(n)]
    split = np.repeat([split for _, split in parts], rows)
    if split_columns:
        split = _texts(table[split_columns[0]])
    root = None if choice.root is None else str(Path(choice.root).expanduser().absolute())
    classes = choice.classes
    if classes is None and isinstance(label, str):
        classes = _schema_names(first, label, table[label])
    columns = {column: table[column] for column in wanted}
    return Listing(
        **_items(where, image, table[image], root, choice.suffix),
        sample=_sample([table[column] for column in ids], sum(rows)),
        attrs={"name": name, "source": f"table{'s'[: len(parts) > 1]} {name}"},
        split=split if split_columns or any(split.tolist()) else None,
        root=root or str(first.parent),
        **labels_of(str(first), columns, sum(rows), label, classes),
    )


def _label_column(path: Path, header: list[str], image: str) -> str | list[str]:
    """The column of labels by its usual names; a warning where there may be one of another name."""
    usual = [name for name in _usual(header, _LABEL) if name != image]
    if usual:
        return usual[0]
    if any(name.lower() not in _NOT_LABELS and name != image for name in header):
        warn(
            f"{path} has no column of labels that is known by its name; it has "
            f"{', '.join(header)}. label= names it, label=[] says that there is none",
            UserWarning,
        )
    return []


def _schema_names(path: Path, label: str, column: list[Any]) -> list[str] | None:
    """The names of Hugging Face's ClassLabel in a Parquet file's schema, for class numbers."""
    if path.suffix.lower() != ".parquet":
        return None
    try:
        about = json.loads((open_parquet(path).schema_arrow.metadata or {})[b"huggingface"])
        feature = about["info"]["features"][label]
        while "names" not in feature:  # a list of class labels
            feature = feature["feature"]
    except (KeyError, TypeError, ValueError):
        return None
    flat = [n for cell in column for n in (cell if isinstance(cell, list) else [cell])]
    return list(feature["names"]) if all(blank(n) or isinstance(n, int) for n in flat) else None


def _items(
    where: list[tuple[Path, int]], image: str, cells: list[Any], root: str | None, suffix: str
) -> dict[str, Any]:
    """Return each image's path or cell, what to call it, and the file name of embedded ones."""
    items: list[Item] = []
    names: list[str] = []
    outside = []
    for (path, row), cell in zip(where, cells, strict=True):
        fence = root or str(path.parent)
        place = cell.get("path") if isinstance(cell, dict) else cell
        name = f"{path.name}, row {row}"
        if isinstance(cell, Embedded):
            items.append(f"{path}#column={image}&row={row}&size={cell.size}")
            names.append(cell.name or name)
        elif blank(place):
            items.append(None)
            names.append(name)
        elif isinstance(place, str):
            full = _full(place, fence) + suffix
            items.append(full)
            names.append(full)
            if not os.path.normpath(full).startswith(fence.rstrip(os.sep) + os.sep):
                outside.append(full)
        else:
            raise BadDataError(
                f"{path}, row {row} (the first is 0): an image must be a path, encoded bytes or "
                f"a struct with bytes and path; found {type(cell).__name__} {str(cell)[:40]!r}"
            )
    if outside:
        text = f"{len(outside)} images lie outside of {fence}, the first at {outside[0]}"
        warn(f"{text}. root= names the folder that they are in", UserWarning)
    own = np.array([getattr(cell, "name", "") for cell in cells], np.str_)
    return {
        "items": items,
        "names": names,
        "path": np.array([item or "" for item in items], np.str_) if any(items) else None,
        "others": {"file_name": own} if any(own.tolist()) else {},
    }


def _full(place: str, root: str) -> str:
    """A path of a table below its root; backslashes are meant as slashes where no file has them."""
    full = os.path.join(root, place.removeprefix("file://"))  # noqa: PTH118 - a Path is slow
    if "\\" in place and os.sep == "/" and not os.path.lexists(full):
        return full.replace("\\", "/")
    return full


def _sample(columns: list[list[Any]], rows: int) -> NDArray[Any]:
    """Return the table's own ids where they are unique, else row numbers."""
    for values in columns:
        if len(set(values)) == rows and not any(map(blank, values)):
            whole = all(isinstance(v, int) or str(whole_number(v)) == v for v in values)
            return np.array(values, dtype=np.int64 if whole else np.str_)
    return np.arange(rows, dtype=np.int64)


def _texts(values: Sequence[Any]) -> NDArray[np.str_]:
    return np.array(["" if blank(value) else str(value) for value in values], dtype=np.str_)


def _usual(header: Sequence[str], usual: Sequence[str]) -> list[str]:
    """The columns of the usual names, in any case, in the order of these names."""
    lower = {name.strip().lower(): name for name in reversed(header)}
    return [lower[name] for name in usual if name in lower]


def _find(path: Path, header: list[str], wanted: str | None, usual: Sequence[str]) -> str:
    """Return the column that is wanted, else the first of the usual ones that is there."""
    if wanted is None:
        found = next(iter(_usual(header, usual)), None)
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
        return list(open_parquet(path).schema_arrow.names)
    if path.suffix.lower() == ".jsonl":
        return list(dict.fromkeys(key for row in _json_lines(path) for key in row))
    return [str(name) for name in _csv(path, nrows=0).columns]


def _read(path: Path, columns: list[str], image: str | None = None) -> Columns:
    """Some columns of a file; of embedded images only where they are."""
    kind = path.suffix.lower()
    if kind == ".jsonl":
        rows = _json_lines(path)
        return {name: [row.get(name) for row in rows] for name in columns}
    if lacking := set(columns) - set(header := _header(path)):
        raise BadDataError(f"{path} has no column {', '.join(lacking)}; it has {', '.join(header)}")
    if kind == ".parquet":
        table = open_parquet(path).read(columns=[name for name in columns if name != image])
        found = {name: table[name].to_pylist() for name in columns if name != image}
        return found if image is None else {image: list(image_cells(path, image)), **found}
    frame = _csv(path)
    return {name: frame[name].tolist() for name in columns}


def _csv(path: Path, **how: Any) -> Any:
    """Read a CSV file as text: a class may be called NA, and the id 007 is not 7."""
    import pandas as pd

    text = _text(path)
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            index_col=False,
            skipinitialspace=True,
            **how,
        )
    except ValueError as error:  # pandas' own errors are ValueErrors
        raise BadDataError(f"{path} is not a readable CSV table: {error}") from error
    return frame.rename(columns=lambda name: str(name).strip())


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_text(path).split("\n")):
        try:
            row = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError) as error:
            raise BadDataError(f"{path}, line {number + 1} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadDataError(f"{path}, line {number + 1} is no object with the columns' names")
        rows.append(row)
    return [row for row in rows if row]


def _text(path: Path) -> str:
    """A file's text: UTF-8, UTF-16 where its first bytes say so, else Western European."""
    try:
        with open_file(str(path)) as file:
            content = file.read()
    except OSError as error:
        raise BadDataError(f"{path} is not a readable table: {error}") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        warn(f"{path} is not in UTF-8; it is read as Windows-1252", UserWarning)
        return content.decode("cp1252", errors="replace")
