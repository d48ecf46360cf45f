"""The manifest as a file, written some rows at a time: a plan may have millions of regions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench._extras import need

if TYPE_CHECKING:
    from workbench.rasters.plans import Plan

#: What a run finds out about each region.
FACTS = ["path", "error", "block_row", "block_column"]
_OWN = {"sample", "position", "stored", *FACTS}
#: Rows to put together at a time.
_ROWS = 2**16


def write_manifest(plan: "Plan", parts: Sequence[Path], target: Path) -> None:
    """Join what the groups' parts say with the plan's table, in the table's order.

    Parameters
    ----------
    parts
        Of all groups, in their order: Parquet files with ``position`` and the facts.
    """
    pyarrow, parquet = need("pyarrow", extra="rasters"), need("pyarrow.parquet", extra="rasters")
    table, (paths, failed) = _storable(plan), _found(parts)
    stored = np.arange(len(table))
    if plan.form.pieces == 1:
        stored[plan.layout.order] = np.arange(len(table))

    def rows(start: int) -> pd.DataFrame:
        found = table.iloc[start : start + _ROWS].reset_index()
        position = np.arange(start, start + len(found))
        known = failed.reindex(position)
        found.insert(1, "position", position)
        found.insert(2, "stored", stored[position])
        found.insert(3, "path", paths.take(stored[position]).to_pylist())
        found["error"] = known["error"].fillna("").to_numpy()
        for name in ("block_row", "block_column"):
            found[name] = known[name].fillna(-1).to_numpy(np.int64)
        return found

    schema = _schema(table, rows(0))
    with parquet.ParquetWriter(target, schema) as writer:
        for start in range(0, len(table), _ROWS):
            writer.write_table(pyarrow.Table.from_pandas(rows(start), schema, preserve_index=False))


def _schema(table: pd.DataFrame, first: pd.DataFrame) -> Any:
    """The types of all rows: the first ones alone may have nothing in a column."""
    pyarrow = need("pyarrow", extra="rasters")
    schema = pyarrow.Schema.from_pandas(first, preserve_index=False)
    for field in pyarrow.Schema.from_pandas(table.reset_index(), preserve_index=False):
        schema = schema.set(schema.get_field_index(field.name), field)
    return schema


def _storable(plan: "Plan") -> pd.DataFrame:
    """The plan's table in types that Parquet has, beside our own columns."""
    pyarrow = need("pyarrow", extra="rasters")
    table = pd.DataFrame(plan.table.drop(columns="polygon", errors="ignore"))
    names = {name: f"{name}_" if name in _OWN else str(name) for name in table.columns}
    table = table.rename(columns=names).rename_axis("sample")
    for name in table.columns[[str(dtype) in ("object", "geometry") for dtype in table.dtypes]]:
        values = table[name].astype(object)
        try:
            pyarrow.array(values, from_pandas=True)
        except (pyarrow.ArrowException, TypeError):
            table[name] = values.map(str, na_action="ignore").astype(object)
    return table


def _found(parts: Sequence[Path]) -> tuple[Any, pd.DataFrame]:
    """Paths in read order, and what failed, by its position in the table."""
    pyarrow, parquet = need("pyarrow", extra="rasters"), need("pyarrow.parquet", extra="rasters")
    compute = need("pyarrow.compute", extra="rasters")
    paths, failed = [], []
    for part in parts:
        rows = parquet.read_table(part)
        paths += rows["path"].chunks
        failed.append(rows.filter(compute.not_equal(rows["error"], "")).to_pandas())
    # of a region in pieces any that failed
    first = pd.concat(failed, ignore_index=True).drop_duplicates("position")
    return pyarrow.chunked_array(paths).combine_chunks(), first.set_index("position")
