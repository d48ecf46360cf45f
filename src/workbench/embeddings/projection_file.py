"""Maps on disk: one ``.npz`` of plain arrays, read without pickle and checked before use."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from workbench.embeddings.layout import Layout
from workbench.embeddings.neighbors import checked_index

_VERSION = 1


def save(path: Path, xy: xr.DataArray, layout: Layout) -> Path:
    """Write a map and what places others on it."""
    entries: dict[str, Any] = {"xy": xy.values}
    if "sample" in xy.coords:
        ids = xy["sample"].values
        if ids.dtype.kind == "O" and all(isinstance(one, str) for one in ids):
            ids = ids.astype(str)
        if ids.dtype.kind not in "iufbUMm":
            raise ValueError(f"ids of type {ids.dtype} cannot be saved: numbers, dates, texts can")
        entries["sample"] = ids
    about = {"projection": _VERSION, "attrs": xy.attrs, "settings": layout.settings}
    entries["about"] = np.array(json.dumps(about))
    entries |= {f"layout/{name}": array for name, array in layout.arrays.items()}
    if path.exists() and not (
        zipfile.is_zipfile(path) and zipfile.Path(path, "about.npy").exists()
    ):
        raise FileExistsError(f"{path} is there and no saved map: remove it, or take another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **entries)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load(path: Path) -> tuple[xr.DataArray, Layout]:
    """Read them back; ValueError where the file is none of ours."""
    try:
        with np.load(path, allow_pickle=False) as file:
            entries = {name: file[name] for name in file.files}
        about = json.loads(str(entries["about"]))
        version, attrs, settings = about["projection"], about["attrs"], about["settings"]
        xy = entries["xy"].astype(np.float32)
        n, width = len(xy), int(settings["width"])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no map that Projection.save wrote: {error}") from error
    if version != _VERSION:
        raise ValueError(f"{path} has format {version}, this version reads {_VERSION}")
    arrays = {name[7:]: entries[name] for name in entries if name.startswith("layout/")}
    _check(path, n, width, arrays)
    coords = {"sample": entries["sample"]} if "sample" in entries else {}
    points = xr.DataArray(xy, dims=("sample", "axis"), coords=coords, attrs=attrs)
    points.name = attrs["method"]
    return points, Layout(xy, arrays, settings)


def _check(path: Path, n: int, width: int, arrays: dict[str, np.ndarray]) -> None:
    """Shapes that fit one another: compiled code does not look at them again."""
    rows = {"values": (n, width), "index": (n, None), "distance": (n, None), "labels": (n,)}
    for name, shape in rows.items():
        found = arrays[name].shape if name in arrays else shape
        if len(found) != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, found, strict=True)
        ):
            raise ValueError(f"{path} is damaged: {name} has shape {found}, {n} samples")
    if (index := arrays.get("index")) is not None:
        if index.shape != arrays["distance"].shape or index.dtype.kind != "i":
            raise ValueError(f"{path} is damaged: index and distance do not fit")
        checked_index(index)
