"""Store of decisions: an append-only log in an SQLite file that several people share."""

import getpass
import hashlib
import json
import os
import sqlite3
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._samples import classes_of

_BLOCK = 1000
#: Classes that the labels of one image can be of: a bit each in a whole number of SQLite's.
_MOST_CLASSES = 62


def given_labels(ds: xr.Dataset) -> NDArray[np.int64]:
    """The labels as they were given, also where corrected ones have taken their place.

    Of several labels an image each is a bit of the number, class 0 the lowest.

    Raises
    ------
    ValueError
        The dataset has no labels, or several an image and more than 62 classes.
    """
    name = "labels" if "labels" in ds else "label"
    if name not in ds or "class" not in ds.coords:
        raise ValueError(
            "to review labels takes 'label' (sample,) or 'labels' (sample, class), and the "
            "coordinate 'class'; the dataset has "
            f"{', '.join(map(str, ds.data_vars)) or 'no variables'}"
        )
    values = ds[f"{name}_given" if f"{name}_given" in ds else name]
    if name == "label":
        return np.asarray(values.values, dtype=np.int64)
    if values.sizes["class"] > _MOST_CLASSES:
        raise ValueError(
            f"{values.sizes['class']} classes: at most {_MOST_CLASSES} can be reviewed where an "
            "image has several"
        )
    return bits_of(values.transpose("sample", "class").values)


def bits_of(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Sets of classes, bool (sample, class), as numbers with a bit a class."""
    bits: NDArray[np.int64] = flags.astype(np.int64) @ (1 << np.arange(flags.shape[1]))
    return bits


def flags_of(bits: NDArray[np.int64], classes: int) -> NDArray[np.bool_]:
    """The inverse of :func:`bits_of`."""
    flags: NDArray[np.bool_] = (bits[:, None] >> np.arange(classes)) & 1 == 1
    return flags


def image_hash(pixels: NDArray[Any]) -> str:
    """What tells whether an image is still the same one."""
    head = f"{pixels.shape} {pixels.dtype.str} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:32]


def dataset_hash(ds: xr.Dataset, images: str = "sha256") -> str:
    """SHA-256 over the images, their ids, and the given labels and classes where there are any.

    For the images stands that attribute of the dataset, where there is one; otherwise their
    pixels are read. Corrections do not change the hash.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"image": (("sample", "y", "x", "channel"), np.zeros((2, 1, 1, 1), np.uint8)),
    ...      "label": ("sample", [0, 1])},
    ...     coords={"sample": [7, 8], "class": ["a", "b"]},
    ... )
    >>> dataset_hash(ds) == dataset_hash(ds.assign(label=("sample", [1, 1])))
    False
    """
    digest = hashlib.sha256()
    labelled = "label" in ds or "labels" in ds
    if labelled:
        _add(digest, [str(name) for name in ds["class"].values])
    _add(digest, [str(value) for value in ds["sample"].values])
    if labelled:
        digest.update(given_labels(ds).astype("<i8").tobytes())
    if source := ds.attrs.get(images):
        digest.update(str(source).encode())
        return digest.hexdigest()
    for start in range(0, ds.sizes["sample"], _BLOCK):
        block = ds["image"].isel(sample=slice(start, start + _BLOCK)).values
        digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()


def _add(digest: Any, texts: list[str]) -> None:
    """Take in a list of texts so that no two lists look alike."""
    digest.update(f"{len(texts)}:".encode())
    for text in texts:
        coded = text.encode()
        digest.update(f"{len(coded)}:".encode() + coded)


FORMAT = "workbench decisions 2"
#: What makes a store of an earlier format one of this.
_MIGRATIONS = {
    "workbench label review 1": (
        "ALTER TABLE decisions ADD COLUMN object TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE decisions ADD COLUMN data TEXT",
    )
}
#: Seconds that a decision waits while others write.
_PATIENCE = 30
_SCHEMA = (
    "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE decisions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        sample TEXT NOT NULL,
        reviewer TEXT NOT NULL,
        time TEXT NOT NULL,
        action TEXT NOT NULL CHECK (action IN ('confirm', 'change', 'none', 'unclear', 'undo')),
        label INTEGER,
        previous INTEGER,
        score REAL,
        source TEXT NOT NULL,
        undoes INTEGER UNIQUE REFERENCES decisions (id),
        object TEXT NOT NULL DEFAULT '',
        data TEXT
    )""",
    "CREATE INDEX by_sample ON decisions (sample, reviewer)",
    """CREATE TRIGGER no_update BEFORE UPDATE ON decisions
    BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END""",
    """CREATE TRIGGER no_delete BEFORE DELETE ON decisions
    BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END""",
)


class StoreError(RuntimeError):
    """A store of decisions cannot be used: what is wrong with it, and what would be right."""


def connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    """Open or make the file; to read, nothing is made or changed, in its folder neither."""
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be made: there is no folder {path.parent}")
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
        uri=True,
        timeout=_PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    return connection


def prepare(
    connection: sqlite3.Connection, path: Path, ds: xr.Dataset, seed: int
) -> dict[str, str]:
    """Make a new store, or bring an old one into the present format; tell about it."""
    _sound(connection, path)
    # One file at rest, without a log beside it: who copies it copies all decisions.
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = FULL")
    with transaction(connection):
        if not _tables(connection):
            _create(connection, ds, seed)
        # Where it may not be written SQLite would say so at the first decision only.
        connection.execute("UPDATE about SET value = value WHERE key = 'format'")
        about = dict(connection.execute("SELECT key, value FROM about").fetchall())
        if steps := _MIGRATIONS.get(about.get("format", "")):
            for statement in steps:
                connection.execute(statement)
            connection.execute("UPDATE about SET value = ? WHERE key = 'format'", (FORMAT,))
            about["format"] = FORMAT
    return about


def _sound(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """What an old file says of itself, nothing for a new one; raise where it is no store."""
    tables = _tables(connection)
    if tables and not {"about", "decisions"} <= tables:
        raise StoreError(f"{path} is an SQLite file of something else; choose another name")
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(problem)
    about = _about(connection) if tables else {}
    if about and about.get("format") not in (FORMAT, *_MIGRATIONS):
        raise StoreError(f"{path} has the format {about.get('format')!r}, not {FORMAT!r}")
    return about


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def _about(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT key, value FROM about").fetchall())


def _create(connection: sqlite3.Connection, ds: xr.Dataset, seed: int) -> None:
    about = {
        "format": FORMAT,
        "dataset": dataset_hash(ds),
        "listing": dataset_hash(ds, "listing_sha256") if "listing_sha256" in ds.attrs else "",
        "name": str(ds.attrs.get("name", "unnamed data")),
        "samples": str(ds.sizes["sample"]),
        "classes": json.dumps(classes_of(ds)),
        "seed": str(int(seed)),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())


def carried(
    connection: sqlite3.Connection, path: Path, about: dict[str, str], ds: xr.Dataset
) -> dict[tuple[str, str], str] | None:
    """Which sample of the dataset each decided one, by id and image, is now; None if all are.

    A sample is the same one by its id where the image is as it was when somebody decided on it,
    or by the image alone where the id is gone.

    Raises
    ------
    StoreError
        No decision can be carried over, or the classes are others.
    """
    ours, listed = dataset_hash(ds), about.get("listing", "")
    # The listing is all that is known where one of the two was loaded lazily.
    is_lazy = listed in (ours, about["dataset"])
    if about["dataset"] == ours or (is_lazy and listed == dataset_hash(ds, "listing_sha256")):
        return None
    own = {str(name): position for position, name in enumerate(ds["sample"].values)}
    rows = connection.execute("SELECT DISTINCT sample, object, data FROM decisions").fetchall()
    seen = {(sample, _image_of(name, data)) for sample, name, data in rows}
    here = sorted({sample for sample, _ in seen if sample in own})
    images = ds["image"].isel(sample=[own[sample] for sample in here])
    now = dict(zip(here, _hashes(images), strict=True))
    moved = {key: key[0] for key in seen if key[0] in own and key[1] in ("", now[key[0]])}
    lost = {image: (sample, image) for sample, image in seen if sample not in own and image}
    if lost:
        for name, image in zip(own, _hashes(ds["image"]), strict=True):
            if image in lost:
                moved[lost.pop(image)] = name
    classes = classes_of(ds)
    theirs = json.loads(about["classes"])
    if not moved or classes[: len(theirs)] != theirs:
        raise StoreError(
            f"{path} holds decisions on other data: {about['name']} with "
            f"{int(about['samples']):,} samples, not {ds.attrs.get('name', 'unnamed data')} with "
            f"{ds.sizes['sample']:,}, or the same with other labels, images or classes. Choose "
            "another store for this dataset, or load the dataset that the store belongs to"
        )
    decided = {sample for sample, _ in seen}
    kept = {sample for sample, _ in moved}
    warnings.warn(
        f"the dataset is not the one that {path} was made for; of {len(decided)} decided samples "
        f"{len(kept)} are the same and keep their decisions, {len(set(here) - kept)} are other "
        f"images under the same id and {len(decided - kept - set(here))} are gone: decisions on "
        "these do not count",
        stacklevel=4,
    )
    return moved


def _image_of(name: str, data: str | None) -> str:
    """The hash of the image that a decision on its labels was made on, "" where none is kept."""
    return "" if name or not data else str(json.loads(data).get("image", ""))


def _hashes(images: xr.DataArray) -> Iterator[str]:
    for start in range(0, images.sizes["sample"], _BLOCK):
        yield from map(image_hash, images.isel(sample=slice(start, start + _BLOCK)).values)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that has the right to write from its start."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what SQLite's errors mean for the one who reviews."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        text = str(error)
        if "readonly" in text or "unable to open" in text:
            raise StoreError(
                f"{path} cannot be written ({text}): its file or folder is read-only. Choose a "
                "place where you may write"
            ) from error
        raise StoreError(f"{path}: {text}; nothing was lost, try again") from error
    except (sqlite3.DatabaseError, pd.errors.DatabaseError) as error:
        raise StoreError(
            f"{path} is damaged or not an SQLite file ({error}). Put a copy of it in its place, "
            "or choose another name; a file beside it that ends in -journal belongs to it"
        ) from error


#: What holds: the last decision of each reviewer on each sample, or on each object of it, that
#: was not undone.
_CURRENT = """
SELECT * FROM decisions WHERE id IN (
    SELECT max(id) FROM decisions
    WHERE action != 'undo' AND (object != '') = :objects AND (:sample IS NULL OR sample = :sample)
    AND id NOT IN (SELECT undoes FROM decisions WHERE undoes IS NOT NULL)
    GROUP BY sample, object, reviewer, CASE WHEN source LIKE 'repeat %' THEN source ELSE '' END
) ORDER BY id
"""
_LAST = """
SELECT * FROM decisions
WHERE reviewer = :reviewer AND action != 'undo' AND (object != '') = :objects
AND id NOT IN (SELECT undoes FROM decisions WHERE undoes IS NOT NULL) ORDER BY id DESC LIMIT 1
"""
_INSERT = """
INSERT INTO decisions
(sample, action, label, previous, score, source, object, data, reviewer, time)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True)
class Decision:
    """One decision on one sample, or on one object in it.

    Attributes
    ----------
    sample
        The sample's id as text.
    action
        ``"confirm"``: the given label is right. ``"change"``: `label` is. ``"none"``: no class
        fits. ``"unclear"``: nobody could tell.
    label
        The class number that holds from now on, -1 for none.
    previous
        The one that held before.
    score
        The issue's score when the decision was made.
    source
        ``"ranked"`` or ``"audit"`` for what the queue showed; ``"repeat 1"`` for an answer to a
        question that was asked again, which holds beside the first; else where the decision came
        from.
    object
        The object's id within the sample; empty for a decision on the sample's label.
    data
        JSON: what holds for the object from now on, which has no class number, -1; of a decision
        on labels, ``image``, the image's hash.
    """

    sample: str
    action: str
    label: int
    previous: int
    score: float | None = None
    source: str = "ranked"
    object: str = ""
    data: str | None = None


class Store:
    """A file of decisions on the labels of one dataset, and on the objects in its images.

    What is read and undone are decisions on labels, or with ``objects`` those on objects.

    Every decision is on disk when :meth:`append` returns. Several processes may write at once.

    Parameters
    ----------
    path
        The file; it is made where there is none.
    ds
        The dataset, whose hash must be that of the store.
    seed
        Of the audit's draws. It is kept when the store is made; later the store's own holds.

    Raises
    ------
    StoreError
        The file is of another dataset, read-only, damaged, tampered with, or no store at all.

    Warns
    -----
    UserWarning
        The dataset has gained, lost or changed samples since the store was made: how many
        decisions still count, and how many do not.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ds: xr.Dataset,
        seed: int = 0,
        *,
        read_only: bool = False,
    ) -> None:
        self.path = Path(path).expanduser()
        self._ids = {str(name) for name in ds["sample"].values}
        classes = ds.sizes.get("class", 0)
        self._end = 1 << classes if "labels" in ds else classes
        # JupyterLab may deliver messages of a widget on another thread than the cells' one.
        self._lock = threading.RLock()
        with explained(self.path):
            self._connection = connect(self.path, read_only)
            try:
                if read_only:
                    about = _sound(self._connection, self.path)
                else:
                    about = prepare(self._connection, self.path, ds, seed)
                self.seed = int(about["seed"])
                self._moved = carried(self._connection, self.path, about, ds)
            except BaseException:
                self._connection.close()
                raise

    def append(self, decisions: Iterable[Decision], reviewer: str) -> None:
        """Add decisions, all of them or none."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [(*astuple(decision), reviewer, time) for decision in decisions]
        if self._moved is not None:
            self._moved |= {(row[0], _image_of(row[6], row[7])): row[0] for row in rows}
        with self._writing() as connection:
            connection.executemany(_INSERT, rows)

    def undo(self, reviewer: str, objects: bool = False) -> str | None:
        """Take a reviewer's last decision back; return its sample, or None where there is none."""
        with self._writing() as connection:
            last = connection.execute(_LAST, {"reviewer": reviewer, "objects": objects}).fetchone()
            if last is None:
                return None
            time = datetime.now(UTC).isoformat(timespec="milliseconds")
            connection.execute(
                "INSERT INTO decisions (sample, reviewer, time, action, label, previous, source, "
                "object, undoes) VALUES (?, ?, ?, 'undo', ?, ?, ?, ?, ?)",
                (
                    last["sample"],
                    reviewer,
                    time,
                    last["previous"],
                    last["label"],
                    last["source"],
                    last["object"],
                    last["id"],
                ),
            )
            return str(last["sample"])

    def current(self, objects: bool = False, sample: str | None = None) -> pd.DataFrame:
        """What holds: each reviewer's last decision on each sample or object, oldest first."""
        return self._read(_CURRENT, objects=objects, sample=sample)

    def log(self, objects: bool = False) -> pd.DataFrame:
        """Every decision that was ever made, and every undo, in order."""
        return self._read(
            "SELECT * FROM decisions WHERE (object != '') = :objects ORDER BY id", objects=objects
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, query: str, **parameters: Any) -> pd.DataFrame:
        with self._lock, explained(self.path):
            frame = pd.read_sql_query(query, self._connection, index_col="id", params=parameters)
        if self._moved is not None:
            images = map(_image_of, frame["object"], frame["data"])
            now = [self._moved.get(key) for key in zip(frame["sample"], images, strict=True)]
            frame = frame.assign(sample=np.array(now, dtype=object))
            frame = frame[frame["sample"].notna()]
        odd = ~frame["sample"].isin(self._ids)
        if not parameters.get("objects"):
            odd |= (frame["label"] < -2) | (frame["label"] >= max(self._end, 1))
        if odd.any():
            first = frame[odd].iloc[0]
            raise StoreError(
                f"{self.path} has been tampered with: {odd.sum()} decisions are on samples or "
                f"labels that the dataset does not have, the first on sample {first['sample']!r} "
                f"with label {first['label']}"
            )
        return frame

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self.path), transaction(self._connection):
            yield self._connection


@contextmanager
def opened(store: Store | str | os.PathLike[str], ds: xr.Dataset) -> Iterator[Store]:
    """A store by its path, which must exist, until the block ends; or one that is open already.

    Raises
    ------
    StoreError
        There is no such file, or it cannot be used.
    """
    if isinstance(store, Store):
        yield store
        return
    path = _existing(store)
    with explained(path), closing(connect(path, read_only=True)) as connection:
        old = _sound(connection, path).get("format") != FORMAT
    with Store(path, ds, read_only=not old) as own:
        yield own


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise StoreError(f"there is no store of decisions at {file}; labels.review makes one")
    return file


def read_current(path: str | os.PathLike[str]) -> pd.DataFrame:
    """What holds in a store whose dataset is not at hand; the file stays as it is.

    Raises
    ------
    StoreError
        There is no such file, or it is no store.
    """
    file = _existing(path)
    with explained(file), closing(connect(file, read_only=True)) as connection:
        _sound(connection, file)
        return pd.read_sql_query(
            _CURRENT, connection, index_col="id", params={"objects": False, "sample": None}
        )


def user_name() -> str:
    """The user's name; a container may run without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "reviewer"
