"""What an executed notebook tells: its title, its question, its figures."""

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.batch.run_record import RunRecord

_MOST = 4
_WIDTH = 960
#: A cell with this tag shows a main figure.
TAG = "main-figure"
_IMAGE = re.compile(r"!\[[^]]*\]\([^)]*\)")
_EMPHASIS = re.compile(r"(?<!\w)(\*\*?|__?)(\S(?:.*?\S)?)\1(?!\w)")
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


@dataclass
class Figure:
    """A picture in a cell's outputs."""

    cell: int
    heading: str
    alt: str
    address: str
    width: int
    height: int


@dataclass
class Story:
    """A notebook as a report introduces it."""

    title: str
    question: str = ""
    figures: list[Figure] = field(default_factory=list)

    @classmethod
    def of(cls, record: RunRecord) -> "Story":
        """Read a run's executed notebook; of one that cannot be read only the name is known."""
        path = record.folder / Path(record.notebook).name
        try:
            cells = json.loads(path.read_bytes())["cells"]
        except (OSError, ValueError, KeyError):
            return cls(Path(record.notebook).stem)
        title, question = _beginning(cells)
        pictures = list(_pictures(cells))
        tagged = [p for p in pictures if TAG in cells[p[0]]["metadata"].get("tags", [])]
        figures = [_figure(*picture) for picture in tagged or _spread(pictures)]
        return cls(title or Path(record.notebook).stem, question, figures)


def _beginning(cells: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the first heading, and the first paragraph below it that is not a badge."""
    text = next(("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"), "")
    title = re.search(r"^#\s+(.+)$", text, re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n", text[title.end() :] if title else text)
    return _unmarked(title[1]) if title else "", next(filter(None, map(_unmarked, paragraphs)), "")


def _unmarked(text: str) -> str:
    """Return a text without Markdown: no pictures, of links their words."""
    words = _LINK.sub(r"\1", _IMAGE.sub("", " ".join(text.split())))
    # Between the marks of code everything means itself.
    parts = words.split("`")
    parts[::2] = [_EMPHASIS.sub(r"\2", part) for part in parts[::2]]
    return "".join(parts).strip()


def _pictures(cells: list[dict[str, Any]]) -> Iterator[tuple[int, str, str, bytes]]:
    """Yield index, heading, alternative text and PNG of each picture."""
    heading = ""
    for index, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            found = re.findall(r"^#+\s+(.+)$", "".join(cell["source"]), re.MULTILINE)
            heading = _unmarked(found[-1]) if found else heading
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                alt = output["metadata"].get("image/png", {}).get("alt", "")
                yield index, heading, alt, base64.b64decode("".join(png))


def _spread(pictures: list[Any]) -> list[Any]:
    """Return a few, evenly from the first to the last."""
    if len(pictures) <= _MOST:
        return pictures
    return [pictures[round(i * (len(pictures) - 1) / (_MOST - 1))] for i in range(_MOST)]


def _figure(cell: int, heading: str, alt: str, png: bytes) -> Figure:
    """Return a picture at a width for reading, as part of the page."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as file:
        image = file.convert("RGB")
        if image.width > _WIDTH:
            image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)))
    smaller = io.BytesIO()
    image.save(smaller, "webp", quality=88)
    data = base64.b64encode(smaller.getvalue()).decode()
    alt = alt or f"A figure from the section {heading}"
    return Figure(cell, heading, alt, f"data:image/webp;base64,{data}", *image.size)
