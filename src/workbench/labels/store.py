"""The decisions of a review, kept in SQLite: an append-only log that several people share.

What makes two image datasets with labels the same.

The SQLite file of a review: made, checked, and its errors said in plain words.
"""

import getpass
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

_BLOCK = 1000


def given_labels(ds: xr.Dataset) -> NDArray[np.int64]:
    """The labels as they were given, also where corrected ones have taken their place.

    Raises
    ------
    ValueError
        The dataset has no single labels.
    """
    if "label" not in ds or "class" not in ds.coords:
        raise ValueError(
            "to review labels takes 'label' (sample,) and the coordinate 'class'; the dataset has "
            f"{', '.join(map(str, ds.data_vars)) or 'no variables'}"
        )
    name = "label_given" if "label_given" in ds else "label"
    return np.asarray(ds[name].values, dtype=np.int64)


def dataset_hash(ds: xr.Dataset) -> str:
    """SHA-256 over the images, their ids, and the given labels and classes where there are any.

    For the images stands ``attrs["sha256"]`` of what was read, where there is one; otherwise
    their pixels are read. Corrections do not change the hash.

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
    if "label" in ds:
        _add(digest, [str(name) for name in ds["class"].values])
    _add(digest, [str(value) for value in ds["sample"].values])
    if "label" in ds:
        digest.update(given_labels(ds).astype("<i8").tobytes())
    if source := ds.attrs.get("sha256"):
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


def connect(path: Path) -> sqlite3.Connection:
    """Open or make the file."""
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be made: there is no folder {path.parent}")
    connection = sqlite3.connect(
        path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    return connection


def prepare(
    connection: sqlite3.Connection, path: Path, ds: xr.Dataset, seed: int
) -> dict[str, str]:
    """Make a new store, or check that an old one is sound and of this dataset; tell about it."""
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(problem)
    # Readers and writers do not wait for each other. Where the file system cannot do that, such
    # as a mounted drive, SQLite stays with its usual journal, which is as safe.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    with transaction(connection):
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not tables:
            _create(connection, ds, seed)
        elif not {"about", "decisions"} <= tables:
            raise StoreError(f"{path} is an SQLite file of something else; choose another name")
        about = dict(connection.execute("SELECT key, value FROM about").fetchall())
        if steps := _MIGRATIONS.get(about.get("format", "")):
            for statement in steps:
                connection.execute(statement)
            connection.execute("UPDATE about SET value = ? WHERE key = 'format'", (FORMAT,))
            about["format"] = FORMAT
    _check(path, about, ds)
    return about


def _create(connection: sqlite3.Connection, ds: xr.Dataset, seed: int) -> None:
    about = {
        "format": FORMAT,
        "dataset": dataset_hash(ds),
        "name": str(ds.attrs.get("name", "unnamed data")),
        "samples": str(ds.sizes["sample"]),
        "classes": json.dumps([str(name) for name in ds.coords.get("class", [])]),
        "seed": str(int(seed)),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())


def _check(path: Path, about: dict[str, str], ds: xr.Dataset) -> None:
    if about.get("format") != FORMAT:
        raise StoreError(f"{path} has the format {about.get('format')!r}, not {FORMAT!r}")
    if about["dataset"] == dataset_hash(ds):
        return
    own, theirs = ds.sizes["sample"], int(about["samples"])
    raise StoreError(
        f"{path} holds decisions on other data: {about['name']} with {theirs:,} samples, not "
        f"{ds.attrs.get('name', 'unnamed data')} with {own:,}, or the same with other labels. "
        "Choose another store for this dataset, or load the dataset that the store belongs to"
    )


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
            "or choose another name; a file beside it that ends in -wal belongs to it"
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
        JSON: what holds for the object from now on; it has no class number, -1.
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
        The file is of another dataset, read-only, damaged, or no store at all.
    """

    def __init__(self, path: str | os.PathLike[str], ds: xr.Dataset, seed: int = 0) -> None:
        self.path = Path(path).expanduser()
        # JupyterLab may deliver messages of a widget on another thread than the cells' one.
        self._lock = threading.RLock()
        with explained(self.path):
            self._connection = connect(self.path)
            try:
                self.seed = int(prepare(self._connection, self.path, ds, seed)["seed"])
            except BaseException:
                self._connection.close()
                raise

    def append(self, decisions: Iterable[Decision], reviewer: str) -> None:
        """Add decisions, all of them or none."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [(*astuple(decision), reviewer, time) for decision in decisions]
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
                (last["sample"], reviewer, time, last["previous"], last["label"],
                 last["source"], last["object"], last["id"]),
            )  # fmt: skip
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
            return pd.read_sql_query(query, self._connection, index_col="id", params=parameters)

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
    path = Path(store).expanduser()
    if not path.is_file():
        raise StoreError(f"there is no store of decisions at {path}; labels.review makes one")
    with Store(path, ds) as own:
        yield own


def read_current(path: str | os.PathLike[str]) -> pd.DataFrame:
    """What holds in a store whose dataset is not at hand; the file stays as it is.

    Raises
    ------
    StoreError
        There is no such file, or it is no store.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise StoreError(f"there is no store of decisions at {file}; labels.review makes one")
    with explained(file):
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return pd.read_sql_query(
                _CURRENT, connection, index_col="id", params={"objects": False, "sample": None}
            )
        finally:
            connection.close()


def user_name() -> str:
    """The user's name; a container may run without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "reviewer"
