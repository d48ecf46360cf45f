"""Parquet files: opened, read by columns, and encoded images read cell by cell."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench._extras import need
from workbench.datasets.errors import BadDataError


def open_parquet(path: Path | str) -> Any:
    """Open a Parquet file; raise ``BadDataError`` where it is none."""
    pyarrow = need("pyarrow", "images")
    try:
        return need("pyarrow.parquet", "images").ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise BadDataError(f"{path} is not a readable Parquet file: {error}") from error


def read_cell(path: str, column: str, row: int) -> bytes:
    """The encoded image in a cell: bytes, or a struct with ``bytes``; empty where it holds none."""
    try:
        starts = _starts(path, _stamp(path))
        group = int(np.searchsorted(starts, row, side="right")) - 1
        cell = _group(path, _stamp(path), column, group)[row - int(starts[group])].as_py()
    except (BadDataError, IndexError, KeyError, ValueError) as error:
        raise OSError(0, f"no cell of a table: {error}") from error
    found = cell.get("bytes") if isinstance(cell, dict) else cell
    return found if isinstance(found, bytes) else b""


@dataclass(frozen=True)
class Embedded:
    """An encoded image in a cell: how many bytes, and the name of the file that it was, or ""."""

    size: int
    name: str


def image_cells(path: Path, column: str) -> Iterator[Any]:
    """The cells of a column of images, those with bytes as ``Embedded``, group by group."""
    for group in range(open_parquet(path).num_row_groups):
        for scalar in _group(str(path), _stamp(str(path)), column, group):
            cell = scalar.as_py()
            fields = cell if isinstance(cell, dict) else {"bytes": cell}
            found, name = fields.get("bytes"), fields.get("path")
            yield Embedded(len(found), name or "") if isinstance(found, bytes) else cell


def _stamp(path: str) -> int:
    return os.stat(path).st_mtime_ns  # noqa: PTH116 - once for each image


@functools.lru_cache(maxsize=16)
def _starts(path: str, _: int) -> Any:
    about = open_parquet(path).metadata
    sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    return np.cumsum([0, *sizes[:-1]])


@functools.lru_cache(maxsize=2)  # rows are asked for in their order, mostly
def _group(path: str, _: int, column: str, group: int) -> Any:
    return open_parquet(path).read_row_group(group, columns=[column])[column]
