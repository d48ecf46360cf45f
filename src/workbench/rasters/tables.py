"""Tables of regions from files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pandas as pd

from workbench._extras import need
from workbench.rasters.errors import RegionError


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of places: CSV or Parquet, or any file of geometries that geopandas reads.

    Parameters
    ----------
    path
        ``.csv``; ``.parquet``, which may be GeoParquet; ``.gpkg``, ``.geojson``, ``.shp``...

    Returns
    -------
    pandas.DataFrame
        A GeoDataFrame where there are geometries; :func:`workbench.rasters.regions` takes both.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    RegionError
        It cannot be read as a table.

    Examples
    --------
    >>> read_table("houses.gpkg")  # doctest: +SKIP
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"there is no table at {file}")
    try:
        table: pd.DataFrame = _reader(file)(file)
    except (OSError, ValueError, RuntimeError) as error:
        raise RegionError(f"{file} cannot be read as a table of regions: {error}") from error
    return table


def _reader(file: Path) -> Callable[[Path], Any]:
    if file.suffix.lower() == ".csv":
        return pd.read_csv
    geopandas = need("geopandas", extra="rasters")
    if file.suffix.lower() != ".parquet":
        return cast(Callable[[Path], Any], geopandas.read_file)
    schema = need("pyarrow.parquet", extra="rasters").read_schema(file)
    located = b"geo" in (schema.metadata or {})
    reader: Callable[[Path], Any] = geopandas.read_parquet if located else pd.read_parquet
    return reader
