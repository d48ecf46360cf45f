"""One look for every figure, and a caption that says what is in it."""

import os
import platform
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import xarray as xr
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

# Paul Tol's "muted" scheme, whose nine colours stay apart under the common kinds of colour
# blindness (SRON/EPS technical note 09-002), in an order that keeps look-alikes apart; and a grey
# so dark that it is not taken for the wine red by those who see no green.
PALETTE = (
    "#cc6677",
    "#332288",
    "#ddcc77",
    "#117733",
    "#88ccee",
    "#882255",
    "#44aa99",
    "#999933",
    "#aa4499",
    "#222222",
)
# Each of them lighter, or darker where it is light already: for classes 11 to 20, which are drawn
# as triangles as well.
_SECOND = (
    "#e5a9b1",
    "#9990c3",
    "#857a47",
    "#88bb99",
    "#4a7a94",
    "#c98aac",
    "#a1d9d0",
    "#5c5c14",
    "#d9a6d0",
    "#7a7a7a",
)
OTHERS = "#b0b0b0"
UNLABELLED = "#d8d8d8"
#: Inches that a figure is wide at least, so that its title and its caption have room.
_NARROWEST = 4.5
#: Characters of a caption that fit on an inch.
_CAPTION_DENSITY = 17
_STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "font.size": 10,
    "image.cmap": "gray",
    "legend.frameon": False,
    # Names of classes may hold dollars.
    "text.parse_math": False,
}
#: Fonts for Chinese, Japanese and Korean, of which those that are installed are used.
_FONTS = (
    "Noto Sans CJK",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans",
    "WenQuanYi",
    "Droid Sans Fallback",
    "PingFang",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "NanumGothic",
    "IPAGothic",
    "Arial Unicode MS",
)


@lru_cache
def _families() -> tuple[str, ...]:
    """The usual font, and those behind it for what it lacks."""
    installed = sorted({font.name for font in font_manager.fontManager.ttflist})
    return ("sans-serif", *(name for name in installed if name.startswith(_FONTS)))


def missing_characters(text: str) -> str:
    """The characters for which no font of the figures has a picture, each once.

    Examples
    --------
    >>> missing_characters("cat")
    ''
    """
    known: set[int] = set()
    for family in _families():
        path = font_manager.findfont(font_manager.FontProperties(family=[family]))
        known |= font_manager.get_font(path).get_charmap().keys()
    return "".join(sorted({one for one in text if ord(one) not in known and one.isprintable()}))


def colors(n: int) -> list[str]:
    """`n` colours, the palette and its tints, repeated when they run out.

    Examples
    --------
    >>> colors(2)
    ['#cc6677', '#332288']
    """
    both = PALETTE + _SECOND
    return [both[i % len(both)] for i in range(n)]


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the workbench's style; leave matplotlib's settings, and no half-drawn figure."""
    before = set(plt.get_fignums())
    with mpl.rc_context({**_STYLE, "font.family": list(_families())}):
        try:
            yield
        except BaseException:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
            raise


def caption(ds: xr.Dataset, n: int | None = None, **facts: object) -> str:
    """One line that says what a figure was made of: count, data, where from, facts, machine.

    Parameters
    ----------
    ds
        The image dataset; its ``attrs`` name the data and the source.
    n
        How many samples the figure shows, when that is fewer than the dataset holds.
    **facts
        Whatever else the reader must know, such as ``seed=51`` or ``method="umap"``.

    Returns
    -------
    str
        A stand-in is named first and in capitals.

    Examples
    --------
    >>> import numpy as np
    >>> ds = xr.Dataset({"image": (("sample",), np.zeros(3))}, attrs={"name": "mnist"})
    >>> caption(ds, seed=1).startswith("n = 3 · mnist · seed 1")
    True
    """
    total = ds.sizes["sample"]
    parts = [f"n = {total:,}" if n in (None, total) else f"n = {n:,} of {total:,}"]
    parts.append(str(ds.attrs.get("name", "unnamed data")))
    if source := ds.attrs.get("source"):
        parts.append(f"from {source}")
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in facts.items()]
    parts.append(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    if stand_in_for := ds.attrs.get("stand_in_for"):
        parts.insert(0, f"STAND-IN, not {stand_in_for}")
    return " · ".join(parts)


def panels(
    rows: int, columns: int, width: float, height: float, title: str = ""
) -> tuple[Figure, NDArray[Any]]:
    """A figure of so many inches with a grid of axes (rows, columns) for images, without frames."""
    width = max(width, _NARROWEST)
    fig, axes = plt.subplots(
        rows, columns, figsize=(width, height), squeeze=False, layout="constrained"
    )
    for ax in axes.flat:
        ax.set_axis_off()
    fig.suptitle(fitted(title, 0.95 * width, 12), x=0.01, ha="left")
    return fig, axes


def fitted(text: str, inches: float, size: float = 8.0, lines: int = 2) -> str:
    """A text in lines that are so wide at most, and cut with an ellipsis where there are too many.

    Examples
    --------
    >>> fitted("brick", 1.0)
    'brick'
    >>> fitted("a brick wall that is seen from the south", 1.0).splitlines()
    ['a brick wall that', 'is seen from the…']
    """
    room = 72 * inches
    shown = []
    for line in text.splitlines():
        wide = TextPath((0, 0), line, size=size).get_extents().width if line.strip() else 0.0
        if wide <= room:
            shown.append(line)
            continue
        characters = max(2, int(0.95 * len(line) * room / wide))
        shown += textwrap.wrap(line, characters, max_lines=lines, placeholder="…")
    return "\n".join(shown)


def finish(fig: Figure, text: str) -> Figure:
    """Write the caption below the figure, and take it from pyplot so that it shows once."""
    color = "#b00020" if text.startswith("STAND-IN") else "#555555"
    lines = _lines(text, int(fig.get_figwidth() * _CAPTION_DENSITY))
    written = "".join(part.get_text() for part in fig.findobj(Text))
    if unknown := missing_characters(written):
        warnings.warn(
            f"no font for {len(unknown)} characters, such as {unknown[:5]!r}: install one, such as "
            "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk), and start Python anew",
            stacklevel=3,
        )
    fig.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color=color)
    plt.close(fig)
    return fig


def _lines(text: str, width: int) -> list[str]:
    """Break a caption between its parts where the figure is too narrow for it."""
    lines: list[str] = []
    for part in text.split(" · "):
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines
