"""What a map is drawn with: checked points, names at clusters, thumbnails, legend entries."""

import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from workbench._pictures import picture
from workbench.show.coloring import Groups, Values
from workbench.show.style import OTHERS, UNLABELLED

#: Two thumbnails on a map are nearer than this share of its range only if one is left out.
THUMBNAIL_SPACING = 0.05
_THUMBNAIL = 20
_NAME_SIZE = 9
#: A map is cut into so many squares a side to find where a class is dense.
_BINS = 20
_FEW = 5
#: From so many entries on, a legend is set smaller.
_LONG_LEGEND = 12


def coordinates(ds: xr.Dataset, xy: xr.DataArray, name: str = "xy") -> np.ndarray:
    """The map's points, once it is clear that they are this dataset's."""
    points = np.asarray(xy.values, dtype=np.float64)
    if points.shape != (ds.sizes["sample"], 2):
        raise ValueError(f"a map of {ds.sizes['sample']} samples needs as many pairs of "
                         f"coordinates; {name} has shape {points.shape}")  # fmt: skip
    if len(points) == 0:
        raise ValueError("there is nothing to show: the dataset holds no sample")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise ValueError(f"{len(bad)} points of {name} are not finite; the first is at {bad[0]}")
    return points


def draw_points(
    ax: Axes, points: np.ndarray, coloring: Groups | Values, across: float
) -> ScalarMappable | None:
    """Scatter the points; of values, return what a colour bar is made from.

    `across` is about how many typographic points wide the map is.
    """
    size = float(np.clip(0.17 * across**2 / len(points), 0.5 + across / 480, 20))
    if isinstance(coloring, Values):
        _, _, known = coloring.extent()
        gone, there = points[~known], points[known]
        ax.scatter(gone[:, 0], gone[:, 1], s=size, linewidths=0, color=UNLABELLED, zorder=0)
        return ax.scatter(there[:, 0], there[:, 1], c=coloring.values[known], cmap="cividis",
                          s=size, linewidths=0, alpha=0.8)  # fmt: skip
    shades = np.empty((len(points), 4))
    markers = np.empty(len(points), dtype="<U1")
    behind = np.zeros(len(points), dtype=bool)
    for group in coloring.groups:
        shades[group.members] = to_rgba(group.color, alpha=0.8)
        markers[group.members] = group.marker
        behind[group.members] = group.color in (OTHERS, UNLABELLED)
    # In random order, so that no class lies on top of the others.
    order = np.random.default_rng(0).permutation(len(points))
    for back in (True, False):
        for marker in ("o", "^"):
            those = order[((markers == marker) & (behind == back))[order]]
            if len(those):
                ax.scatter(points[those, 0], points[those, 1], c=shades[those], marker=marker,
                           s=size, linewidths=0, zorder=0 if back else 1)  # fmt: skip
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


def ring(ax: Axes, points: np.ndarray) -> Line2D:
    """Ring some points and return what the legend says of them."""
    # Smaller and thinner rings where many of them would become one black spot.
    size = float(np.clip(6000 / max(len(points), 1), 12, 60))
    ax.scatter(points[:, 0], points[:, 1], s=size, facecolors="none", edgecolors="black",
               linewidths=size / 60 + 0.2, zorder=4)  # fmt: skip
    return Line2D([], [], ls="", marker="o", markersize=8, mfc="none", mec="black",
                  label=f"marked ({len(points):,})")  # fmt: skip


def add_legend(fig: Figure, handles: list[Line2D], title: str) -> None:
    """One legend at the right of the figure, in two columns where it is too low for one."""
    if not handles:
        return
    size = 10 if len(handles) <= _LONG_LEGEND else 8
    room = int((fig.get_figheight() - 0.8) * 72 / (size * 1.7))
    fig.legend(handles=handles, title=title or None, loc="outside right center", fontsize=size,
               ncols=1 if len(handles) <= room else 2, alignment="left")  # fmt: skip


def name_clusters(ax: Axes, points: np.ndarray, coloring: Groups, across: float) -> None:
    """Write each class at its densest part, for those who cannot tell the colours apart.

    The largest class comes first. A class that does not prevail even where it is densest, and a
    name that would cover another, are left to the legend.
    """
    span = float(np.ptp(points, axis=0).max())
    if span == 0 and len(points) > 1:
        ax.annotate(f"all {len(points):,} points lie here", (points[0, 0], points[0, 1]), (0, 8),
                    textcoords="offset points", ha="center")  # fmt: skip
        return
    outline = [patheffects.withStroke(linewidth=3, foreground="white")]
    scale = across / (span or 1.0)
    cells = _cells(points, span)
    everyone = np.bincount(cells)
    placed: list[tuple[np.ndarray, float]] = []
    for group in sorted(coloring.groups, key=lambda group: -len(group.members)):
        counts = np.bincount(cells[group.members])
        fullest = counts.argmax()
        if not group.named or counts[fullest] < everyone[fullest] / 2:
            continue
        at = np.median(points[group.members[cells[group.members] == fullest]], axis=0)
        width = 0.6 * _NAME_SIZE * len(group.name)
        apart = [(np.abs(at - there) * scale, (width + other) / 2) for there, other in placed]
        if any(gap[0] < wide and gap[1] < 1.2 * _NAME_SIZE for gap, wide in apart):
            continue
        placed.append((at, width))
        # Few points would be hidden by their name.
        above = _NAME_SIZE if len(group.members) < _FEW else 0
        ax.annotate(group.name, (at[0], at[1]), (0, above), textcoords="offset points",
                    ha="center", va="center", weight="bold", fontsize=_NAME_SIZE,
                    path_effects=outline, zorder=5)  # fmt: skip


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
