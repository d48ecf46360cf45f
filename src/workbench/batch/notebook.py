"""A notebook file as the runner sees it: read, and prepared for a run."""

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench._extras import need

PARAMETERS = "parameters"
INJECTED = "injected-parameters"
# papermill puts cells with this tag beside the cell that failed; they hold nothing of the notebook
_ERROR_MARKER = "papermill-error-cell-tag"


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
    """A notebook file, read once, so that what is hashed is what is run."""

    path: Path
    content: bytes
    document: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> "Notebook":
        """Read a notebook of any format; a JobError says why it cannot be read."""
        path = Path(path)
        try:
            if path.exists() and not path.is_file():
                raise JobError(["this is not a regular file"])
            content = path.read_bytes()
            document = json.loads(content)  # UTF-8, UTF-16 or UTF-32, with a byte order mark or not
            return cls(path, content, _as_version_4(document))
        except OSError as error:
            raise JobError([error.strerror or str(error)]) from error
        except JobError:
            raise
        except (ValueError, RecursionError) as error:
            raise JobError([f"this is not a notebook: it is not JSON ({error})"]) from error

    @property
    def cells(self) -> list[dict[str, Any]]:
        """Its cells, each with one text as its ``source``."""
        cells: list[dict[str, Any]] = self.document["cells"]
        return cells

    @property
    def sha256(self) -> str:
        """The hash of the file."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def language(self) -> str:
        """The programming language that it says it is in; Python if it does not say."""
        metadata = self.document["metadata"]
        said = [metadata.get("language_info", {}).get("name"), self.kernelspec.get("language")]
        return str(next(filter(None, said), "python")).lower()

    @property
    def kernelspec(self) -> dict[str, Any]:
        """What it says of its kernel."""
        spec = self.document["metadata"].get("kernelspec")
        return spec if isinstance(spec, dict) else {}

    def source(self, tag: str) -> str | None:
        """Return the text of the first code cell with a tag; None if there is none."""
        index = self._tagged(tag)
        return None if index is None else str(self.cells[index]["source"])

    def prepare(self, injected: str | None) -> tuple[dict[str, Any], list[int | None]]:
        """Return the document to execute, and where each of its cells was in this one.

        The code that sets parameters becomes a cell after the one tagged ``parameters``, in place
        of one from an earlier run, or at the top. Of another language than Python, where nobody
        knows what an earlier run has set, that run's cell is left out.
        """
        old, declared = self._tagged(INJECTED), self._tagged(PARAMETERS)
        out = {i for i, cell in enumerate(self.cells) if _has_tag(cell, _ERROR_MARKER)}
        if injected is None and old is not None and self.language != "python":
            out.add(old)
        kept = [i for i in range(len(self.cells)) if i not in out]
        cells = [self.cells[i] for i in kept]
        origins: list[int | None] = [*kept]
        if injected is not None:
            cell: dict[str, Any] = {
                "cell_type": "code",
                "metadata": {"tags": [INJECTED]},
                "source": injected,
                "outputs": [],
                "execution_count": None,
            }
            if self.document["nbformat_minor"] >= 5:
                cell["id"] = INJECTED
            if old is not None:
                cells[kept.index(old)] = cell
            else:
                at = 0 if declared is None else kept.index(declared) + 1
                cells.insert(at, cell)
                origins.insert(at, None)
        return {**self.document, "cells": cells}, origins

    def _tagged(self, tag: str) -> int | None:
        code = [i for i, cell in enumerate(self.cells) if cell["cell_type"] == "code"]
        found = [i for i in code if _has_tag(self.cells[i], tag)]
        if not found and tag == PARAMETERS:  # a form of Colab's says what it is without a tag
            found = [i for i in code if "@param" in self.cells[i]["source"]]
        return found[0] if found else None


def _has_tag(cell: dict[str, Any], tag: str) -> bool:
    tags = cell["metadata"].get("tags")
    return isinstance(tags, list) and tag in tags


def _as_version_4(document: Any) -> dict[str, Any]:
    """Return a document of format 4 whose cells have all that the format asks for."""
    if not isinstance(document, dict) or not {"cells", "worksheets"} & document.keys():
        raise JobError(["this is not a notebook: it has no cells"])
    if document.get("nbformat", 4) != 4:
        try:
            document = need("nbformat", extra="batch").reads(json.dumps(document), as_version=4)
        except Exception as error:  # whatever a converter trips over in a file of any origin
            raise JobError([f"this notebook cannot be read as format 4: {error}"]) from error
    cells = []
    for index, cell in enumerate(document.get("cells") or []):
        try:
            cell = {**cell, "source": "".join(cell["source"]), "metadata": cell.get("metadata", {})}
            kinds = (
                isinstance(cell["metadata"], dict),
                cell["cell_type"] in ("code", "markdown", "raw"),
            )
        except (TypeError, KeyError):
            kinds = (False, False)
        if not all(kinds):
            raise JobError([f"this is not a notebook of format 4: cells[{index}] is no cell"])
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
        cells.append(cell)
    metadata = document.get("metadata")
    minor = document.get("nbformat_minor", 0)
    return {
        **document,
        "cells": cells,
        "metadata": metadata if isinstance(metadata, dict) else {},
        "nbformat": 4,
        "nbformat_minor": minor if isinstance(minor, int) else 0,
    }


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Replace a file at once: a reader finds the old text or the new, never half of one.

    With `durable` that holds even if the power fails, for which the disk has to be waited for.
    """
    part = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.part")
    try:
        # a link that somebody has put here is not followed
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
