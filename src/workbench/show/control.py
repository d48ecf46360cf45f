"""Figures beside their control: what does not beat it is grey and says so."""

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from workbench._extras import need
from workbench.show.samples import curve
from workbench.show.style import OTHERS, finish, styled


def control(
    fig: Figure,
    values: Mapping[str, ArrayLike],
    chance: ArrayLike | Mapping[str, ArrayLike],
    *,
    name: str = "chance",
    higher: bool = True,
) -> Figure:
    """Write below a figure which methods beat their control, and grey it where none does.

    A method beats its control where the difference of the means is above 0 by a one-sided Welch
    test at 5 %; a single value, where it is above what one more draw of the control would reach.

    Parameters
    ----------
    fig
        Any figure of this package.
    values
        Method to its measure, over seeds, shuffles or images.
    chance
        The same measure of the control, at least two draws; or one such for each method.
    name
        Of the control, as in "not better than random".
    higher
        Whether a larger measure is better.

    Returns
    -------
    matplotlib.figure.Figure
        The same figure.

    Raises
    ------
    ValueError
        A control has fewer than two draws, or there is no value.

    Examples
    --------
    >>> fig = control(curve([1, 2]), {"ours": [.91, .92, .93]}, [.50, .52, .51], name="random")
    >>> fig.get_supxlabel().splitlines()
    ['better than random: ours (0.92 against 0.51 ± 0.01)']
    """
    better, worse = list[str](), list[str]()
    for key, own in values.items():
        draws = _draws(chance[key] if isinstance(chance, Mapping) else chance)
        holds = beats(own, draws, higher=higher)
        told = f"{_draws(own).mean():.3g} against {draws.mean():.3g} ± {draws.std(ddof=1):.2g}"
        (better if holds else worse).append(f"{key} ({told})")
    return _written(fig, better, worse, name)


def control_curve(
    values: Mapping[str, ArrayLike],
    chance: ArrayLike,
    x: ArrayLike,
    *,
    name: str = "random",
    higher: bool = True,
    **options: str,
) -> Figure:
    """Lines of methods over the spread of their control, hollow and grey where they lose to it.

    The same as :func:`control` with measures (seed, x), and with the texts of :func:`curve` as
    `options`. The control is drawn as its mean in a band of two standard deviations.
    """
    by_lot, at = np.asarray(chance, dtype=float), np.asarray(x)
    mean, spread = by_lot.mean(axis=0), 2 * by_lot.std(axis=0, ddof=1)
    means = {key: np.asarray(runs, dtype=float).mean(axis=0) for key, runs in values.items()}
    bands = {name: (mean - spread, mean + spread)}
    fig = curve({**means, name: mean}, x=at, bands=bands, **options)
    ax, better, worse = fig.axes[0], list[str](), list[str]()
    for key, line in zip(means, ax.lines[:], strict=False):
        runs = zip(np.asarray(values[key], dtype=float).T, by_lot.T, strict=True)
        wins = np.array([beats(own, draws, higher=higher) for own, draws in runs])
        if not wins.any():
            line.set_color(OTHERS)
        ax.plot(at[~wins], means[key][~wins], "o", mfc="white", mec=OTHERS, ms=5)
        for where, group in ((wins, better), (~wins, worse)):
            if where.any():
                group.append(f"{key} at {', '.join(f'{value:g}' for value in at[where])}")
    return _written(fig, better, worse, name)


def beats(values: ArrayLike, chance: ArrayLike, *, higher: bool = True) -> bool:
    """Whether a measure is better than its control, as :func:`control` decides it.

    Examples
    --------
    >>> beats([.91, .92, .93], [.50, .52, .51]), beats([.51, .49, .52], [.50, .52, .51])
    (True, False)
    """
    a, b = _draws(values), _draws(chance)
    if len(b) < 2 or not len(a):
        raise ValueError(
            f"{len(a)} values against {len(b)} draws of the control: it takes one and two at least"
        )
    lead = (a.mean() - b.mean()) * (1 if higher else -1)
    if np.ptp(a) == np.ptp(b) == 0:
        return bool(lead > 0)
    stats = need("scipy.stats", extra="images")
    if len(a) > 1:
        side = "greater" if higher else "less"
        return bool(stats.ttest_ind(a, b, equal_var=False, alternative=side).pvalue < 0.05)
    error = b.std(ddof=1) * np.sqrt(1 + 1 / len(b))
    return bool(lead > stats.t.ppf(0.95, len(b) - 1) * error)


def _draws(values: ArrayLike) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(values, dtype=float)).ravel()


def _written(fig: Figure, better: list[str], worse: list[str], name: str) -> Figure:
    """The verdict below the figure; all of it in pale grey where nothing is better."""
    parts = [fig.get_supxlabel().replace("\n", " · ")]
    parts += [f"better than {name}: {it}" for it in better]
    parts += [f"NOT better than {name}: {it}" for it in worse]
    with styled():
        finish(fig, " · ".join(filter(None, parts)))
        if better:
            return fig
        canvas = FigureCanvasAgg(fig)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        fig.clear()
        fig.set_layout_engine("none")
        ax = fig.add_axes((0, 0, 1, 1))
        ax.imshow(
            0.5 + pixels[..., :3].mean(axis=2) / 510, cmap="gray", vmin=0, vmax=1, aspect="auto"
        )
        ax.set_axis_off()
        text = f"Not better than {name}"
        fig.text(0.5, 0.5, text, ha="center", fontsize=14, backgroundcolor="white")
        return fig
