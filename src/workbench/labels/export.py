"""Corrected labels as files: a table, or a folder with one subfolder a class."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from workbench._extras import need
from workbench._pictures import picture
from workbench.labels.decisions import Where, apply_decisions


def export(
    ds: xr.Dataset, store: Where, path: str | os.PathLike[str], *, progress: bool = True
) -> Path:
    """Write what the review came to.

    Parameters
    ----------
    ds
        The dataset that was reviewed.
    store
        The file of decisions.
    path
        ``.csv`` or ``.parquet``: a table with one row a sample: ``sample``, ``label`` and
        ``label_given`` by name (empty for none), ``review``, and ``split`` and ``path`` where the
        dataset has them. Without a suffix: a folder, ``class_name/file``, below ``split/`` where
        there are several; images without a class lie beside the class folders. Images that came
        from files are copied, others written as PNG; both are named by their id.
        ``datasets.load`` reads all three.
    progress
        Show a bar.

    Returns
    -------
    pathlib.Path
        What was written; it is there as a whole or not at all.

    Raises
    ------
    FileExistsError
        Something is there already.
    ValueError
        The suffix is not known, or a class cannot be the name of a folder.
    StoreError
        The store cannot be used, or is of another dataset.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in ("", ".csv", ".parquet"):
        raise ValueError(
            f"{target.name!r} ends in {target.suffix!r}; .csv and .parquet make a table, no suffix "
            "makes a folder"
        )
    if target.exists():
        raise FileExistsError(f"{target} is there already; choose another name or remove it")
    fixed = apply_decisions(ds, store)
    part = target.with_name(f".{target.name}.part")
    if target.suffix:
        _write_table(fixed, part, target.suffix.lower())
    else:
        _write_folder(fixed, part, progress)
    part.replace(target)
    return target


def _write_table(fixed: xr.Dataset, path: Path, suffix: str) -> None:
    names = np.array([*(str(name) for name in fixed["class"].values), ""], dtype=object)
    columns = {"sample": fixed["sample"].values}
    columns |= {key: names[fixed[key].values] for key in ("label", "label_given")}
    columns |= {key: fixed[key].values for key in ("review", "split", "path") if key in fixed}
    table = pd.DataFrame(columns)
    if suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        need("pyarrow", extra="labels")
        table.to_parquet(path, index=False)


def _write_folder(fixed: xr.Dataset, folder: Path, progress: bool) -> None:
    names = [*_folder_names(fixed), ""]
    several = "split" in fixed and len(set(fixed["split"].values.tolist())) > 1
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was interrupted
    folder.mkdir(parents=True)
    for i in tqdm(range(fixed.sizes["sample"]), desc="export", disable=not progress):
        one = fixed.isel(sample=i)
        place = folder / (str(one["split"].values) if several else "") / names[int(one["label"])]
        place.mkdir(parents=True, exist_ok=True)
        name = Path(str(one["sample"].values).replace("/", "_").replace(os.sep, "_"))
        if "path" in fixed:
            source = Path(str(one["path"].values))
            shutil.copy2(source, place / f"{name.name.removesuffix(source.suffix)}{source.suffix}")
        else:
            image = need("PIL.Image", extra="labels").fromarray(picture(one["image"].values))
            image.save(place / f"{name}.png")


def _folder_names(fixed: xr.Dataset) -> list[str]:
    names = [str(name) for name in fixed["class"].values]
    for name in names:
        if name != Path(name).name or name.startswith("."):
            raise ValueError(f"the class {name!r} cannot be the name of a folder")
    return names
