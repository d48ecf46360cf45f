"""Static maps: the samples on a plane, one map or several side by side."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from mpl_toolkits.mplot3d import proj3d  # type: ignore[import-untyped]

from workbench._images import picture
from workbench._samples import same_samples
from workbench.show.coloring import Color, Group, Groups, Values, read_color, shorten
from workbench.show.density import draw_contours, lay_picture
from workbench.show.style import OTHERS, UNLABELLED, caption, colors, finish, fitted, styled

#: Two thumbnails on a map are nearer than this share of its range only if one is left out.
THUMBNAIL_SPACING = 0.05
_THUMBNAIL = 20
_NAME_SIZE = 9
#: A map is cut into so many squares a side to find where a class is dense.
_BINS = 20
_FEW = 5
#: So many points are drawn as one picture, which takes a second where markers take a minute.
_MANY = 200_000
#: From so many entries on, a legend is set smaller.
_LONG_LEGEND = 12


def coordinates(
    ds: xr.Dataset, xy: xr.DataArray, name: str = "xy", axes: tuple[int, ...] = (2,)
) -> np.ndarray:
    """The map's points in the order of the dataset, once it is clear that they are its own."""
    fits = [(ds.sizes["sample"], count) for count in axes]
    if xy.shape in fits:
        xy = same_samples(xy, ds, (name, "the dataset"))
    points = np.asarray(xy.values, dtype=np.float64)
    if points.shape not in fits:
        raise ValueError(
            f"a map of {ds.sizes['sample']} samples needs as many pairs of "
            f"coordinates; {name} has shape {points.shape}"
        )
    if len(points) == 0:
        raise ValueError("there is nothing to show: the dataset holds no sample")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise ValueError(f"{len(bad)} points of {name} are not finite; the first is at {bad[0]}")
    return points


def draw_points(
    ax: Any, points: np.ndarray, coloring: Groups | Values, across: float
) -> ScalarMappable | None:
    """Scatter the points; of values, return what a colour bar is made from.

    `across` is about how many typographic points wide the map is.
    """
    size = float(np.clip(0.17 * across**2 / len(points), 0.5 + across / 480, 20))
    if isinstance(coloring, Values):
        low, high, known = coloring.extent()
        gone, there = points[~known], points[known]
        if len(points) >= _MANY and points.shape[1] == 2:
            shown = ScalarMappable(Normalize(low, high), "cividis")
            shades = np.tile(to_rgba(UNLABELLED), (len(points), 1))
            shades[known] = shown.to_rgba(coloring.values[known])
            lay_picture(ax, points, shades, across)
            return shown
        ax.scatter(*gone.T, s=size, linewidths=0, color=UNLABELLED, zorder=0)
        scattered: ScalarMappable = ax.scatter(
            *there.T,
            c=coloring.values[known],
            cmap="cividis",
            s=size,
            linewidths=0,
            alpha=0.8,
        )
        return scattered
    shades = np.empty((len(points), 4))
    markers = np.empty(len(points), dtype="<U1")
    behind = np.zeros(len(points), dtype=bool)
    for group in coloring.groups:
        shades[group.members] = to_rgba(group.color, alpha=0.8)
        markers[group.members] = group.marker
        behind[group.members] = group.color in (OTHERS, UNLABELLED)
    if len(points) >= _MANY and points.shape[1] == 2:
        lay_picture(ax, points, shades, across)
        return None
    # In random order, so that no class lies on top of the others.
    order = np.random.default_rng(0).permutation(len(points))
    for back in (True, False):
        for marker in ("o", "^"):
            those = order[((markers == marker) & (behind == back))[order]]
            if len(those):
                ax.scatter(
                    *points[those].T,
                    c=shades[those],
                    marker=marker,
                    s=size,
                    linewidths=0,
                    zorder=0 if back else 1,
                )
    return None


def legend_handles(coloring: Groups | Values) -> list[Line2D]:
    """One entry for each group that has a name."""
    return [
        Line2D(
            [], [], ls="", marker=group.marker, color=group.color, markersize=7, label=group.name
        )
        for group in coloring.groups
        if group.name
    ]


def ring(ax: Any, points: np.ndarray) -> Line2D:
    """Ring some points and return what the legend says of them."""
    # Smaller and thinner rings where many of them would become one black spot.
    size = float(np.clip(6000 / max(len(points), 1), 12, 60))
    ax.scatter(
        *points.T,
        s=size,
        facecolors="none",
        edgecolors="black",
        linewidths=size / 60 + 0.2,
        zorder=4,
    )
    return Line2D(
        [],
        [],
        ls="",
        marker="o",
        markersize=8,
        mfc="none",
        mec="black",
        label=f"marked ({len(points):,})",
    )


def add_legend(fig: Figure, handles: list[Line2D], title: str) -> None:
    """One legend at the right of the figure, in two columns where it is too low for one."""
    if not handles:
        return
    size = 10 if len(handles) <= _LONG_LEGEND else 8
    room = int((fig.get_figheight() - 0.8) * 72 / (size * 1.7))
    fig.legend(
        handles=handles,
        title=title or None,
        loc="outside right center",
        fontsize=size,
        ncols=1 if len(handles) <= room else 2,
        alignment="left",
    )


def name_clusters(ax: Axes, points: np.ndarray, coloring: Groups, across: float) -> None:
    """Write each class at its densest part, for those who cannot tell the colours apart.

    The largest class comes first. A class that does not prevail even where it is densest, and a
    name that would cover another, are left to the legend.
    """
    span = float(np.ptp(points, axis=0).max())
    if span == 0 and len(points) > 1:
        ax.annotate(
            f"all {len(points):,} points lie here",
            (points[0, 0], points[0, 1]),
            (0, 8),
            textcoords="offset points",
            ha="center",
        )
        return
    outline = [patheffects.withStroke(linewidth=3, foreground="white")]
    scale = across / (span or 1.0)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    cells = _cells(points, span)
    everyone = np.bincount(cells)
    placed: list[tuple[np.ndarray, float]] = []
    for group in sorted(coloring.groups, key=lambda group: -len(group.members)):
        counts = np.bincount(cells[group.members])
        fullest = counts.argmax()
        if not group.named or counts[fullest] < everyone[fullest] / 2:
            continue
        at = np.median(points[group.members[cells[group.members] == fullest]], axis=0)
        name = fitted(group.name, across / 144, _NAME_SIZE)
        width = 0.6 * _NAME_SIZE * max(len(line) for line in name.splitlines())
        apart = [(np.abs(at - there) * scale, (width + other) / 2) for there, other in placed]
        if any(gap[0] < wide and gap[1] < 1.2 * _NAME_SIZE for gap, wide in apart):
            continue
        placed.append((at, width))
        # Few points would be hidden by their name.
        above = _NAME_SIZE if len(group.members) < _FEW else 0
        # A name at the edge moves inwards, so that it is not cut off.
        offset = (at - middle) * scale + np.array([0.0, above])
        room = np.maximum(across / 2 - np.array([width / 2, _NAME_SIZE]), 0.0)
        dx, dy = np.clip(offset, -room, room) - (at - middle) * scale
        ax.annotate(
            name,
            (at[0], at[1]),
            (float(dx), float(dy)),
            textcoords="offset points",
            ha="center",
            va="center",
            weight="bold",
            fontsize=_NAME_SIZE,
            path_effects=outline,
            zorder=5,
        )


def _cells(points: np.ndarray, span: float) -> np.ndarray:
    """In which square of the map each point lies, as one number."""
    place = (points - points.min(axis=0)) / (span or 1.0) * _BINS
    numbers: np.ndarray = np.minimum(place, _BINS - 1).astype(np.int64) @ np.array([_BINS, 1])
    return numbers


def lay_thumbnails(ax: Axes, ds: xr.Dataset, points: np.ndarray) -> None:
    """Put an image on the map wherever there is room for one."""
    chosen = spaced(points, THUMBNAIL_SPACING)
    images = ds["image"].isel(sample=chosen).values
    longest = max(images.shape[1:3])
    for image, at in zip(images, points[chosen], strict=True):
        box = AnnotationBbox(
            OffsetImage(picture(image), zoom=_THUMBNAIL / longest),
            (float(at[0]), float(at[1])),
            frameon=True,
            pad=0.05,
            bboxprops={"linewidth": 0.5},
        )
        ax.add_artist(box)


def spaced(points: np.ndarray, share: float) -> np.ndarray:
    """Positions of points no two of which are nearer than `share` of the map's range.

    Greedy in the order given; both axes are scaled by the larger range.

    Examples
    --------
    >>> spaced(np.array([[0.0, 0.0], [0.01, 0.0], [1.0, 1.0]]), share=0.05)
    array([0, 2])
    """
    span = float(np.ptp(points, axis=0).max()) or 1.0
    kept: list[int] = []
    for i, point in enumerate(points):
        # Kept points are few (at most about (1 / share) squared), so this stays linear in n.
        distance = np.linalg.norm(points[kept] - point, axis=1) if kept else np.array([np.inf])
        if distance.min() >= share * span:
            kept.append(i)
    return np.array(kept, dtype=np.int64)


#: Inches that a panel takes, and about how many typographic points wide the map in it is.
_PANEL = 3.3
_PANEL_ACROSS = 200
_MAP_ACROSS = 480


def draw_map(
    fig: Figure,
    ax: Axes,
    points: np.ndarray,
    coloring: Groups | Values,
    *,
    named: bool,
    alone: bool = False,
) -> ScalarMappable | None:
    """Draw one map: alone, with its colour bar, or as one of several panels."""
    across = _MAP_ACROSS if alone else _PANEL_ACROSS
    drawn = draw_points(ax, points, coloring, across)
    if alone and drawn is not None and isinstance(coloring, Values):
        add_colorbar(fig, drawn, ax, coloring)
    if points.shape[1] == 3:
        ax.set(zticks=[])
        points = seen_from(ax, points)
    if named and isinstance(coloring, Groups):
        name_clusters(ax, points, coloring, across)
    ax.set(xticks=[], yticks=[])
    if "3d" in ax.name:
        return drawn
    ax.spines[:].set_visible(False)
    ax.set_aspect("equal")
    if not alone:
        _make_square(ax, points)
    return drawn


def add_colorbar(fig: Figure, drawn: Any, ax: Any, coloring: Values) -> None:
    """A scale for values, in dates where they are dates."""
    scale: dict[str, Any] = {}
    if coloring.dates:
        ticks = AutoDateLocator()  # type: ignore[no-untyped-call]
        form = ConciseDateFormatter(ticks)  # type: ignore[no-untyped-call]
        scale = {"ticks": ticks, "format": form}
    fig.colorbar(drawn, ax=ax, label=coloring.title, shrink=0.6, **scale)


def seen_from(ax: Any, points: np.ndarray) -> np.ndarray:
    """Where points in space are on the page: names are written there."""
    ax.set_aspect("equal")
    x, y, _ = proj3d.proj_transform(*points.T, ax.get_proj())
    return np.column_stack([x, y])


def _make_square(ax: Axes, points: np.ndarray) -> None:
    """Show a square of the plane, so that panels beside each other are of one size."""
    low, high = points.min(axis=0), points.max(axis=0)
    reach = 0.54 * (float((high - low).max()) or 1.0)
    x, y = (low + high) / 2
    ax.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))


def grid(n: int, columns: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with `n` panels and no empty axes."""
    if n == 0:
        raise ValueError("there is nothing to show: no map was given")
    columns = min(columns, n)
    rows = -(-n // columns)
    fig, axes = plt.subplots(
        rows,
        columns,
        squeeze=False,
        layout="constrained",
        figsize=(_PANEL * columns + 1.2, _PANEL * rows + 0.6),
    )
    for ax in axes.flat[n:]:
        ax.remove()
    fig.suptitle(title, x=0.01, ha="left")
    return fig, list(axes.flat[:n])


def map(  # noqa: A001 - the name that design and users know
    ds: xr.Dataset,
    xy: xr.DataArray,
    color: Color = "label",
    *,
    images: bool = False,
    mark: xr.DataArray | None = None,
    contours: bool = False,
    title: str = "",
) -> Figure:
    """The samples on a plane or in space, coloured by class.

    From 200,000 samples on, a map on a plane is one picture with the mean colour of each pixel.

    Parameters
    ----------
    ds
        The image dataset.
    xy
        (sample, axis): what :func:`workbench.embeddings.project` returned for it.
    color
        A variable of `ds`, or an array (sample,), or bool (sample, class): each combination of
        several labels is a category of its own. Dates get a colour bar in dates. Integers are
        class numbers (-1, no label, is grey), named by the array's ``attrs["classes"]`` or else by
        the dataset's ``class``; text and bool are categories too. Of more than 20 classes the most
        frequent 20 are coloured. Other numbers get a colour bar. False draws every point alike,
        and so does the default where there is no label.
    images
        Lay thumbnails over the map, none nearer to another than 5 % of its range.
    mark
        bool (sample,): these points get a ring.
    contours
        Lines around the densest places, which hold a tenth, half and nine tenths of the samples.
    title
        Above the map.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        `xy` belongs to other samples than `ds`, has neither 2 nor 3 axes, or `color` is not known.
        `images` or `contours` of a map in space.
    """
    points = coordinates(ds, xy, axes=(2, 3))
    deep = points.shape[1] == 3
    if deep and (images or contours):
        raise ValueError("images and contours lie on a plane, and xy has three axes")
    coloring = read_color(ds, color)
    with styled():
        width, height = np.ptp(points[:, :2], axis=0)
        fig, ax = plt.subplots(
            figsize=(9, float(np.clip(7 * height / (width or 1.0), 3, 8)) + 0.6),
            layout="constrained",
            subplot_kw={"projection": "3d"} if deep else None,
        )
        if contours:
            draw_contours(ax, points)
        # Names and thumbnails would cover each other.
        draw_map(fig, ax, points, coloring, named=not images, alone=True)
        handles = legend_handles(coloring)
        if mark is not None:
            mark = same_samples(mark, ds, ("the marks", "the dataset"))
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
            drawn = draw_map(fig, ax, points, coloring, named=True)
            ax.set_title(text, fontsize=10)
        if isinstance(coloring, Values):
            add_colorbar(fig, drawn, axes, coloring)
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
