"""Corrected labels as files: a table, a folder with one subfolder a class, or Hugging Face's."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from workbench._extras import need
from workbench._images import picture
from workbench.datasets.images import content, decode, header_size, is_part
from workbench.labels.decisions import Where, apply_decisions

Layout = Literal["classes", "huggingface"]


def export(
    ds: xr.Dataset,
    store: Where,
    path: str | os.PathLike[str],
    *,
    layout: Layout = "classes",
    progress: bool = True,
) -> Path:
    """Write what the review came to, so that ``datasets.load`` reads it back.

    Images that were excluded are left out.

    Parameters
    ----------
    ds
        The dataset that was reviewed.
    store
        The file of decisions.
    path
        ``.csv`` or ``.parquet``: a table with one row a sample: ``sample``, ``label`` and
        ``label_given`` by name (empty for none), ``review``, and ``split`` and ``path`` where the
        dataset has them; where images have several labels, one 0/1 column a class. A Parquet table
        of images without files holds the images. Without a suffix: a folder.
    layout
        Of a folder. ``"classes"``: ``class/file``, below ``split/`` where there are several;
        images without a class lie beside the class folders. ``"huggingface"``: the files as they
        were below ``split/``, with a ``metadata.csv`` that names their labels.
    progress
        Show a bar.

    Returns
    -------
    pathlib.Path
        What was written; it is there as a whole or not at all.

    Notes
    -----
    Files are copied under their own names and subfolders; where two would come to lie on one
    another, the second gets a number. A file that is no image, or lies outside the folder that
    the dataset was read from, is never copied: what is written then are its pixels.

    Raises
    ------
    FileExistsError
        Something is there already.
    ValueError
        The suffix is not known; a class or a split cannot be the name of a folder; or images of
        several labels shall go into a folder of classes.
    StoreError
        The store cannot be used, or is of another dataset.
    """
    target = Path(path).expanduser()
    suffix = target.suffix.lower()
    if suffix not in ("", ".csv", ".parquet"):
        raise ValueError(
            f"{target.name!r} ends in {target.suffix!r}; .csv and .parquet make a table, no suffix "
            "makes a folder"
        )
    if layout not in ("classes", "huggingface"):
        raise ValueError(f"layout={layout!r} is neither 'classes' nor 'huggingface'")
    if os.path.lexists(target):
        raise FileExistsError(f"{target} is there already; choose another name or remove it")
    fixed = apply_decisions(ds, store)
    fixed = fixed.isel(sample=(fixed["review"] != "excluded").values)
    # A folder of its own beside the target: nobody else's name, and a rename moves all at once.
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        part = scratch / target.name
        if suffix:
            _write_table(fixed, part, suffix)
        else:
            _write_folder(fixed, part, layout, progress)
        part.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _write_table(fixed: xr.Dataset, path: Path, suffix: str) -> None:
    columns: dict[str, Any] = {"sample": fixed["sample"].values, **_label_columns(fixed)}
    columns |= {key: fixed[key].values for key in ("review", "split", "path") if key in fixed}
    if "path" not in fixed and suffix == ".parquet":
        encode = _encoder()
        columns["image"] = [{"bytes": encode(i), "path": None} for i in fixed["image"].values]
    table = pd.DataFrame(columns)
    if suffix == ".csv":
        # Names of files that are no UTF-8 come back as they were.
        table.to_csv(path, index=False, encoding="utf-8", errors="surrogateescape")
    else:
        need("pyarrow", extra="labels")
        table.to_parquet(path, index=False)


def _label_columns(fixed: xr.Dataset) -> dict[str, Any]:
    names = [str(name) for name in fixed["class"].values]
    if "labels" in fixed:
        flags = fixed["labels"].transpose("sample", "class").values.astype(np.int64)
        return dict(zip(names, flags.T, strict=True))
    texts = np.array([*names, ""], dtype=object)
    return {key: texts[fixed[key].values] for key in ("label", "label_given")}


def _write_folder(fixed: xr.Dataset, folder: Path, layout: Layout, progress: bool) -> None:
    if layout == "classes" and "labels" in fixed:
        raise ValueError(
            "images of several labels have no one folder: write a .csv or .parquet table, or "
            "layout='huggingface'"
        )
    names = [_component(name, "class") for name in fixed["class"].values] + [""]
    splits = fixed["split"].values.tolist() if "split" in fixed else []
    several = len(set(splits)) > 1
    for split in set(splits) if several else ():
        _component(split, "split")
    folder.mkdir()
    for name in names[:-1] if layout == "classes" and not several else ():
        (folder / name).mkdir()  # of a class without an image too: a folder alone may be a wrapper
    taken: set[str] = set()
    written = []
    encode = _encoder()
    for i in tqdm(range(fixed.sizes["sample"]), desc="export", disable=not progress):
        one = fixed.isel(sample=i)
        file, content = _file(one, encode)
        place = Path(str(one["split"].values) if several else "")
        if layout == "classes":
            inside = file.parts[-1:] if len(file.parts) < 2 else _below_class(file, names, splits)
            place /= names[int(one["label"].values)]
            file = Path(*inside)
        place = _free(place / file, taken)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy2(content, folder / place)
        else:
            (folder / place).write_bytes(content)
        written.append(place.as_posix())
    if layout == "huggingface":
        columns = {"file_name": written, **_label_columns(fixed)}
        columns |= {"review": fixed["review"].values, "sample": fixed["sample"].values}
        if several:
            columns["split"] = splits
        path = folder / "metadata.csv"
        pd.DataFrame(columns).to_csv(path, index=False, errors="surrogateescape")


def _file(one: xr.Dataset, encode: Callable[[Any], bytes]) -> tuple[Path, Path | bytes]:
    """Where a sample's file would lie, and the file itself or what to write in its place."""
    name = str(one["sample"].values)
    parts = [part for part in name.replace(os.sep, "/").split("/") if part not in ("", ".", "..")]
    own = Path(*parts) if parts else Path("unnamed")
    cell = str(one["path"].values) if "path" in one else ""
    if is_part(cell):
        kept = Path(str(one["file_name"].values)).name if "file_name" in one else ""
        encoded = content(cell, cell)
        suffix = ".jpg" if encoded.startswith(b"\xff\xd8") else ".png"
        return own.with_name(kept or own.name.removesuffix(suffix) + suffix), encoded
    source = Path(str(one["path"].values)) if "path" in one and str(one["path"].values) else None
    if source is None:
        return own.with_name(f"{own.name.removesuffix('.png')}.png"), encode(one["image"].values)
    own = own.with_name(own.name.removesuffix(source.suffix) + source.suffix)
    root = one["path"].attrs.get("root", "")
    inside = not root or source.resolve().is_relative_to(Path(root).resolve())
    if inside and source.is_file() and header_size(str(source)) is not None:
        return own, source
    pixels = one["image"].values
    if source.is_file() and header_size(str(source)) is not None:
        pixels = decode(source.read_bytes(), str(source))
    return own.with_suffix(".png"), encode(pixels)


def _below_class(file: Path, names: list[str], splits: list[str]) -> tuple[str, ...]:
    """The file's path without the split and the class that it lay in before."""
    parts = file.parts
    if parts[0] in splits and len(parts) > 1:
        parts = parts[1:]
    return parts[1:] if len(parts) > 1 and parts[0] in names else parts


def _free(place: Path, taken: set[str]) -> Path:
    """The place, with a number where something lies there already in any case of its letters."""
    found = place
    number = 1
    while found.as_posix().casefold() in taken:
        number += 1
        found = place.with_name(f"{place.stem}_{number}{place.suffix}")
    taken.add(found.as_posix().casefold())
    return found


def _component(name: Any, what: str) -> str:
    """A class or a split as one component of a path."""
    text = str(name)
    if text != Path(text).name or text.startswith(".") or "\\" in text or "\0" in text:
        raise ValueError(f"the {what} {text!r} cannot be the name of a folder")
    return text


def _encoder() -> Callable[[Any], bytes]:
    """What makes PNGs: of one channel grey, else RGB."""
    from io import BytesIO

    image_of = need("PIL.Image", extra="labels").fromarray

    def encode(pixels: Any) -> bytes:
        buffer = BytesIO()
        grey = pixels.shape[-1] == 1 and pixels.dtype == np.uint8
        image_of(pixels[..., 0] if grey else picture(pixels)).save(buffer, "PNG")
        return buffer.getvalue()

    return encode
