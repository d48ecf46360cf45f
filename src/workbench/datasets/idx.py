"""MNIST and Fashion-MNIST: the IDX format of four official files."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workbench.datasets.errors import BadDataError
from workbench.datasets.form import Part

_PREFIX = {"train": "train", "test": "t10k"}


def inventory(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Return the split's files that are in the folder, compressed or not, and those missing."""
    stems = (f"{_PREFIX[split]}-images-idx3-ubyte", f"{_PREFIX[split]}-labels-idx1-ubyte")
    found, missing = [], []
    for stem in stems:
        there = [name for name in (f"{stem}.gz", stem) if (folder / name).is_file()]
        (found.append(there[0]) if there else missing.append(f"{stem}.gz"))
    return found, missing


def read(folder: Path, split: str) -> Part:
    """Read one split; raise ``BadDataError`` where the files contradict each other."""
    images_file, labels_file = (folder / name for name in inventory(folder, split)[0])
    images, images_sha = read_idx(images_file, dims=3)
    label, labels_sha = read_idx(labels_file, dims=1)
    if len(images) != len(label):
        raise BadDataError(
            f"{images_file} has {len(images)} images and {labels_file} has {len(label)} labels; "
            "the counts must be equal. Are the two files from the same split?"
        )
    if label.size and label.max() > 9:
        row = int(label.argmax())
        raise BadDataError(f"{labels_file}: label {label[row]} of image {row} is not in 0 to 9")
    return Part(
        split=split,
        label=label.astype(np.int64),
        images=lambda rows: images[rows, :, :, np.newaxis],
        sha256=hashlib.sha256((images_sha + labels_sha).encode()).hexdigest(),
    )


def read_idx(path: Path, dims: int) -> tuple[NDArray[np.uint8], str]:
    """Return the unsigned bytes of an IDX file with so many dimensions, and their SHA-256."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadDataError(f"{path} is not a whole gzip file: {error}") from error
    header = 4 + 4 * dims
    magic = bytes((0, 0, 8, dims))
    if content[:4] != magic or len(content) < header:
        raise BadDataError(
            f"{path} begins with {content[:4].hex() or 'nothing'}; an IDX file of bytes in "
            f"{dims} dimension{'s'[: dims > 1]} begins with {magic.hex()} and the sizes"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dims, offset=4))
    if len(content) - header != math.prod(shape):
        raise BadDataError(
            f"{path} announces {' x '.join(map(str, shape))} bytes and holds "
            f"{len(content) - header}, not {math.prod(shape)}: it is cut off or not the right file"
        )
    data = np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    return data, hashlib.sha256(content).hexdigest()
