"""A folder of images with boxes, or a JSON file beside one: the dataset and its table."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench import datasets
from workbench.boxes.formats import (
    Where,
    from_annotorious,
    from_coco,
    from_voc,
    from_yolo,
    read_json,
    yolo_classes,
)
from workbench.datasets import BadDataError


def load(
    path: Where, images: Where | None = None, **options: Any
) -> tuple[xr.Dataset, pd.DataFrame]:
    """Load images with their boxes: a VOC or YOLO folder, a COCO or Annotorious JSON file.

    Parameters
    ----------
    path
        A folder with ``Annotations/*.xml`` or ``labels/*.txt``, or a ``.json`` file.
    images
        The folder of the images; left out, it is looked for in the places that the format has.
    **options
        As :func:`workbench.datasets.load` takes them for a folder.

    Returns
    -------
    xarray.Dataset, pandas.DataFrame
        The image dataset, whose ``class`` names what boxes can be, and the table of boxes. VOC's
        ``ImageSets/Main`` become ``split``.

    Raises
    ------
    DataNotFoundError
        There is nothing at `path`, or no folder of images.
    BadDataError
        It is in none of the formats, or broken.

    Examples
    --------
    >>> ds, table = load("BCCD")  # doctest: +SKIP
    """
    root = Path(path).expanduser()
    if root.is_file():
        content, _ = read_json(root)
        is_coco = isinstance(content, dict)
        ds = _images(images, options, root.parent / "images", root.parent)
        table = (from_coco if is_coco else from_annotorious)(root, ds)
        names = [entry["name"] for entry in content["categories"]] if is_coco else []
        return _named(ds, table, names)
    if (root / "Annotations").is_dir():
        ds = _images(images, options, root / "JPEGImages", root / "images", root)
        ds, table = _named(ds, from_voc(root, ds), [])
        return _with_splits(ds, root / "ImageSets" / "Main"), table
    if (root / "labels").is_dir():
        ds = _images(images, options, root / "images", root)
        return _named(ds, from_yolo(root, ds), yolo_classes(root))
    if root.is_dir():
        raise BadDataError(f"{root} has neither Annotations/ as VOC has nor labels/ as YOLO has")
    raise datasets.DataNotFoundError(f"there is nothing at {root.absolute()}")


def _images(given: Where | None, options: dict[str, Any], *places: Path) -> xr.Dataset:
    place = given or next((place for place in places if place.is_dir()), places[-1])
    ds = datasets.load(place, **options)
    return ds.drop_vars(["label", "class"])


def _named(
    ds: xr.Dataset, table: pd.DataFrame, names: list[str]
) -> tuple[xr.Dataset, pd.DataFrame]:
    classes = [*names, *sorted(set(table["label"]) - set(names))]
    return ds.assign_coords({"class": np.array(classes, dtype=np.str_)}), table


def _with_splits(ds: xr.Dataset, folder: Path) -> xr.Dataset:
    splits = np.full(ds.sizes["sample"], "", dtype="<U5")
    stems = np.array([Path(str(name)).stem for name in ds["sample"].values])
    for name in ("train", "val", "test"):
        if (file := folder / f"{name}.txt").is_file():
            splits[np.isin(stems, file.read_text("utf-8").split())] = name
    return ds.assign(split=("sample", splits)) if (splits != "").any() else ds
