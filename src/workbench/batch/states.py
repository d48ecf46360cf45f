"""The inputs and outputs of a run, hashed."""

import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from workbench.batch.files import measure
from workbench.batch.run_record import FileState

_log = logging.getLogger("workbench.batch")
# not results: the record itself, which holds the hashes, and what the runner adds to it
_OWN = ("run.json", "log.txt", "config.yaml")


class HashedInputs:
    """Hashes the files that parameters name while the run goes on."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._states = [self._pool.submit(_state, path, name) for name, path in paths.items()]
        self._pool.shutdown(wait=False)

    def states(self) -> list[FileState]:
        """Wait for the hashes."""
        return [state for future in self._states if (state := future.result())]


def declared(files: list[dict[str, Any]], folder: Path) -> list[FileState]:
    """Return the inputs that a notebook declared, their paths seen from here."""
    return [
        FileState(
            path=os.path.relpath(folder / file["path"]), size=file["size"], sha256=file["sha256"]
        )
        for file in files
        if file["role"] == "input"
    ]


def outputs(folder: Path, names: list[str], files: list[dict[str, Any]]) -> list[FileState]:
    """Return what a run left in its folder, with the names under which it was recorded."""
    recorded = {os.path.normpath(f["path"]): f["name"] for f in files if f["role"] == "output"}
    paths = sorted({*names, *recorded} - {*_OWN})
    states = [_state(folder / path, recorded.get(path)) for path in paths]
    return [s.model_copy(update={"path": p}) for p, s in zip(paths, states, strict=True) if s]


def _state(path: Path, name: str | None) -> FileState | None:
    try:
        size, digest = measure(path)
    except OSError as error:
        _log.warning("%s cannot be read: %s", path, error.strerror)
        return None
    return FileState(path=os.path.relpath(path), size=size, sha256=digest, name=name)
