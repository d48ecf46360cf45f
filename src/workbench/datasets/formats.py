"""File formats of named datasets: CIFAR-10's batches and Parquet, MNIST's IDX."""

import functools
import gzip
import hashlib
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need
from workbench.datasets.dataset import SplitImages
from workbench.datasets.errors import BadDataError, BadImageError
from workbench.datasets.images import Pictures
from workbench.datasets.sources import check

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
# Bytes: four times Fashion-MNIST and more; what announces more is no dataset of this kind.
LARGEST = 2**28
# What MNIST's files are called by split.
_PREFIX = {"train": "train", "test": "t10k"}
# The batches are pickles: none is opened whose checksum is not the published one.
BATCHES: dict[str, dict[str, str]] = {
    "train": {
        "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
        "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
        "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    },
    "test": {"test_batch": "md5:40351d587109b95175f43aff81a1287e"},
}


def cifar_inventory(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Return the split's files that are in the folder, and those missing."""
    batches = [f"{FOLDER}/{name}" for name in BATCHES[split]]
    found = [name for name in batches if (folder / name).is_file()]
    if found:
        return found, [name for name in batches if name not in found]
    for name in (ARCHIVE, f"{split}.parquet"):
        if (folder / name).is_file():
            return [name], []
    return [], [f"{ARCHIVE} or {split}.parquet"]


def read_cifar(folder: Path, split: str) -> SplitImages:
    """Read one split from the batches where there are any, else from the Parquet file."""
    found = cifar_inventory(folder, split)[0]
    if found[0].endswith(".parquet"):
        return _read_parquet(folder / found[0], split)
    return _read_batches(folder, split, archived=found[0] == ARCHIVE)


def _read_batches(folder: Path, split: str, archived: bool) -> SplitImages:
    where = folder / (ARCHIVE if archived else FOLDER)
    if archived:
        files = _from_archive(where, split)
    else:
        files = {name: (where / name).read_bytes() for name in BATCHES[split]}
    rows = []
    labels = []
    sha = hashlib.sha256()
    for name, expected in BATCHES[split].items():
        if name not in files:
            raise BadDataError(f"{where} has no {name}")
        check(files[name], expected, f"{where}: {name}")
        batch = _Unpickler(io.BytesIO(files[name]), encoding="bytes").load()
        rows.append(np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
        labels.append(np.asarray(batch[b"labels"], dtype=np.int64))
        sha.update(files.pop(name))
    data = np.concatenate(rows).transpose(0, 2, 3, 1)
    return SplitImages(split, np.concatenate(labels), lambda keep: data[keep], sha.hexdigest())


def _from_archive(path: Path, split: str) -> dict[str, bytes]:
    """Read the split's batches into memory; nothing of the archive is written to disk."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            return dict(_members(archive, split))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BadDataError(f"{path} is not a whole tar.gz archive: {error}") from error


def _members(archive: tarfile.TarFile, split: str) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        top, _, name = member.name.partition("/")
        if top == FOLDER and name in BATCHES[split] and (file := archive.extractfile(member)):
            yield name, file.read()


class _Unpickler(pickle.Unpickler):
    """Makes NumPy arrays and nothing else, should a checksum ever be forged."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if (module, name) == ("_codecs", "encode"):  # bytes, in a pickle that Python 3 wrote
            return lambda text, encoding: text.encode(encoding)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # the same function, wherever NumPy keeps it now
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR-10 batch")


def _read_parquet(path: Path, split: str) -> SplitImages:
    parquet = need("pyarrow.parquet", "images")
    pyarrow = need("pyarrow", "images")
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise BadDataError(f"{path} is not a readable Parquet file: {error}") from error
    if missing := {"image", "label"} - set(table.column_names):
        raise BadDataError(
            f"{path} has no column {' and no '.join(sorted(missing))}; it has "
            f"{', '.join(table.column_names)}. CIFAR-10 needs image (encoded bytes) and label."
        )
    label = np.asarray(table["label"].to_pylist(), dtype=object)
    wrong = [row for row, value in enumerate(label) if value not in range(len(CLASSES))]
    if wrong:
        raise BadDataError(f"{path}: label {label[wrong[0]]!r} in row {wrong[0]} is not in 0 to 9")
    with path.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
    decode = functools.partial(_decode, path, table["image"])
    return SplitImages(split, label.astype(np.int64), decode, sha)


def _decode(path: Path, column: Any, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Decode the chosen rows of a column of encoded images, bytes or ``{"bytes": ...}``."""
    cells = column.take(rows).to_pylist()
    contents = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
    names = [f"{path}, row {row}" for row in rows]
    images = np.empty((len(rows), 32, 32, 3), np.uint8)
    for i, result in enumerate(Pictures(contents, names).try_all()):
        if isinstance(result, BadImageError):
            raise result
        if result[0].shape != images.shape[1:]:
            raise BadDataError(f"{names[i]} is {result[0].shape}; CIFAR-10 is (32, 32, 3)")
        images[i] = result[0]
    return images


def idx_inventory(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Return the split's files that are in the folder, compressed or not, and those missing."""
    stems = (f"{_PREFIX[split]}-images-idx3-ubyte", f"{_PREFIX[split]}-labels-idx1-ubyte")
    found = []
    missing = []
    for stem in stems:
        there = [name for name in (f"{stem}.gz", stem) if (folder / name).is_file()]
        (found.append(there[0]) if there else missing.append(f"{stem}.gz"))
    return found, missing


def read_mnist(folder: Path, split: str) -> SplitImages:
    """Read one split; raise ``BadDataError`` where the files contradict each other."""
    images_file, labels_file = (folder / name for name in idx_inventory(folder, split)[0])
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
    return SplitImages(
        split=split,
        label=label.astype(np.int64),
        images=lambda rows: images[rows, :, :, np.newaxis],
        sha256=hashlib.sha256((images_sha + labels_sha).encode()).hexdigest(),
    )


def read_idx(path: Path, dims: int) -> tuple[NDArray[np.uint8], str]:
    """Return the unsigned bytes of an IDX file with so many dimensions, and their SHA-256."""
    header = 4 + 4 * dims
    magic = bytes((0, 0, 8, dims))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(header)
            sizes = np.frombuffer(content[4:], ">u4").tolist() if len(content) == header else []
            # no more than is announced is unpacked
            content += file.read(min(LARGEST, math.prod(sizes)) + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadDataError(f"{path} is not a whole gzip file: {error}") from error
    if content[:4] != magic or len(content) < header:
        raise BadDataError(
            f"{path} begins with {content[:4].hex() or 'nothing'}; an IDX file of bytes in "
            f"{dims} dimension{'s'[: dims > 1]} begins with {magic.hex()} and the sizes"
        )
    if math.prod(sizes) > LARGEST:
        raise BadDataError(
            f"{path} announces {math.prod(sizes):,} bytes, at most {LARGEST:,} are read"
        )
    if len(content) - header != math.prod(sizes):
        raise BadDataError(
            f"{path} announces {' x '.join(map(str, sizes))} bytes and holds "
            f"{len(content) - header}, not {math.prod(sizes)}: it is cut off or not the right file"
        )
    data = np.frombuffer(content, np.uint8, offset=header).reshape(sizes)
    return data, hashlib.sha256(content).hexdigest()
