"""Figures of a label review: errors left, spread of scores, 2 × 2 tables of a multi-label joint."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from workbench.show.style import OTHERS, PALETTE, colors, finish, styled


def errors_left(
    progress: pd.DataFrame,
    total: int,
    *,
    truth: ArrayLike | None = None,
    target: float | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """How many wrong labels are left as a review goes on, with the whole interval.

    The line of the estimate begins where the audit draws carry one.

    Parameters
    ----------
    progress
        What :func:`workbench.labels.review_batch` returned: ``reviewed``, ``left``, ``low`` and
        ``high`` of each page.
    total
        Samples in the dataset.
    truth
        The errors that were in fact left after each page, where they are known.
    target
        The share of the dataset at which to stop, drawn as a line.
    title, caption
        Above and below the figure.

    Raises
    ------
    ValueError
        There is no page to draw.

    Examples
    --------
    >>> page = pd.DataFrame({"reviewed": [6], "left": [9.0], "low": [1], "high": [40]})
    >>> errors_left(page, total=100).axes[0].get_xlabel()
    'labels reviewed'
    """
    if progress.empty:
        raise ValueError("there is nothing to show: no page was reviewed")
    with styled():
        fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
        x = progress["reviewed"]
        band, line, *_ = colors(5)
        low = progress["low"] / total
        high = progress["high"] / total
        ax.fill_between(x, low, high, color=band, alpha=0.25, lw=0, label="90 % interval")
        ax.plot(x, progress["left"] / total, color=band, label="estimate")
        if truth is not None:
            ax.plot(x, pd.Series(truth) / total, color=line, ls="--", label="truth")
        if target is not None:
            ax.axhline(target, color="#444444", lw=0.8)
            ax.annotate(
                f"stop below {target:.0%}",
                (1, target),
                (0, 3),
                ha="right",
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
            )
        ax.set_ylim(0, min(1.0, 1.05 * float(high.max()) or 1.0))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="labels reviewed", ylabel="wrong labels left", title=title)
        ax.legend()
        return finish(fig, caption)


def distributions(
    scores: Mapping[str, ArrayLike],
    groups: ArrayLike,
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Each score as a histogram of all samples, and below it a box for each group of them.

    Parameters
    ----------
    scores
        Name to values (sample,).
    groups
        What each sample is, text (sample,); groups are drawn in the order in which they appear
        when sorted by size, the largest first.
    title
        Above the figure.
    caption
        Below it, as :func:`workbench.show.caption` writes it.

    Raises
    ------
    ValueError
        There is no score, or one has another length than `groups`.
    """
    group = np.asarray(groups).astype(str)
    values = {name: np.asarray(score, dtype=float) for name, score in scores.items()}
    odd = [name for name, score in values.items() if score.shape != group.shape]
    if odd or not values:
        raise ValueError(f"scores {odd or 'none'} do not match {len(group)} groups")
    names, sizes = np.unique(group, return_counts=True)
    names = names[np.argsort(-sizes, kind="stable")]
    with styled():
        fig, axes = plt.subplots(
            2,
            len(values),
            figsize=(4 * len(values), 4.6),
            sharex="col",
            squeeze=False,
            layout="constrained",
            height_ratios=(3, max(1.2, 0.45 * len(names))),
        )
        for column, (name, score) in enumerate(values.items()):
            top, bottom = axes[:, column]
            top.hist(score, bins=40, color=OTHERS)
            top.set(title=name, ylabel="" if column else "samples")
            boxes = [score[group == member] for member in names]
            bottom.boxplot(
                boxes,
                orientation="horizontal",
                widths=0.6,
                showfliers=False,
                medianprops={"color": PALETTE[0], "linewidth": 2},
            )
            bottom.invert_yaxis()
            bottom.set_yticks(range(1, len(names) + 1), [] if column else list(names))
        fig.suptitle(title, x=0.01, ha="left")
        return finish(fig, caption)


def joints(joint: xr.DataArray, *, title: str = "", caption: str = "") -> Figure:
    """A 2 × 2 table for each class: given or not, against truly there or not.

    Parameters
    ----------
    joint
        (class, given, true), counts of samples.
    title, caption
        Above and below the figure.
    """
    names = [str(name) for name in joint["class"].values]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with styled():
        fig, axes = plt.subplots(
            rows,
            columns,
            figsize=(2.3 * columns, 2.1 * rows + 0.5),
            squeeze=False,
            layout="constrained",
        )
        for ax in axes.flat[len(names) :]:
            ax.set_axis_off()
        for k, (ax, name) in enumerate(zip(axes.flat, names, strict=False)):
            table = joint.isel({"class": k}).transpose("given", "true").values
            share = table / table.sum(axis=1, keepdims=True).clip(1)
            ax.imshow(share, cmap="Purples", vmin=0, vmax=1)
            for (given, true), count in np.ndenumerate(table):
                dark = share[given, true] > 0.6
                color = "white" if dark else "black"
                text = f"{count:,.0f}"
                ax.text(true, given, text, ha="center", va="center", fontsize=9, color=color)
            ax.set_title(name, fontsize=10, loc="center")
            ax.set_xticks([0, 1], ["absent", "there"], fontsize=8)
            labels = ["not given", "given"] if k % columns == 0 else ["", ""]
            ax.set_yticks([0, 1], labels, fontsize=8)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
        fig.suptitle(title, x=0.01, ha="left")
        return finish(fig, caption)


def cartography(
    scores: xr.Dataset, groups: ArrayLike | None = None, *, title: str = "", caption: str = ""
) -> Figure:
    """Dataset cartography: how sure training was of each label, over how much that changed.

    Easy samples lie at the top left, ambiguous ones at the right, hard and mislabelled ones at
    the bottom left (Swayamdipta et al. 2020, arXiv:2009.10795, Figure 1).

    Parameters
    ----------
    scores
        ``confidence`` and ``variability`` (sample,): :func:`workbench.dynamics.cartography`.
    groups
        What each sample is, text (sample,), for the colours.
    title, caption
        Above and below the figure.
    """
    x, y = scores["variability"].values, scores["confidence"].values
    group = np.full(len(x), "") if groups is None else np.asarray(groups).astype(str)
    names, counts = np.unique(group, return_counts=True)
    with styled():
        fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
        # the largest group first, so that it hides none
        order = names[np.argsort(-counts, kind="stable")]
        for name, color in zip(order, (OTHERS, *PALETTE * len(order)), strict=False):
            rows = group == name
            text = f"{name} ({rows.sum():,})" if name else None
            ax.scatter(x[rows], y[rows], s=5, color=color, label=text, alpha=0.6, linewidth=0)
        ax.set(xlabel="variability", ylabel="confidence", title=title, ylim=(-0.02, 1.02))
        if any(names):
            ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), markerscale=3)
        return finish(fig, caption)
