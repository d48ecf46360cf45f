"""Where a named dataset is looked for: ``$WORKBENCH_DATA``, the cache, a download."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.datasets.errors import BadDataError, DataNotFoundError

# Seconds to connect and seconds of silence: offline, the search must move on soon.
TIMEOUT = (5, 30)


@dataclass(frozen=True)
class Origin:
    """Where a dataset's files are published: ``checksums[split][file] = "md5:..."``."""

    base_url: str
    checksums: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class DataSource:
    """A folder that holds what was asked for, and how to call it in ``attrs["source"]``."""

    folder: Path
    source: str


# (folder, split) -> the files of the split that are there, and those that are missing
Inventory = Callable[[Path, str], tuple[list[str], list[str]]]


def _idx(*md5: str) -> dict[str, dict[str, str]]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = {f"{name}-ubyte.gz": f"md5:{digest}" for name, digest in zip(names, md5, strict=True)}
    items = list(files.items())
    return {"train": dict(items[:2]), "test": dict(items[2:])}


_CIFAR_ARCHIVE = {
    "cifar-10-python.tar.gz": "sha256:"
    "6d958be074577803d12ecdefd02955f39262c83c16fe9354329d7fe0b5c001ce"
}
# MD5 where it is all that the publishers give: it tells a cut or foreign file, not an attacker.
REGISTRY: dict[str, Origin] = {
    "mnist": Origin(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        _idx(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "fashion-mnist": Origin(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        _idx(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    "cifar10": Origin(
        "https://www.cs.toronto.edu/~kriz/",
        {"train": _CIFAR_ARCHIVE, "test": _CIFAR_ARCHIVE},
    ),
}


def cache_folder() -> Path:
    """Return the folder that downloads are kept in."""
    import platformdirs

    return platformdirs.user_cache_path("workbench")


def locate(name: str, splits: Sequence[str], inventory: Inventory) -> DataSource:
    """Return the first place that holds these splits of a dataset, downloading it if need be.

    Raises
    ------
    DataNotFoundError
        No place has it; the message names each and says why.
    BadDataError
        ``$WORKBENCH_DATA`` holds some of the files only, or a download has a wrong checksum.
    """
    reasons = []
    looks: tuple[Callable[[], DataSource | str], ...] = (
        lambda: _in_workbench_data(name, splits, inventory),
        lambda: _in_cache(name, splits),
        lambda: _download(name, splits),
    )
    for look in looks:
        found = look()
        if isinstance(found, DataSource):
            return found
        reasons.append(found)
    listed = "\n".join(f"  {number}. {reason}" for number, reason in enumerate(reasons, 1))
    raise DataNotFoundError(f"{name} ({', '.join(splits)}) was not found. Tried:\n{listed}")


def check(content: bytes, expected: str, what: str) -> None:
    """Raise ``BadDataError`` unless the content has the checksum ``"algorithm:hex"``."""
    algorithm, _, wanted = expected.partition(":")
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != wanted:
        raise BadDataError(
            f"{what} has {algorithm} {found}; the official file has {wanted}. "
            "It is cut off or another file: get it again."
        )


def _in_workbench_data(name: str, splits: Sequence[str], inventory: Inventory) -> DataSource | str:
    variable = os.environ.get("WORKBENCH_DATA", "")
    if not variable:
        return "$WORKBENCH_DATA: not set"
    folder = Path(variable).expanduser() / name
    if not folder.is_dir():
        return f"$WORKBENCH_DATA: {folder} is not a folder"
    lists = [inventory(folder, split) for split in splits]
    found = [file for there, _ in lists for file in there]
    missing = [file for _, absent in lists for file in absent]
    if not missing:
        return DataSource(folder, f"$WORKBENCH_DATA/{name}")
    if found:
        raise BadDataError(
            f"{folder} is incomplete: it has {', '.join(found)} but not {', '.join(missing)}. "
            "Add what is missing, or ask for a split that is there."
        )
    return f"$WORKBENCH_DATA: {folder} has no {' or '.join(missing)}"


def _in_cache(name: str, splits: Sequence[str]) -> DataSource | str:
    folder = cache_folder() / name
    for file, expected in _files(name, splits).items():
        try:
            check((folder / file).read_bytes(), expected, str(folder / file))
        except OSError:
            return f"cache: no {file} in {folder}"
        except BadDataError as error:
            return f"cache: {error}"
    return DataSource(folder, "cache")


def _download(name: str, splits: Sequence[str]) -> DataSource | str:
    """Fetch what the cache lacks. pooch moves a file into place once its checksum matches."""
    import pooch
    from filelock import FileLock

    folder = cache_folder() / name
    base_url = REGISTRY[name].base_url
    fetch = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT, chunk_size=1 << 16)
    for file, expected in _files(name, splits).items():
        url = base_url + file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):  # who waited finds what the first fetched
                pooch.retrieve(url, known_hash=expected, fname=file, path=folder, downloader=fetch)
        except OSError as error:  # every error of requests is one, and so is a read-only cache
            return f"download: {url} failed with {type(error).__name__}: {error}"
        except ValueError as error:
            raise BadDataError(
                f"{url} sent another file than the official one (is a proxy or a login page in "
                f"between?); nothing was kept. {error}"
            ) from error
    return DataSource(folder, f"download from {base_url}")


def _files(name: str, splits: Sequence[str]) -> dict[str, str]:
    return {file: sha for split in splits for file, sha in REGISTRY[name].checksums[split].items()}
