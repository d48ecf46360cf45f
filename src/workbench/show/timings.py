"""Figures of what was measured: times on a logarithmic scale, memory under its cap."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from workbench.show.style import colors, finish, styled


def durations(table: pd.DataFrame, *, title: str = "", caption: str = "") -> Figure:
    """Bars of seconds for each way and size, on a logarithmic scale.

    Parameters
    ----------
    table
        ``way``, ``regions``, ``seconds``, and ``measured``, on how many regions: bars of what was
        measured on fewer and multiplied up are hatched. ``written``, where there, puts the ways
        that write into a panel of their own.
    title, caption
        Above and below the figure.

    Raises
    ------
    ValueError
        The table is empty.
    """
    _check_measured(table)
    written = table["written"] if "written" in table else pd.Series(False, table.index)
    panels = [part for part in (table[~written], table[written]) if len(part)]
    with styled():
        fig, axes = plt.subplots(
            1, len(panels), figsize=(10, 4.2), layout="constrained", sharey=True, squeeze=False,
            width_ratios=[part["way"].nunique() for part in panels],
        )  # fmt: skip
        names = [["into memory"], ["into memory", "written to disk"]][len(panels) - 1]
        for ax, part, name in zip(axes.flat, panels, names, strict=True):
            _bars(ax, part)
            ax.set_title(name, fontsize=10)
        axes.flat[0].set(ylabel="seconds", yscale="log")
        fig.suptitle(title, x=0.01, ha="left")
        sizes = sorted(table["regions"].unique())
        handles = [
            Patch(facecolor=color, label=f"{size:,} regions")
            for size, color in zip(sizes, colors(len(sizes)), strict=True)
        ]
        if (table["measured"] < table["regions"]).any():
            handles.append(Patch(facecolor="white", edgecolor="black", hatch="////",
                                 label="multiplied up from a part"))  # fmt: skip
        fig.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=9)
        return finish(fig, caption)


def _check_measured(table: pd.DataFrame) -> None:
    if table.empty:
        raise ValueError("there is nothing to show: nothing was measured")


def _bars(ax: Axes, table: pd.DataFrame) -> None:
    ways, sizes = list(dict.fromkeys(table["way"])), sorted(table["regions"].unique())
    width = 0.8 / len(sizes)
    for i, (size, color) in enumerate(zip(sizes, colors(len(sizes)), strict=True)):
        rows = table[table["regions"] == size].set_index("way").loc[ways]
        at = np.arange(len(ways)) + (i - (len(sizes) - 1) / 2) * width
        hatch = ["////" if part else "" for part in rows["measured"] < rows["regions"]]
        bars = ax.bar(at, rows["seconds"], width, color=color, hatch=hatch, edgecolor="white")
        ax.bar_label(bars, [brief(s) for s in rows["seconds"]], fontsize=7, padding=1)
    ax.set_xticks(range(len(ways)), [way.replace(", ", ",\n") for way in ways], fontsize=8)
    ax.margins(y=0.12)


def brief(seconds: float) -> str:
    """Seconds in few characters.

    Examples
    --------
    >>> brief(0.0312), brief(4.27), brief(812.4), brief(20_000)
    ('0.031 s', '4.3 s', '812 s', '5.6 h')
    """
    if seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:,.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def growth(table: pd.DataFrame, *, title: str = "", caption: str = "") -> Figure:
    """Seconds against the number of points, a line for each way, both scales logarithmic.

    Parameters
    ----------
    table
        ``way``, ``points``, ``seconds`` and ``extrapolated``: such points are hollow.
    title, caption
        Above and below the figure.

    Raises
    ------
    ValueError
        The table is empty.
    """
    _check_measured(table)
    ways = list(dict.fromkeys(table["way"]))
    with styled():
        fig, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
        for way, color in zip(ways, colors(len(ways)), strict=True):
            rows = table[table["way"] == way].sort_values("points")
            ax.plot(rows["points"], rows["seconds"], color=color, label=way)
            for part, face in ((~rows["extrapolated"], color), (rows["extrapolated"], "white")):
                ax.scatter(rows["points"][part], rows["seconds"][part], color=color,
                           facecolor=face, s=28, zorder=3)  # fmt: skip
        if table["extrapolated"].any():
            ax.scatter([], [], edgecolor="black", facecolor="white", label="multiplied up")
        ax.set(xscale="log", yscale="log", xlabel="points", ylabel="seconds")
        sizes = sorted(table["points"].unique())
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()
        fig.legend(loc="outside right center", fontsize=9)
        fig.suptitle(title, x=0.01, ha="left")
        return finish(fig, caption)


def memory(table: pd.DataFrame, cap: int, *, title: str = "", caption: str = "") -> Figure:
    """Resident memory over time, and the cap that it was to keep.

    Parameters
    ----------
    table
        ``seconds`` and ``bytes``.
    cap
        In bytes.
    title, caption
        Above and below the figure.

    Raises
    ------
    ValueError
        The table is empty.
    """
    _check_measured(table)
    with styled():
        fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
        ax.fill_between(table["seconds"], table["bytes"] / 2**20, color=colors(2)[1], alpha=0.25)
        ax.plot(table["seconds"], table["bytes"] / 2**20, color=colors(2)[1])
        ax.axhline(cap / 2**20, color=colors(1)[0], linestyle="--")
        ax.annotate("cap", (1, cap / 2**20), (-4, 3), xycoords=("axes fraction", "data"),
                    textcoords="offset points", ha="right", color=colors(1)[0])  # fmt: skip
        ax.set(xlabel="seconds", ylabel="MiB above the start", ylim=(0, None), title=title)
        ax.margins(x=0)
        return finish(fig, caption)
