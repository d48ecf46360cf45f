"""Static figures: sheets of samples, pairs of them, and curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from workbench._images import picture
from workbench.show.style import PALETTE, caption, colors, finish, fitted, panels, styled

#: The white between the two images of a pair, as a share of their width.
_PAIR_GAP = 0.08


def samples(
    ds: xr.Dataset,
    titles: Sequence[str] | None = None,
    *,
    n: int = 40,
    columns: int = 10,
    seed: int = 0,
    title: str = "",
) -> Figure:
    """A sheet of images with a title below each.

    Parameters
    ----------
    ds
        An image dataset. With more than `n` samples, `n` of them are drawn at random and shown
        in the dataset's order.
    titles
        One text for each sample of `ds`; by default the name of its class.
    n
        At most so many images.
    columns
        Images in a row.
    seed
        Fixes the draw.
    title
        Above the sheet.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        `ds` is empty, or the number of titles is not the number of samples.
    """
    total = ds.sizes["sample"]
    if total == 0:
        raise ValueError("there is nothing to show: the dataset holds no sample")
    if titles is not None and len(titles) != total:
        raise ValueError(f"{len(titles)} titles for {total} samples")
    texts = class_names(ds) if titles is None else list(titles)
    drawn = np.random.default_rng(seed).choice(total, size=min(n, total), replace=False)
    chosen = np.sort(drawn)
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    with styled():
        fitting = [fitted(texts[i], 0.95) for i in chosen]
        height = rows * (1.4 if any("\n" in text for text in fitting) else 1.25)
        fig, axes = panels(rows, columns, columns, height, title)
        images = ds["image"].isel(sample=chosen).values
        for ax, image, text in zip(axes.flat, images, fitting, strict=False):
            ax.imshow(picture(image))
            ax.set_title(text, fontsize=8, loc="center", pad=2)
        facts = {"seed": seed} if len(chosen) < total else {}
        return finish(fig, caption(ds, n=len(chosen), **facts))


def pairs(
    ds: xr.Dataset,
    pairs: ArrayLike,
    titles: Sequence[str] | None = None,
    *,
    n: int = 20,
    columns: int = 5,
    title: str = "",
) -> Figure:
    """Pairs of images side by side, with a text under each pair.

    Parameters
    ----------
    ds
        An image dataset.
    pairs
        (pair, 2): positions along ``sample``, such as those of images that a map puts on one spot.
    titles
        One text for each pair; by default the names of both classes.
    n
        The first so many pairs are drawn.
    columns
        Pairs in a row.
    title
        Above the sheet.

    Raises
    ------
    ValueError
        There is no pair, a position is not one of `ds`, or the number of titles is not that of
        the pairs.
    """
    both = _positions(ds, pairs)
    if titles is not None and len(titles) != len(both):
        raise ValueError(f"{len(titles)} titles for {len(both)} pairs")
    shown = both[:n]
    if titles is None:
        names = class_names(ds)
        titles = [" · ".join(filter(None, (names[a], names[b]))) for a, b in shown]
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    with styled():
        fig, axes = panels(rows, columns, 1.9 * columns, 1.45 * rows + 0.5, title)
        left, right = (ds["image"].isel(sample=shown[:, side]).values for side in (0, 1))
        for ax, one, other, text in zip(axes.flat, left, right, titles, strict=False):
            ax.imshow(_side_by_side(one, other))
            below = {"fontsize": 8, "ha": "center", "va": "top", "transform": ax.transAxes}
            ax.text(0.5, -0.04, fitted(text, 1.8), **below)
        facts: dict[str, Any] = {}
        if len(shown) < len(both):
            facts["pairs"] = f"{len(shown)} of {len(both):,}"
        return finish(fig, caption(ds, **facts))


def _positions(ds: xr.Dataset, pairs: ArrayLike) -> np.ndarray:
    """Check that `pairs` are pairs of positions."""
    both = np.asarray(pairs)
    if both.ndim != 2 or both.shape[1] != 2 or both.dtype.kind not in "iu":
        raise ValueError(f"pairs are whole numbers (pair, 2); got {both.dtype} of {both.shape}")
    if len(both) == 0:
        raise ValueError("there is nothing to show: no pair was given")
    total = ds.sizes["sample"]
    if not 0 <= both.min() <= both.max() < total:
        raise ValueError(f"pairs run from {both.min()} to {both.max()}; the dataset has {total}")
    return both


def _side_by_side(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two pictures of one size with white between them."""
    left, right = picture(one), picture(other)
    gap = max(1, round(_PAIR_GAP * left.shape[1]))
    white = np.full((left.shape[0], gap, 3), 255, dtype=np.uint8)
    return np.concatenate([left, white, right], axis=1)


def curve(
    y: ArrayLike | Mapping[str, ArrayLike],
    *,
    x: ArrayLike | None = None,
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    caption: str = "",
) -> Figure:
    """A line, or several with a legend: a loss over its epochs, a score over a parameter.

    Parameters
    ----------
    y
        The values in order, or name to values.
    x
        Where they lie; by default 1, 2, 3, ...
    bands
        Name of a line to its lower and upper limits, such as those of an interval.
    xlabel, ylabel, title
        What the axes and the figure say.
    caption
        Below the figure, as :func:`workbench.show.caption` writes it.
    """
    lines = y if isinstance(y, Mapping) else {"": y}
    with styled():
        fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
        for (name, values), color in zip(lines.items(), colors(len(lines)), strict=True):
            heights = np.asarray(values, dtype=float)
            at = np.arange(1, len(heights) + 1) if x is None else np.asarray(x)
            ax.plot(at, heights, color=color, label=name or None, marker="o", markersize=3)
            if bands and name in bands:
                low, high = (np.asarray(limit, dtype=float) for limit in bands[name])
                ax.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if x is None:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            if ax.dataLim.width == 0:  # one value: no range to choose whole numbers from
                ax.set_xticks([1])
        if any(lines):
            # beside the axes: inside, it would lie on the lines
            ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return finish(fig, caption)


def class_names(ds: xr.Dataset) -> list[str]:
    """The name of every sample's class, or of all its classes; empty where it has none."""
    if "labels" in ds:
        every = np.array([str(name) for name in ds["class"].values])
        rows = ds["labels"].transpose("sample", "class").values.astype(bool)
        return [", ".join(every[row]) for row in rows]
    if "label" not in ds:
        return [""] * ds.sizes["sample"]
    names = [*(str(name) for name in ds["class"].values), ""]
    return [names[number] for number in ds["label"].values]


def rates(table: pd.DataFrame, *, title: str = "", caption: str = "") -> Figure:
    """Bars of images a second, a stage each, on a logarithmic scale; the bottleneck in colour.

    Parameters
    ----------
    table
        What :func:`workbench.store.budget` returns.
    title, caption
        Above and below the figure.

    Raises
    ------
    ValueError
        The table is empty.
    """
    if table.empty:
        raise ValueError("there is nothing to show: nothing was measured")
    with styled():
        fig, ax = plt.subplots(figsize=(7, 0.5 * len(table) + 1.2), layout="constrained")
        slow = [stage == table.attrs.get("bottleneck") for stage in table.index]
        shades = [PALETTE[1] if is_slowest else PALETTE[0] for is_slowest in slow]
        bars = ax.barh(list(table.index), table["images_per_s"], color=shades)
        texts = [
            f"{row.images_per_s:,.3g}/s, {row.mib_in_per_s:,.3g} MiB/s in, "
            f"{row.mib_out_per_s:,.3g} out{', the bottleneck' if is_slowest else ''}"
            for row, is_slowest in zip(table.itertuples(), slow, strict=True)
        ]
        ax.bar_label(bars, texts, padding=4, fontsize=8)
        ax.set(
            xscale="log", xlabel="images a second", xlim=(None, table["images_per_s"].max() * 60)
        )
        ax.invert_yaxis()
        ax.set_title(title, loc="left")
        return finish(fig, caption)
