"""Alternative texts for the pictures in an executed notebook.

A notebook keeps a matplotlib figure as a picture. In a batch run, where this module is loaded as an
IPython extension, the output's metadata hold its titles and its caption besides, as the text that
nbconvert asks for, so that who cannot see the picture can read what it is.
"""

import re
import sys
from html import escape
from typing import Any

_BARE = re.compile(r"<img(?![^>]*\balt=)", re.IGNORECASE)


def add_alternatives(document: Any) -> None:
    """Give the pictures in a notebook's outputs a text, where their notebook gave none.

    A figure has said what it is (see `describe`); of another object that is shown as a picture it
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


_MOST = 8


def load_ipython_extension(shell: Any) -> None:
    """Describe figures from now on."""
    formatter = shell.display_formatter
    plain_format = formatter.format

    # matplotlib's inline backend replaces the formatters of single types, so that one of ours for
    # figures would be gone as soon as pyplot is imported.
    def described(shown: Any, include: Any = None, exclude: Any = None) -> Any:
        data, metadata = plain_format(shown, include, exclude)
        matplotlib = sys.modules.get("matplotlib.figure")
        if matplotlib and isinstance(shown, matplotlib.Figure) and (words := describe(shown)):
            for kind in data:
                if kind.startswith("image/"):
                    metadata[kind] = {"alt": words, **metadata.get(kind, {})}
        return data, metadata

    formatter.format = described


def describe(figure: Any) -> str:
    """Return a matplotlib figure's titles, axes and caption as a sentence; empty if it has none.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> axes = figure.subplots()
    >>> _ = axes.set(title="Loss", xlabel="epoch")
    >>> describe(figure)
    'Figure: Loss; across: epoch'
    """
    panels = [panel for panel in figure.get_axes() if panel.get_visible()]
    titles = _several(panel.get_title() or panel.get_title("left") for panel in panels)
    across = _several(panel.get_xlabel() for panel in panels if panel.axison)
    up = _several(panel.get_ylabel() for panel in panels if panel.axison)
    # A title stands in the upper half of a figure, its caption in the lower.
    texts = sorted(figure.texts, key=lambda text: -float(text.get_position()[1]))
    above = [text.get_text() for text in texts if text.get_position()[1] > 0.5]
    parts = [*above, titles]
    parts += [f"{name}: {words}" for name, words in (("across", across), ("up", up)) if words]
    parts += [text.get_text() for text in texts[len(above) :]]
    said = dict.fromkeys(" ".join(part.split()) for part in parts)
    return f"Figure: {'; '.join(filter(None, said))}" if any(said) else ""


def _several(words: Any) -> str:
    """Return different words, the first of them if they are many."""
    different = list(dict.fromkeys(filter(None, words)))
    more = f" and {len(different) - _MOST} more" if len(different) > _MOST else ""
    return ", ".join(different[:_MOST]) + more
