"""The decisions of a review, kept in SQLite: an append-only log that several people share."""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import xarray as xr

from workbench.labels.sqlite_file import (
    StoreError,
    connect,
    explained,
    prepare,
    transaction,
)

#: What holds: the last decision of each reviewer on each sample that was not undone.
_CURRENT = """
SELECT * FROM decisions WHERE id IN (
    SELECT max(id) FROM decisions
    WHERE action != 'undo' AND id NOT IN (SELECT undoes FROM decisions WHERE undoes IS NOT NULL)
    GROUP BY sample, reviewer
) ORDER BY id
"""
_LAST = """
SELECT * FROM decisions WHERE reviewer = ? AND action != 'undo'
AND id NOT IN (SELECT undoes FROM decisions WHERE undoes IS NOT NULL) ORDER BY id DESC LIMIT 1
"""
_INSERT = """
INSERT INTO decisions (sample, action, label, previous, score, source, reviewer, time)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True)
class Decision:
    """One decision on one sample.

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
        ``"ranked"`` or ``"audit"`` for what the queue showed, else where the decision came from.
    """

    sample: str
    action: str
    label: int
    previous: int
    score: float | None = None
    source: str = "ranked"


class Store:
    """A file of decisions on the labels of one dataset.

    Every decision is on disk when :meth:`append` returns. Several processes may write at once.

    Parameters
    ----------
    path
        The file; it is made where there is none.
    ds
        The dataset, whose hash must be that of the store.
    seed
        Of the audit's lots. It is kept when the store is made; later the store's own holds.

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

    def undo(self, reviewer: str) -> str | None:
        """Take a reviewer's last decision back; return its sample, or None where there is none."""
        with self._writing() as connection:
            last = connection.execute(_LAST, (reviewer,)).fetchone()
            if last is None:
                return None
            time = datetime.now(UTC).isoformat(timespec="milliseconds")
            connection.execute(
                "INSERT INTO decisions (sample, reviewer, time, action, label, previous, source, "
                "undoes) VALUES (?, ?, ?, 'undo', ?, ?, ?, ?)",
                (last["sample"], reviewer, time, last["previous"], last["label"],
                 last["source"], last["id"]),
            )  # fmt: skip
            return str(last["sample"])

    def current(self) -> pd.DataFrame:
        """What holds: each reviewer's last decision on each sample, oldest first."""
        return self._read(_CURRENT)

    def log(self) -> pd.DataFrame:
        """Every decision that was ever made, and every undo, in order."""
        return self._read("SELECT * FROM decisions ORDER BY id")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, query: str) -> pd.DataFrame:
        with self._lock, explained(self.path):
            return pd.read_sql_query(query, self._connection, index_col="id")

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
