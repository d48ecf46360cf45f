"""A folder of images: ``class_name/**/file.jpg``, split or not, or without classes."""

import functools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from workbench.datasets.errors import BadDataError, SkippedWarning
from workbench.datasets.images import Item
from workbench.datasets.listing import Listing

SPLITS = {
    "train": "train",
    "test": "test",
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
_SHOWN = 5
# Pillow knows these by name and cannot decode them.
_NOT_READ = {"BUFR", "GRIB", "HDF5", "MPEG", "PALM", "PDF"}
Entry = os.DirEntry[str]


def splits(folder: Path) -> tuple[str, ...]:
    """Return the splits that the folder's top level is divided into, if it is."""
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if _counts(entry)]
    names = {entry.name for entry in seen if entry.is_dir()}
    if not names & {"train", "test"} or not names <= set(SPLITS):
        return ()
    if any(_is_image(entry) for entry in seen):
        return ()
    there = {SPLITS[name] for name in names}
    return tuple(name for name in ("train", "val", "test") if name in there)


def listing(folder: Path) -> Listing:
    """List the images of a folder with their classes, without opening any of them.

    Raises
    ------
    BadDataError
        The folder, or the folder of a class, holds no image.
    """
    root = folder.expanduser().absolute()
    files, others = _files(root)
    if not files:
        raise BadDataError(
            f"{root} holds no image; it has {_shown(others)}. "
            "Right would be class_name/file.jpg, or image files with no class."
        )
    depth = 1 if splits(root) else 0
    keys = [path.split("/") for path in files]
    tops = [key[depth] if len(key) > depth + 1 else None for key in keys]
    _check_classes(root, depth, {tuple(key[: depth + 1]) for key in keys})
    names = {top for top in tops if top is not None}
    classes = sorted(names, key=int if all(map(str.isdecimal, names)) else str)
    numbers = {name: number for number, name in enumerate(classes)}
    loose = [path for path, top in zip(files, tops, strict=True) if top is None]
    if loose and classes:
        text = f"{len(loose)} images lie in no class folder and have label -1: {_shown(loose)}"
        warnings.warn(text, SkippedWarning, stacklevel=3)
    full: list[Item] = [os.path.join(root, path) for path in files]  # noqa: PTH118 - 100,000 times
    return Listing(
        items=full,
        names=[str(path) for path in full],
        sample=np.asarray(files, dtype=np.str_),
        classes=classes,
        attrs={"name": root.name, "source": f"folder {root.name}", "ignored_files": len(others)},
        label=np.array([-1 if top is None else numbers[top] for top in tops], np.int64),
        split=np.array([SPLITS[key[0]] for key in keys]) if depth else None,
        path=np.asarray(full, dtype=np.str_),
    )


def _files(root: Path) -> tuple[list[str], list[str]]:
    """Return the relative paths of the images in order, and those of other files."""
    images: list[str] = []
    others: list[str] = []
    cut = len(str(root).rstrip(os.sep)) + 1
    for entry in _walk(str(root), frozenset({os.path.realpath(root)})):
        path = entry.path[cut:].replace(os.sep, "/")
        (images if _is_image(entry) else others).append(path)
    return sorted(images), sorted(others)


def _walk(folder: str, above: frozenset[str]) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _counts(entry):
                continue
            if not entry.is_dir():
                yield entry
            elif not entry.is_symlink():
                yield from _walk(entry.path, above)
            else:  # a link, which may form a circle
                real = os.path.realpath(entry.path)
                here = os.path.realpath(folder)
                if real not in above and not f"{here}{os.sep}".startswith(f"{real}{os.sep}"):
                    yield from _walk(entry.path, above | {real})


def _counts(entry: Entry) -> bool:
    return not entry.name.startswith(".") and entry.name != "__MACOSX"


def _is_image(entry: Entry) -> bool:
    return os.path.splitext(entry.name)[1].lower() in _extensions() and entry.is_file()  # noqa: PTH122


@functools.cache
def _extensions() -> frozenset[str]:
    from PIL import Image

    registered = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in registered if kind not in _NOT_READ)


def _check_classes(root: Path, depth: int, seen: set[tuple[str, ...]]) -> None:
    """Raise where a class folder, or a split, holds no image at any depth."""
    parents = [(entry.name,) for entry in _folders(root)] if depth else [()]
    wanted = [(*top, entry.name) for top in parents for entry in _folders(root.joinpath(*top))]
    empty = ["/".join(key) for key in wanted if key not in seen]
    empty += ["/".join(top) for top in parents if top and not any(key[:1] == top for key in seen)]
    if empty:
        raise BadDataError(
            f"{root} has folders with no image in them: {_shown(sorted(empty))}. "
            "Remove them, or put their images in. Where they hold boxes on the images, "
            "workbench.boxes.load(path) reads both."
        )


def _folders(folder: Path) -> list[Entry]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if _counts(entry) and entry.is_dir()]


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "no files") + more
