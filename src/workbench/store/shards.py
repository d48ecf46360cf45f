"""Write an image dataset as tar shards of encoded images, with their annotations side by side."""

import hashlib
import io
import json
import os
import tarfile
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image
from tqdm import tqdm

from workbench._extras import need
from workbench._machine import processors
from workbench._samples import classes_of
from workbench.datasets.boxes import as_table
from workbench.datasets.errors import BadImageError, SkippedWarning
from workbench.datasets.images import content
from workbench.datasets.loading import load
from workbench.datasets.shards import BOXES, INDEX, JOURNAL, PLACE, plain, read_index

#: What the store says of an image itself, whatever the dataset has by that name.
_OWN = ("path", "boxes", "height", "width", *PLACE)
#: Suffixes that other tools know; Pillow's name of any other format, in small letters.
_SUFFIXES = {"JPEG": "jpg", "TIFF": "tif", "MPO": "jpg"}


def write(
    ds: xr.Dataset,
    path: str | os.PathLike[str],
    boxes: pd.DataFrame | None = None,
    *,
    encoding: Literal["png", "jpeg"] = "png",
    quality: int = 95,
    shard_images: int = 1000,
    threads: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the images of a dataset, encoded, into plain tar files with an index.

    In each shard, ``shard-00000.tar``, image ``00000000.jpg`` is followed by its annotation
    ``00000000.json``, as WebDataset lays them out; any tar program reads them. ``index.parquet``
    has a row for each image: ``sample``, ``shard``, ``offset``, ``size``, ``sha256``, ``height``,
    ``width``, ``label`` (the class's name) and what else the dataset says of a sample, so that one
    image is read without its shard. ``boxes.parquet`` has all boxes. A shard appears under its
    name when it is complete, the index last; the same call after a kill goes on with the first
    shard that is missing and ends in the same bytes.

    Parameters
    ----------
    ds
        An image dataset. Where it has ``path``, the files' own bytes are stored, at full size and
        as they were encoded; else ``image``.
    path
        The store's folder. It may hold an unfinished store of the same data, or the finished one,
        which is then left as it is.
    boxes
        One annotation a row, as :func:`workbench.boxes.as_table` takes them.
    encoding, quality
        What is made of images that have no file: ``"png"`` keeps every bit, ``"jpeg"`` of a
        quality does not.
    shard_images
        Images a shard.
    threads
        That read and encode; by default one a core.
    progress
        Show a bar.

    Returns
    -------
    pathlib.Path
        The store's folder.

    Raises
    ------
    BadImageError
        A file is missing or no image, or pixels cannot be kept in the encoding.
    BadDataError
        Boxes of a sample that the dataset does not hold, or without their columns.
    FileExistsError
        The folder holds a store of other data, or something else.
    BlockingIOError
        Another process is writing this store.

    Examples
    --------
    >>> import tempfile
    >>> from workbench import datasets
    >>> folder = write(datasets.load("digits", n=20), tempfile.mkdtemp() + "/digits")
    >>> sorted(file.name for file in folder.iterdir())
    ['boxes.parquet', 'index.parquet', 'shard-00000.tar']
    """
    folder = Path(path)
    if encoding not in ("png", "jpeg"):
        raise ValueError(f'encoding={encoding!r} is neither "png" nor "jpeg"')
    if shard_images < 1 or not 1 <= quality <= 100:
        raise ValueError(f"{shard_images=} must be 1 or more, {quality=} from 1 to 100")
    table = as_table(() if boxes is None else boxes, ds)
    notes = _annotations(ds, table)
    options = [encoding, quality, shard_images]
    about = {
        "version": 1,
        "classes": classes_of(ds),
        "mode": "L" if ds.sizes["channel"] == 1 else "RGB",
        "attrs": plain(ds.attrs),
        "fingerprint": _fingerprint(ds, notes, options),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder):
        if _begun(folder, about["fingerprint"]):
            return folder
        rows: list[dict[str, Any]] = []
        with (
            ThreadPoolExecutor(threads or processors()) as pool,
            tqdm(total=len(notes), desc="store", unit="image", disable=not progress) as bar,
        ):
            for number, start in enumerate(range(0, len(notes), shard_images)):
                shard = folder / f"shard-{number:05d}.tar"
                part = notes[start : start + shard_images]
                chosen = range(start, start + len(part))
                if not shard.exists():
                    images = pool.map(lambda i: _encoded(ds, i, encoding, quality), chosen)
                    _write_shard(shard, zip(chosen, images, part, strict=True))
                rows += _read_shard(shard)
                bar.update(len(part))
        _finish(folder, rows, table, about)
    return folder


def open(path: str | os.PathLike[str], **options: Any) -> xr.Dataset:  # noqa: A001
    """A store as a lazy image dataset: only the index is read, images as they are asked for.

    Parameters
    ----------
    path
        The store's folder.
    options
        As :func:`workbench.datasets.load` takes them, which opens a store as well: ``size``,
        ``fit``, ``mode``, ``n``.
    """
    return load(path, **{"lazy": True, **options})


def verify(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read every image of a store and compare it with its checksum.

    Returns
    -------
    pandas.DataFrame
        The rows of the index, ``sample`` and ``shard``, whose bytes are others; none is good news.
    """
    table, _ = read_index(Path(path))
    bad = np.zeros(len(table), np.bool_)
    for name, rows in table.groupby("shard").indices.items():
        with (Path(path) / str(name)).open("rb") as file:
            for row in rows:
                file.seek(table["offset"][row])
                found = file.read(table["size"][row])
                bad[row] = hashlib.sha256(found).hexdigest() != table["sha256"][row]
    wrong: pd.DataFrame = table.loc[bad, ["sample", "shard"]]
    return wrong


def _annotations(ds: xr.Dataset, boxes: pd.DataFrame) -> list[dict[str, Any]]:
    """What each sample's JSON file says, in the dataset's order."""
    names = ds["class"].values if "class" in ds.coords else np.empty(0, np.str_)
    kept = [v for v in map(str, ds.variables) if ds[v].dims == ("sample",) and v not in _OWN]
    left = set(map(str, ds.variables)) - {*kept, *_OWN, "image", "labels", "class", "sample"}
    if left:
        text = f"not stored, as it is no number or text a sample: {', '.join(sorted(left))}"
        warnings.warn(text, SkippedWarning, stacklevel=3)
    columns: dict[str, list[Any]] = {"sample": plain(ds["sample"].values)}
    for name in kept:
        values = ds[name].values
        columns[name] = plain(values.astype(str) if values.dtype.kind in "mM" else values)
    if "label" in columns:
        columns["label"] = [str(names[k]) if k >= 0 else None for k in columns["label"]]
    if "labels" in ds:
        member = ds["labels"].transpose("sample", "class").values
        columns["labels"] = [[str(name) for name in names[row]] for row in member]
    found = boxes.groupby("sample", sort=False).indices
    records = [plain(record) for record in boxes.drop(columns="sample").to_dict("records")]
    notes = []
    for i, sample in enumerate(ds["sample"].values):
        note = {name: values[i] for name, values in columns.items()}
        note["boxes"] = [records[row] for row in found.get(sample, ())]
        notes.append(note)
    return notes


def _fingerprint(ds: xr.Dataset, notes: list[dict[str, Any]], options: list[Any]) -> str:
    """One number for all that decides the store's bytes, as far as can be told without reading."""
    sha = hashlib.sha256(json.dumps([notes, options]).encode())
    if "path" in ds:
        for item in ds["path"].values:
            file = Path(str(item).partition("#offset=")[0])
            state = file.stat() if file.is_file() else None
            sha.update(f"{item}\0{state and (state.st_size, state.st_mtime_ns)}".encode())
    elif isinstance(ds["image"].data, np.ndarray):
        sha.update(np.ascontiguousarray(ds["image"].data).data)
    else:
        sha.update(f"{ds['image'].data.name} {ds.attrs.get('sha256')}".encode())
    return sha.hexdigest()


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder against other writers; the kernel gives it back when the process dies."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BlockingIOError(f"another process is writing the store {folder}") from error
    finally:
        os.close(handle)


def _begun(folder: Path, fingerprint: str) -> bool:
    """Begin or go on; whether nothing is left to do. Refuse a folder of anything else."""
    journal = folder / JOURNAL
    other = f"{folder} holds {{}}; choose another folder, or delete it"
    if (folder / INDEX).is_file():
        if read_index(folder)[1]["fingerprint"] != fingerprint:
            raise FileExistsError(other.format("a store of other data, boxes or options"))
        journal.unlink(missing_ok=True)
        return True
    if journal.is_file():
        if journal.read_text() != fingerprint:
            raise FileExistsError(other.format("an unfinished store of other data or options"))
    elif strange := [file.name for file in folder.iterdir() if not file.name.endswith(".part")]:
        raise FileExistsError(other.format(f"something else ({strange[0]})"))
    for leftover in folder.glob("*.part"):
        leftover.unlink()
    _replace(journal, fingerprint.encode())
    return False


def _encoded(ds: xr.Dataset, i: int, encoding: str, quality: int) -> bytes:
    """The bytes of one image, as its file has them or as its pixels are encoded."""
    name = str(ds["sample"].values[i])
    if "path" in ds:
        return content(str(ds["path"].values[i]), name)
    pixels = np.asarray(ds["image"].isel(sample=i).transpose("y", "x", "channel").values)
    try:
        if pixels.dtype != np.uint8 and (pixels.dtype != np.uint16 or encoding == "jpeg"):
            raise TypeError(f"{encoding} keeps no {pixels.dtype}")
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        buffer = io.BytesIO()
        options: dict[str, Any] = {"quality": quality} if encoding == "jpeg" else {}
        image.save(buffer, encoding, **options)
    except (TypeError, OSError) as error:
        raise BadImageError(
            name, f"{pixels.dtype} pixels of shape {pixels.shape}: {error}"
        ) from error
    return buffer.getvalue()


def _write_shard(shard: Path, members: Any) -> None:
    """Write a tar file that is the same for the same members, and appears when it is whole."""
    part = shard.with_name(f"{shard.name}.part")
    with part.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number, image, note in members:
                suffix, height, width = _described(image, str(note["sample"]))
                text = json.dumps({**note, "height": height, "width": width}, ensure_ascii=False)
                for kind, data in ((suffix, image), ("json", text.encode())):
                    info = tarfile.TarInfo(f"{number:08d}.{kind}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())
    part.replace(shard)


def _described(image: bytes, where: str) -> tuple[str, int, int]:
    """Suffix, height and width, upright, of an encoded image."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            kind, (width, height) = str(opened.format), opened.size
            turned = opened.getexif().get(0x0112, 1) >= 5
    except Exception as error:  # Pillow's many formats raise errors of many kinds
        raise BadImageError(where, f"no image that Pillow reads ({error})") from error
    suffix = _SUFFIXES.get(kind, kind.lower())
    return (suffix, width, height) if turned else (suffix, height, width)


def _read_shard(shard: Path) -> list[dict[str, Any]]:
    """Rows of the index, from what is on the disk."""
    rows = []
    with tarfile.open(shard, "r:") as tar:
        members = iter(tar)
        for image, note in zip(members, members, strict=True):
            data = tar.extractfile(image)
            text = tar.extractfile(note)
            assert data is not None and text is not None  # noqa: S101, PT018 - both are files
            row = json.loads(text.read())
            del row["boxes"]
            sha = hashlib.sha256(data.read()).hexdigest()
            place = {"shard": shard.name, "offset": image.offset_data, "size": image.size}
            rows.append({**row, **place, "sha256": sha})
    return rows


def _finish(
    folder: Path, rows: list[dict[str, Any]], boxes: pd.DataFrame, about: Mapping[str, Any]
) -> None:
    """Write the table of boxes and then the index, with which the store is there."""
    arrow, parquet = need("pyarrow", extra="images"), need("pyarrow.parquet", extra="images")
    lists = [None if own is None else own.tolist() for own in boxes["points"]]
    boxes = boxes.assign(points=pd.Series(lists, boxes.index, dtype=object))
    tables = {BOXES: arrow.Table.from_pandas(boxes, preserve_index=False)}
    index = arrow.Table.from_pylist(rows)
    tables[INDEX] = index.replace_schema_metadata({b"workbench": json.dumps(about)})
    for name, table in tables.items():
        buffer = io.BytesIO()
        parquet.write_table(table, buffer)
        _replace(folder / name, buffer.getvalue())
    (folder / JOURNAL).unlink()


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
