"""A notebook file as the runner sees it: read, and corrected after a failure."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench._extras import need


class JobError(ValueError):
    """A run cannot start: its notebook, its parameters or its folder are wrong.

    Attributes
    ----------
    problems
        Everything that was found wrong, one sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Notebook:
    """A notebook's bytes, read once, so that what is hashed is what is run."""

    path: Path
    content: bytes
    cells: list[dict[str, Any]]

    @classmethod
    def read(cls, path: str | Path) -> "Notebook":
        """Read a notebook; a JobError says why it cannot be read."""
        path = Path(path)
        try:
            content = path.read_bytes()
            document = json.loads(content)
            cells = [{**cell, "source": "".join(cell["source"])} for cell in document["cells"]]
        except OSError as error:
            raise JobError([error.strerror or str(error)]) from error
        except (ValueError, KeyError, TypeError) as error:
            raise JobError([f"this is not a notebook of format 4 ({error!r})"]) from error
        return cls(path, content, cells)

    @property
    def sha256(self) -> str:
        """The hash of the file."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def parameters_cell(self) -> int | None:
        """Index of the cell tagged ``parameters``."""
        return self._tagged("parameters")

    def original_index(self, index: int, injected: bool) -> int:
        """Index in this notebook of a cell of the executed one, which may have one cell more."""
        if not injected or self._tagged("injected-parameters") is not None:
            return index
        at = self.parameters_cell
        return index - 1 if at is not None and index > at else index

    def _tagged(self, tag: str) -> int | None:
        for index, cell in enumerate(self.cells):
            if cell["cell_type"] == "code" and tag in cell.get("metadata", {}).get("tags", []):
                return index
        return None


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Replace a file at once: a reader finds the old text or the new, never half of one.

    With `durable` that holds even if the power fails, for which the disk has to be waited for.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def correct(document: Any, error: dict[str, Any] | None) -> None:
    """Make the metadata of a notebook that papermill executed true.

    When the kernel dies or a cell times out, papermill saves the notebook as if the cell, and
    every cell after it, had completed.
    """
    document.metadata.get("kernelspec", {}).pop("path", None)
    # papermill's "an exception was encountered" cells would shift the index of every other
    document.cells = [
        c for c in document.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])
    ]
    if error is None:
        return
    document.metadata.setdefault("papermill", {})["exception"] = True
    at = error["cell"]
    if at is None or at >= len(document.cells):
        return
    for cell in document.cells[at + 1 :]:
        if cell.metadata.get("papermill", {}).get("start_time") is None:
            cell.metadata.setdefault("papermill", {})["status"] = "pending"
    cell = document.cells[at]
    cell.metadata.setdefault("papermill", {}).update(exception=True, status="failed")
    if cell.cell_type == "code" and error["type"] not in [o.get("ename") for o in cell.outputs]:
        new_output = need("nbformat", extra="batch").v4.new_output
        text = f"{error['type']}: {error['message']}"
        cell.outputs.append(
            new_output("error", ename=error["type"], evalue=error["message"], traceback=[text])
        )
