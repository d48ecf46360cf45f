"""Chips as `workbench.rasters` writes them, read back as an image dataset."""

import io
import json
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._extras import need

#: Says whose chips a folder holds; the rows of the table, and what became of each.
PLAN = "plan.json"
MANIFEST = "manifest.parquet"
#: Above so many bytes a Zarr store stays on disk.
_LARGE = 512 * 2**20
_NOT_COLUMNS = {"sample", "stored", "position", "path", "error", "block_row", "block_column"}
Chip = tuple[dict[str, Any], NDArray[Any] | None, dict[str, NDArray[np.bool_]]]


def holds_chips(path: Path) -> bool:
    """Whether `workbench.rasters` wrote this folder or tar file."""
    return (path / PLAN).is_file() or path.suffix == ".tar"


def load_chips(path: Path, lazy: bool | None) -> xr.Dataset:
    """The chips with all that is known of them, in the order of their table.

    A Zarr store that is `lazy`, or by default large, is a dask array in the order on disk.
    """
    folder = path.with_name(f"{path.name}.parts") if path.is_file() else path
    about = json.loads((folder / PLAN).read_text()) if (folder / PLAN).is_file() else {}
    if about and not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} is not written to its end: the same plan.write(...) goes on")
    if about.get("format") == "zarr":
        need("zarr", extra="rasters")
        ds = xr.open_zarr(path)
        stays = ds["image"].nbytes > _LARGE if lazy is None else lazy
        return ds if stays else ds.load().sortby("position")  # type: ignore[no-any-return]
    if path.is_file() or about["format"] == "webdataset":
        tars = [path] if path.is_file() else sorted(path.glob("*.tar"))
        chips = sorted((chip for tar in tars for chip in _tarred(tar)), key=_position)
    else:
        chips = list(_files(path, about))
    return _together(chips, about)


def _position(chip: Chip) -> int:
    return int(chip[0].get("position", 0))


def _tarred(path: Path) -> Iterator[Chip]:
    """The samples of a tar file: members of one name to its first dot, one after another."""
    codecs = need("imagecodecs", extra="rasters")
    files: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        for member, after in zip(members, [*members[1:], None], strict=True):
            key, _, kind = member.name.partition(".")
            files[kind] = tar.extractfile(member).read()  # type: ignore[union-attr]
            if after is not None and after.name.partition(".")[0] == key:
                continue
            if "json" not in files:
                raise ValueError(f"{path}: {key} has no .json: not written by workbench.rasters")
            image = codecs.png_decode(files["png"]) if "png" in files else _from_npy(files["npy"])
            masks = {"valid": _from_npy(files["valid.npy"])} if "valid.npy" in files else {}
            yield json.loads(files["json"]), image.reshape(*image.shape[:2], -1), masks
            files = {}


def _from_npy(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _files(folder: Path, about: dict[str, Any]) -> Iterator[Chip]:
    """The files that the manifest lists; of a region that could not be read there is none."""
    rasterio = need("rasterio", extra="rasters")
    height, width = about["raster_size"]
    driver = "PNG" if about["format"] == "png" else "GTiff"
    table: Any = pd.read_parquet(folder / MANIFEST)
    for facts in table.to_dict("records"):
        if not facts["path"]:
            yield facts, None, {}
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            file = (folder / facts["path"]).resolve()
            if not file.is_relative_to(folder.resolve()):
                raise ValueError(f"{folder / MANIFEST}: {facts['path']!r} lies outside the folder")
            with rasterio.open(file, driver=driver) as source:
                image = source.read().transpose(1, 2, 0)
                tiff = about["format"] == "geotiff"
                masks = {"mask": source.dataset_mask() > 0} if tiff else {}
        # rows and columns of a chip, also of one that was resampled, that lie in the raster
        rows, columns = (
            np.floor(facts[start] + (np.arange(n) + 0.5) * facts[length] / n)
            for start, length, n in (
                ("row", "height", image.shape[0]),
                ("col", "width", image.shape[1]),
            )
        )
        down, across = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        yield facts, image, masks | {"valid": down[:, None] & across[None, :]}


def _together(chips: list[Chip], about: dict[str, Any]) -> xr.Dataset:
    """Chips padded, on the right and below, to the largest, as one dataset."""
    images = [image for _, image, _ in chips if image is not None]
    if not images:
        raise ValueError("none of the chips could be read when they were written")
    attrs = about.get("attributes", {})
    shape = (len(chips), *np.max([image.shape[:2] for image in images], axis=0))
    fill = attrs.get("fill", 0)
    pixels = np.empty((*shape, images[0].shape[2]), images[0].dtype)
    pixels[...] = fill
    names = sorted({name for _, _, masks in chips for name in masks} | {"valid"})
    marks = {name: np.zeros(shape, np.bool_) for name in names}
    for i, (_, image, masks) in enumerate(chips):
        if image is not None:
            own = i, slice(image.shape[0]), slice(image.shape[1])
            pixels[own] = image
            for name, mark in marks.items():
                mark[own] = masks.get(name, True)
    table = pd.DataFrame([facts for facts, _, _ in chips])
    data: dict[str, Any] = {"image": (("sample", "y", "x", "channel"), pixels)}
    data |= {name: (("sample", "y", "x"), mark) for name, mark in marks.items()}
    place = np.array(table.pop("geotransform").tolist(), np.float64)
    data["geotransform"] = ("sample", "coefficient"), place
    coords: dict[str, Any] = {"sample": _plain(table["sample"])}
    if channels := about.get("channels"):
        coords["channel"] = channels
    if "label" in table:
        given = table.pop("label").astype(object)
        classes = about.get("classes") or sorted({str(v) for v in given if not pd.isna(v)})
        numbers = {name: number for number, name in enumerate(classes)}
        data["label"] = "sample", np.array([numbers.get(str(v), -1) for v in given], np.int64)
        coords["class"] = np.array(classes, np.str_)
    failed = [facts["sample"] for facts, image, _ in chips if image is None]
    for name in table.columns.difference([*_NOT_COLUMNS], sort=False):
        data[name] = "sample", _plain(table[name])
    return xr.Dataset(data, coords, attrs | ({"failed": failed} if failed else {}))


def _plain(column: "pd.Series[Any]") -> NDArray[Any]:
    values = column.to_numpy()
    return values if values.dtype.kind in "biufcmM" else column.fillna("").to_numpy(np.str_)
