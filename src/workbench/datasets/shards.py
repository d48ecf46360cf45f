"""A store of shards read by its index: tar files of encoded images, made by `workbench.store`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench._extras import need
from workbench.datasets.errors import BadDataError
from workbench.datasets.listing import Listing

INDEX = "index.parquet"
BOXES = "boxes.parquet"
#: Lies in a store while it is written.
JOURNAL = "unfinished"
#: Columns of the index that say where an image lies.
PLACE = ("shard", "offset", "size", "sha256")


def is_store(folder: Path) -> bool:
    """Whether a folder holds shards with their index, or an unfinished one."""
    return (folder / INDEX).is_file() or (folder / JOURNAL).is_file()


def read_index(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The index as a pandas table, and what the store says of itself.

    Raises
    ------
    BadDataError
        The store is unfinished, or its index was not written by `workbench.store.write`.
    """
    parquet = need("pyarrow.parquet", extra="images")
    if not (folder / INDEX).is_file():
        raise BadDataError(
            f"{folder} is not written to its end: the same store.write(...) again goes on with it"
        )
    try:
        table = parquet.read_table(folder / INDEX, memory_map=False)
        about = json.loads((table.schema.metadata or {})[b"workbench"])
    except (OSError, ValueError, KeyError) as error:
        raise BadDataError(f"{folder / INDEX} is no index of a store: {error!r}") from error
    return table.to_pandas(), about


def read_boxes(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The boxes of a store, as :func:`write` got them."""
    parquet = need("pyarrow.parquet", extra="images")
    read_index(Path(path))
    table: pd.DataFrame = parquet.read_table(Path(path) / BOXES).to_pandas()
    if "points" in table:
        points = [
            None if p is None else [list(map(float, xy)) for xy in p] for p in table["points"]
        ]
        table["points"] = pd.Series(points, table.index, dtype=object)
    return table


def listing(folder: Path) -> Listing:
    """List the images of a store, without opening its shards."""
    root = folder.expanduser().absolute()
    table, about = read_index(root)
    places = [table[name].tolist() for name in ("shard", "offset", "size")]
    items = [f"{root}/{a}#offset={b}&size={c}" for a, b, c in zip(*places, strict=True)]
    classes = list(about["classes"])
    number = {name: k for k, name in enumerate(classes)}
    found: dict[str, Any] = {}
    if "label" in table:
        found["label"] = np.array(
            [number.get(name, -1) for name in table["label"].tolist()], np.int64
        )
    if "labels" in table:
        found["labels"] = np.zeros((len(table), len(classes)), np.bool_)
        for row, names in enumerate(table["labels"]):
            found["labels"][row, [number[name] for name in names]] = True
    if "split" in table:
        found["split"] = table["split"].to_numpy(np.str_)
    sample = table["sample"].to_numpy()
    others = table.columns.difference([*PLACE, "sample", "label", "labels", "split"], sort=False)
    return Listing(
        items=[*items],
        names=items,
        sample=sample.astype(np.str_) if sample.dtype == object else sample,
        classes=classes,
        attrs=about["attrs"],
        path=np.asarray(items, dtype=np.str_),
        mode=about["mode"],
        others={str(name): table[name].to_numpy() for name in others},
        **found,
    )


def plain(value: Any) -> Any:
    """A value as JSON has it: NumPy's scalars as Python's, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(each) for each in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
