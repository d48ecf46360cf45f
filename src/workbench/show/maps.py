"""Static maps: the samples on a plane, one map or several side by side."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from workbench.show.coloring import Color, Group, Groups, Values, read_color, shorten
from workbench.show.drawing import (
    add_legend,
    coordinates,
    lay_thumbnails,
    legend_handles,
    ring,
)
from workbench.show.map_axes import draw_map, grid
from workbench.show.style import UNLABELLED, caption, colors, finish, styled


def map(  # noqa: A001 - the name that design and users know
    ds: xr.Dataset,
    xy: xr.DataArray,
    color: Color = "label",
    *,
    images: bool = False,
    mark: xr.DataArray | None = None,
    title: str = "",
) -> Figure:
    """The samples on a plane, coloured by class.

    Parameters
    ----------
    ds
        The image dataset.
    xy
        (sample, axis): what :func:`workbench.embeddings.project` returned for it.
    color
        A variable of `ds`, or an array (sample,). Integers are class numbers (-1, no label, is
        grey), named by the array's ``attrs["classes"]`` or else by the dataset's ``class``; text
        and bool are categories too. Of more than 20 classes the most frequent 20 are coloured.
        Other numbers get a colour bar. False draws every point alike, and so does the default
        where there is no label.
    images
        Lay thumbnails over the map, none nearer to another than 5 % of its range.
    mark
        bool (sample,): these points get a ring.
    title
        Above the map.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        `xy` belongs to other samples than `ds`, is not two-dimensional, or `color` is not known.
    """
    points = coordinates(ds, xy)
    coloring = read_color(ds, color)
    with styled():
        width, height = np.ptp(points, axis=0)
        fig, ax = plt.subplots(
            figsize=(9, float(np.clip(7 * height / (width or 1.0), 3, 8)) + 0.6),
            layout="constrained",
        )
        # Names and thumbnails would cover each other.
        draw_map(fig, ax, points, coloring, named=not images, alone=True)
        handles = legend_handles(coloring)
        if mark is not None:
            handles.append(ring(ax, points[np.asarray(mark.values, dtype=bool)]))
        if images:
            lay_thumbnails(ax, ds, points)
        add_legend(fig, handles, coloring.title if isinstance(coloring, Groups) else "")
        fig.suptitle(title, x=0.01, ha="left")
        facts = {key: xy.attrs[key] for key in ("method", "seed") if key in xy.attrs}
        return finish(fig, caption(ds, **facts))


def map_grid(
    ds: xr.Dataset,
    maps: Mapping[str, xr.DataArray],
    color: Color = "label",
    *,
    columns: int = 3,
    title: str = "",
) -> Figure:
    """Several maps of the same samples side by side, with one legend: a sweep.

    Parameters
    ----------
    ds
        The image dataset.
    maps
        Title to map (sample, axis). A map that knows how long it took says so after its title.
    color
        As in :func:`map`.
    columns
        Maps in a row.
    title
        Above them.

    Raises
    ------
    ValueError
        No map was given, or one belongs to other samples than `ds`.

    Examples
    --------
    >>> sweep = {f"t-SNE, perplexity {p}": project(feats, method="tsne", perplexity=p)
    ...          for p in (7, 30, 50)}  # doctest: +SKIP
    >>> show.map_grid(ds, sweep)  # doctest: +SKIP
    """
    panels = {_timed(name, xy): coordinates(ds, xy, name) for name, xy in maps.items()}
    coloring = read_color(ds, color)
    found = {xy.attrs.get("seed") for xy in maps.values()}
    facts = {"seed": found.pop()} if len(found) == 1 and None not in found else {}
    with styled():
        fig, axes = grid(len(panels), columns, title)
        for ax, (text, points) in zip(axes, panels.items(), strict=True):
            draw_map(fig, ax, points, coloring, named=True)
            ax.set_title(text, fontsize=10)
        if isinstance(coloring, Values):
            fig.colorbar(axes[0].collections[-1], ax=axes, label=coloring.title, shrink=0.6)
        title = coloring.title if isinstance(coloring, Groups) else ""
        add_legend(fig, legend_handles(coloring), title)
        return finish(fig, caption(ds, **facts))


def map_labels(
    ds: xr.Dataset,
    xy: xr.DataArray,
    *,
    n: int = 11,
    columns: int = 4,
    title: str = "",
) -> Figure:
    """One map again and again: without classes first, then once for each class.

    This is how labels that do not exclude each other are looked at: an image with several of
    them stands out in several panels.

    Parameters
    ----------
    ds
        An image dataset with ``labels`` (sample, class) or ``label`` (sample,).
    xy
        (sample, axis).
    n
        At most so many classes, the most frequent.
    columns
        Panels in a row.
    title
        Above them.

    Raises
    ------
    ValueError
        `ds` has no labels, or `xy` belongs to other samples.
    """
    points = coordinates(ds, xy)
    names, member = _members(ds)
    counts = member.sum(axis=0)
    shown = np.sort(np.argsort(-counts, kind="stable")[: min(n, int((counts > 0).sum()))])
    facts: dict[str, Any] = {}
    if len(shown) < len(names):
        facts["classes"] = f"{len(shown)} of {len(names)}"
    facts |= {key: xy.attrs[key] for key in ("method", "seed") if key in xy.attrs}
    with styled():
        fig, axes = grid(1 + len(shown), columns, title)
        panels = {f"all {len(points):,}": np.full(len(points), True)}
        panels |= {f"{shorten(names[i])} · {counts[i]:,}": member[:, i] for i in shown}
        for ax, (text, mask) in zip(axes, panels.items(), strict=True):
            against = _one_against_rest(mask)
            draw_map(fig, ax, points, against, named=False)
            ax.set_title(text, fontsize=10)
        return finish(fig, caption(ds, **facts))


def _timed(name: str, xy: xr.DataArray) -> str:
    """A map's title, and how long it took where it says so."""
    seconds = xy.attrs.get("seconds")
    if seconds is None:
        return name
    return f"{name} · {seconds:.1f} s" if seconds < 10 else f"{name} · {seconds:,.0f} s"


def _members(ds: xr.Dataset) -> tuple[list[str], np.ndarray]:
    """Class names, and bool (sample, class): who belongs to which."""
    if "labels" not in ds and "label" not in ds:
        raise ValueError("the dataset has neither 'labels' nor 'label' to draw one by one")
    names = [str(name) for name in ds["class"].values]
    if "labels" in ds:
        return names, ds["labels"].transpose("sample", "class").values.astype(bool)
    return names, ds["label"].values[:, None] == np.arange(len(names))


def _one_against_rest(member: np.ndarray) -> Groups:
    rest = Group("", UNLABELLED, np.flatnonzero(~member), named=False)
    return Groups([rest, Group("", colors(2)[1], np.flatnonzero(member), named=False)])
