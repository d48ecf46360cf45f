"""Folder of images: ``class_name/**/file.jpg``, split or not, without classes, or with tables."""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from workbench.datasets import table
from workbench.datasets.errors import BadDataError, warn
from workbench.datasets.images import Item, formats, header_size
from workbench.datasets.listing import Listing, split_order

# The words that Hugging Face's imagefolder takes for a split, alone or beside a separator.
_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
_NOT_WORDS = re.compile(r"[-._ 0-9]+")
_JUNK = {"__macosx", "__pycache__", "@eadir", "lost+found", "$recycle.bin"}
_NOT_CLASSES = {"images", "image", "imgs", "img", "jpegimages", "data"}
_UNREAD = {".heic", ".heif", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"}
_SHOWN = 5
Entry = os.DirEntry[str]
Key = tuple[str, ...]


@dataclass(frozen=True)
class _Tree:
    """What lies below a folder: relative paths with slashes, in order."""

    images: list[str]
    others: list[str]
    folders: list[str]


def splits(folder: Path) -> tuple[str, ...]:
    """Return the splits that the folder's subfolders or tables stand for."""
    tree = _tree(folder.expanduser().absolute())
    if parts := _tables(folder, tree):
        return table.splits(parts)
    return split_order(_layout(tree)[1].values())


def listing(folder: Path) -> Listing:
    """List the images of a folder with their classes, without opening any of them.

    Raises
    ------
    BadDataError
        The folder holds no image.
    """
    root = folder.expanduser().absolute()
    tree = _tree(root)
    parts = _tables(root, tree)
    if parts:
        return _tabled(root, tree, parts)
    if not tree.images:
        raise BadDataError(
            f"{root} holds no image; it has {_shown(tree.others)}. "
            "Right would be class_name/file.jpg, or image files with no class."
        )
    depth, named = _layout(tree)
    inside = [path for path in tree.images if path.count("/") > depth - (not named)]
    if left := len(tree.images) - len(inside):
        beside = sorted(set(tree.images) - set(inside))
        warn(f"{left} images lie beside the folders of the data and are left out: {_shown(beside)}")
    keys = [tuple(path.split("/")) for path in inside]
    starts = _class_depths(keys, depth, named)
    tops = [key[at] if len(key) > at + 1 else None for key, at in zip(keys, starts, strict=True)]
    _warn_of_folders(tree, keys, depth + bool(named))
    _warn_of_formats(root, tree.others)
    names = {top for top in tops if top is not None}
    classes = sorted(names, key=int if all(map(str.isdecimal, names)) else str)
    numbers = {name: number for number, name in enumerate(classes)}
    loose = [path for path, top in zip(inside, tops, strict=True) if top is None]
    if loose and classes:
        warn(f"{len(loose)} images lie in no class folder and have label -1: {_shown(loose)}")
    full: list[Item] = [os.path.join(root, path) for path in inside]  # noqa: PTH118 - 100,000 times
    return Listing(
        items=full,
        names=[str(path) for path in full],
        sample=np.array([_text(path) for path in inside], dtype=np.str_),
        classes=classes,
        attrs={"name": root.name, "source": f"folder {root.name}", **_ignored(tree.others)},
        label=np.array([-1 if top is None else numbers[top] for top in tops], np.int64),
        split=np.array([named[key[depth]] for key in keys]) if named else None,
        path=np.asarray(full, dtype=np.str_),
        root=str(root),
    )


def _layout(tree: _Tree) -> tuple[int, dict[str, str]]:
    """How many folders wrap the data, and which split each folder below them is, if they are.

    A folder alone that holds folders only wraps them, as in an unpacked zip; so does one that is
    called images. A file beside it, a preview, does not change that; an empty folder does.
    """
    keys = [tuple(path.split("/")) for path in tree.images]
    depth = 0
    while True:
        below: dict[str, set[bool]] = {}
        beside = 0
        for key in keys:
            if len(key) > depth + 1:
                below.setdefault(key[depth], set()).add(len(key) > depth + 2)
            beside += len(key) == depth + 1
        if named := _named_splits(below):
            return depth, named
        alone = next(iter(below), "")
        siblings = sum(path.count("/") == depth for path in tree.folders)
        wraps = (below.get(alone) == {True} and siblings == 1) or alone.lower() in _NOT_CLASSES
        if len(below) != 1 or beside > 1 or not wraps:
            return depth, {}
        depth += 1


def split_of(name: str) -> str:
    """The split that a folder's or a file's name stands for, or ""."""
    words = _NOT_WORDS.split(name.lower().strip())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def _named_splits(tops: Sequence[str] | dict[str, set[bool]]) -> dict[str, str]:
    """Which split each folder is; empty where some are classes.

    All must be called after one. Beside both a train and another split in full, a folder of
    another name (``pred``) is a split of that name.
    """
    named = {top: split_of(top) for top in tops}
    whole = {_SPLITS[top.lower()] for top in tops if top.lower() in _SPLITS}
    if "train" in whole and len(whole) > 1:
        return {top: split or top for top, split in named.items()}
    plain = all(top.lower() in _SPLITS for top in tops)
    if all(named.values()) and (plain or len(set(named.values())) > 1):
        return named
    return {}


def _class_depths(keys: Sequence[Key], depth: int, named: dict[str, str]) -> list[int]:
    """At which depth each image's class is: below the split, and below its folder ``images``."""
    at = depth + bool(named)
    below: dict[Key, set[str]] = {}
    for key in keys:
        below.setdefault(key[:at], set()).add(key[at] if len(key) > at + 1 else "")
    plain = {top for top, names in below.items() if len(names) == 1 and _no_class(*names)}
    return [at + (key[:at] in plain) for key in keys]


def _no_class(name: str) -> bool:
    return name.lower() in _NOT_CLASSES


def _tables(root: Path, tree: _Tree) -> list[tuple[Path, str]]:
    """Hugging Face's metadata tables in a folder, or its Parquet files, with their splits."""
    near = [path for path in tree.others if path.count("/") < 2]
    found = [p for p in near if Path(p).name in ("metadata.csv", "metadata.jsonl")]
    if not found and not tree.images:
        found = [path for path in near if path.lower().endswith(".parquet")]
    parts = [(root / p, split_of(Path(p).name) or split_of(str(Path(p).parent))) for p in found]
    order = split_order(split for _, split in parts)
    return sorted(parts, key=lambda part: (order.index(part[1]) if part[1] else -1, part[0]))


def _tabled(root: Path, tree: _Tree, parts: list[tuple[Path, str]]) -> Listing:
    listed = table.listing(parts, table.ColumnChoice(), root.name)
    sample = listed.sample
    if tree.images:  # a metadata table names files of the folder: their paths are the ids
        if len(tree.images) > len(listed.items):
            left = len(tree.images) - len(listed.items)
            warn(f"{left} images of {root} are in no metadata table and are left out")
        own = [os.path.relpath(str(item), root) for item in listed.items]
        if sample.dtype.kind == "i" and len(set(own)) == len(own):
            sample = np.array([_text(path) for path in own], np.str_)
    others = [path for path in tree.others if (root / path) not in {path for path, _ in parts}]
    attrs = {**listed.attrs, "source": f"folder {root.name}", **_ignored(others)}
    return replace(listed, sample=sample, attrs=attrs, root=str(root))


def _tree(root: Path) -> _Tree:
    tree = _Tree([], [], [])
    cut = len(str(root).rstrip(os.sep)) + 1
    for entry in _walk(str(root), frozenset({os.path.realpath(root)})):
        path = entry.path[cut:].replace(os.sep, "/")
        if entry.is_dir():
            tree.folders.append(path)
        else:
            (tree.images if _is_image(entry) else tree.others).append(path)
    return _Tree(sorted(tree.images), sorted(tree.others), sorted(tree.folders))


def _walk(folder: str, above: frozenset[str]) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _JUNK:
                continue
            yield entry
            if not entry.is_dir():
                continue
            if not entry.is_symlink():
                yield from _walk(entry.path, above)
            else:  # a link, which may form a circle
                real = os.path.realpath(entry.path)
                here = os.path.realpath(folder)
                if real not in above and not f"{here}{os.sep}".startswith(f"{real}{os.sep}"):
                    yield from _walk(entry.path, above | {real})


def _is_image(entry: Entry) -> bool:
    return os.path.splitext(entry.name)[1].lower() in _extensions() and entry.is_file()  # noqa: PTH122


@functools.cache
def _extensions() -> frozenset[str]:
    from PIL import Image

    kinds = formats()
    return frozenset(s for s, kind in Image.registered_extensions().items() if kind in kinds)


def _warn_of_folders(tree: _Tree, keys: Sequence[Key], depth: int) -> None:
    """Warn of folders in the place of a class, or of a split, that hold no image at any depth."""
    seen = {key[:n] for key in keys for n in range(1, depth + 2)}
    folders = [tuple(path.split("/")) for path in tree.folders]
    empty = [key for key in folders if len(key) <= depth + 1 and key not in seen]
    if empty:
        boxes = {"labels", "annotations"} & {key[-1].lower() for key in empty}
        hint = ". workbench.boxes.load(path) reads images with their boxes" * bool(boxes)
        shown = _shown(["/".join(key) for key in empty])
        warn(f"folders without an image, which make no class: {shown}{hint}")


def _warn_of_formats(root: Path, others: Sequence[str]) -> None:
    """Warn of images that are not read: of formats unknown here, or without the suffix of one."""
    kinds: dict[str, list[str]] = {}
    for path in others:
        kinds.setdefault(_kind(path), []).append(path)
    unread = {
        kind: paths
        for kind, paths in kinds.items()
        if kind in _UNREAD or header_size(root / paths[0]) is not None
    }
    if unread:
        counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in sorted(unread.items()))
        warn(
            f"images that are not read, for their format or their suffix: {counts}. Converted to "
            "JPEG or PNG, or renamed, they are"
        )


def _kind(path: str) -> str:
    return os.path.splitext(path)[1].lower() or "without a suffix"  # noqa: PTH122


def _ignored(others: Sequence[str]) -> dict[str, int | list[str]]:
    kinds = Counter(map(_kind, others)).most_common()
    by_kind = {"ignored_kinds": [f"{count} {kind}" for kind, count in kinds]} if kinds else {}
    return {"ignored_files": len(others), **by_kind}


def _text(path: str) -> str:
    """A path that can be written anywhere, its bytes that are not UTF-8 as hexadecimal numbers."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "no files") + more
