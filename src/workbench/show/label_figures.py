"""Figures of a label review."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from workbench.show.style import colors, finish, styled


def errors_left(
    progress: pd.DataFrame,
    total: int,
    *,
    truth: ArrayLike | None = None,
    target: float | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """How many wrong labels are left as a review goes on, with the interval.

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
        x, (band, line, *_) = progress["reviewed"], colors(5)
        ax.fill_between(x, progress["low"] / total, progress["high"] / total, color=band,
                        alpha=0.25, linewidth=0, label="90 % interval")  # fmt: skip
        ax.plot(x, progress["left"] / total, color=band, label="estimate")
        if truth is not None:
            ax.plot(x, pd.Series(truth) / total, color=line, ls="--", label="truth")
        if target is not None:
            ax.axhline(target, color="#444444", lw=0.8)
            ax.annotate(f"stop below {target:.0%}", (1, target), (0, 3), ha="right",
                        xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
        # The first pages know nothing; to show them whole would flatten all that follows.
        ax.set_ylim(0, min(1.0, 4 * float(progress["left"].max()) / total or 1.0))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="labels reviewed", ylabel="wrong labels left", title=title)
        ax.legend()
        return finish(fig, caption)
