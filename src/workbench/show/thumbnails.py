"""HTML of small images and of tables, for widgets."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

import pandas as pd

_SHOWN = 56
_CELL = "text-align:left;padding:0 12px 0 0;line-height:1.4"


def img(uri: str, size: int = _SHOWN) -> str:
    """An ``img`` of fixed height whose pixels stay sharp when it is enlarged."""
    return (
        f'<img src="{uri}" style="height:{size}px;max-width:{2 * size}px;object-fit:contain;'
        'image-rendering:pixelated;display:block;margin:auto">'
    )


def gallery(uris: Iterable[str], captions: Iterable[str]) -> str:
    """Thumbnails side by side, each with a line below it and the same line on hovering."""
    figures = (
        f'<figure style="margin:0;width:{_SHOWN + 8}px" title="{escape(text)}">{img(uri)}'
        '<figcaption style="font-size:10px;line-height:1.2;text-align:center;overflow:hidden;'
        f'text-overflow:ellipsis;white-space:nowrap">{escape(text)}</figcaption></figure>'
        for uri, text in zip(uris, captions, strict=True)
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px">{"".join(figures)}</div>'


def chips(entries: Sequence[tuple[str, str]]) -> str:
    """A legend in one paragraph: (name, colour)."""
    # The white ring is for the dark colours on a dark theme.
    dot = "display:inline-block;width:10px;height:10px;border-radius:50%;border:1px solid white"
    return " ".join(
        '<span style="white-space:nowrap;margin-right:10px">'
        f'<span style="{dot};background:{color}"></span> {escape(name)}</span>'
        for name, color in entries
    )


def gradient(colors: Sequence[str]) -> str:
    """A bar of colours, the first one left."""
    return (
        '<span style="display:inline-block;width:160px;height:10px;'
        f'background:linear-gradient(to right,{",".join(colors)})"></span>'
    )


def table(frame: pd.DataFrame, most: int) -> str:
    """A folded table with the first `most` rows, and all of it as a CSV file to download."""
    csv = b64encode(frame.to_csv().encode()).decode("ascii")
    first = frame.iloc[:most].reset_index()
    rows = first.to_html(index=False, border=0, na_rep="", float_format="{:.2f}".format)
    rows = rows.replace("<th>", f'<th style="{_CELL}">').replace("<td>", f'<td style="{_CELL}">')
    listed = "" if len(frame) <= most else f", the first {most:,} of {len(frame):,}"
    return (
        f'<details><summary style="cursor:pointer">Table of ids{listed}</summary>'
        f'<a download="selection.csv" href="data:text/csv;base64,{csv}" '
        'style="text-decoration:underline">Download all of it as CSV</a>'
        f'<div style="max-height:220px;overflow:auto">{rows}</div></details>'
    )
