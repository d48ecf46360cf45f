"""An IPython extension, by which a figure's picture carries in words what it shows.

A notebook keeps a matplotlib figure as a picture. In a batch run the output's metadata hold the
figure's titles and its caption besides, as the alternative text that nbconvert asks for, so that
who cannot see the picture can read what it is.
"""

import sys
from typing import Any

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
