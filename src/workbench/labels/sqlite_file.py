"""The SQLite file of a review: made, checked, and its errors said in plain words."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import xarray as xr

from workbench.labels.identity import dataset_hash

FORMAT = "workbench label review 1"
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
        undoes INTEGER UNIQUE REFERENCES decisions (id)
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
    _check(path, about, ds)
    return about


def _create(connection: sqlite3.Connection, ds: xr.Dataset, seed: int) -> None:
    about = {
        "format": FORMAT,
        "dataset": dataset_hash(ds),
        "name": str(ds.attrs.get("name", "unnamed data")),
        "samples": str(ds.sizes["sample"]),
        "classes": json.dumps([str(name) for name in ds["class"].values]),
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
