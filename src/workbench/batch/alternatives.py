"""A text for each picture in an executed notebook, for those who cannot see it."""

import re
from html import escape
from typing import Any

_BARE = re.compile(r"<img(?![^>]*\balt=)", re.IGNORECASE)


def add_alternatives(document: Any) -> None:
    """Give the pictures in a notebook's outputs a text, where their notebook gave none.

    A figure has said what it is (see `describing`); of another object that is shown as a picture it
    is told what it is and below which heading.
    """
    heading = ""
    for cell in document.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^#+\s+(.+)$", cell.source, re.MULTILINE)
            heading = found[-1].strip() if found else heading
        for output in cell.get("outputs", []):
            if "data" in output:
                _describe(output, heading)


def _describe(output: Any, heading: str) -> None:
    said = str(output.data.get("text/plain", "")).strip()
    if not said or said.startswith("<"):  # an object's address says nothing
        said = re.split(r" at 0x|\s*>", said.removeprefix("<"))[0] or "Picture"
        said = f"{said}, in “{heading}”" if heading else said
    for kind in [kind for kind in output.data if kind.startswith("image/")]:
        metadata = output.metadata.setdefault(kind, {})
        if isinstance(metadata, dict):
            metadata.setdefault("alt", output.metadata.get("alt", said))
    if "<img" in (html := "".join(output.data.get("text/html", ""))):
        output.data["text/html"] = _BARE.sub(lambda _: f'<img alt="{escape(said)}"', html)
