"""Table out of a file: a text, also packed, Parquet, or a file of geometries."""

import gzip
import zipfile
from pathlib import Path

import pandas as pd

from workbench._units import show_size

#: Bytes of text in a table: a small archive may hold any number.
_MOST_TEXT = 2**32


def read(file: Path, layer: str | None, separator: str | None, encoding: str) -> pd.DataFrame:
    """A text, Parquet or what else geopandas reads, as `workbench.rasters.read_table` describes."""
    if _is_text(file):
        return _read_text(file, separator, encoding)
    import geopandas
    from pyarrow import parquet

    table: pd.DataFrame
    if file.suffix.lower() != ".parquet":
        table = geopandas.read_file(file, **({} if layer is None else {"layer": layer}))
    elif b"geo" in (parquet.read_schema(file).metadata or {}):
        table = geopandas.read_parquet(file)
    else:
        table = pd.read_parquet(file)
    return table


def _is_text(file: Path) -> bool:
    kinds = (".csv", ".tsv", ".txt")
    if file.suffix.lower() == ".zip":
        with zipfile.ZipFile(file) as archive:
            return all(name.lower().endswith(kinds) for name in archive.namelist())
    return file.with_suffix("").suffix in kinds if file.suffix == ".gz" else file.suffix in kinds


def _unpacked_size(file: Path) -> int:
    """Bytes of a text once it is unpacked, counted no further than what is allowed."""
    if file.suffix.lower() == ".zip":
        with zipfile.ZipFile(file) as archive:
            return sum(member.file_size for member in archive.infolist())
    if file.suffix.lower() != ".gz":
        return file.stat().st_size
    size = 0
    with gzip.open(file) as stream:
        while size <= _MOST_TEXT and (part := stream.read(2**20)):
            size += len(part)
    return size


def _read_text(file: Path, separator: str | None, encoding: str) -> pd.DataFrame:
    if (size := _unpacked_size(file)) > _MOST_TEXT:
        raise ValueError(
            f"unpacked it takes {show_size(size)} or more, and {show_size(_MOST_TEXT)} are read at "
            "most; Parquet has no such limit"
        )
    if separator is None:
        first = pd.read_csv(file, sep="\0", nrows=1, header=None, encoding=encoding).iat[0, 0]
        separator = max(",;\t|", key=str(first).count)
    table = pd.read_csv(file, sep=separator, encoding=encoding)
    shapes = next((n for n in table.columns if str(n).lower() in ("wkt", "geometry")), None)
    if shapes is None:
        return table
    import geopandas

    geometry = geopandas.GeoSeries.from_wkt(table.pop(shapes))
    located: pd.DataFrame = geopandas.GeoDataFrame(table, geometry=geometry)
    return located
