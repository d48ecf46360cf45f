"""Static figures: sheets of samples and maps."""

from collections.abc import Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from workbench.show.style import UNLABELLED, caption, colors, finish, styled

#: Two thumbnails on a map are nearer than this share of its range only if one is left out.
THUMBNAIL_SPACING = 0.05


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
        fig, axes = plt.subplots(
            rows, columns, figsize=(columns, 1.25 * rows), squeeze=False, layout="constrained"
        )
        for ax in axes.flat:
            ax.set_axis_off()
        images = ds["image"].isel(sample=chosen).values
        for ax, image, i in zip(axes.flat, images, chosen, strict=False):
            ax.imshow(picture(image))
            ax.set_title(texts[i], fontsize=8, loc="center", pad=2)
        fig.suptitle(title, x=0.01, ha="left")
        facts = {"seed": seed} if len(chosen) < total else {}
        return finish(fig, caption(ds, n=len(chosen), **facts))


def map(  # noqa: A001 - the name that design and users know
    ds: xr.Dataset,
    xy: xr.DataArray,
    color: str | xr.DataArray | Literal[False] = "label",
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
        A variable of `ds`, or an array (sample,): integers are class numbers (-1, no label, is
        grey), other numbers get a colour bar. False draws every point alike.
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
        `xy` belongs to other samples than `ds`, or is not two-dimensional.
    """
    points = np.asarray(xy.values)
    if points.shape != (ds.sizes["sample"], 2):
        raise ValueError(f"a map of {ds.sizes['sample']} samples needs as many pairs of "
                         f"coordinates; xy has shape {points.shape}")  # fmt: skip
    with styled():
        width, height = np.ptp(points, axis=0)
        fig, ax = plt.subplots(
            figsize=(9, float(np.clip(8 * height / (width or 1.0), 4, 9))), layout="constrained"
        )
        by = ds[color] if isinstance(color, str) else color
        # Names and thumbnails would cover each other.
        _draw_points(ax, ds, points, by, named=not images)
        if mark is not None:
            ringed = points[np.asarray(mark.values, dtype=bool)]
            ax.scatter(ringed[:, 0], ringed[:, 1], s=60, facecolors="none", edgecolors="black",
                       linewidths=1.0, label=f"marked ({len(ringed):,})")  # fmt: skip
        if images:
            _lay_thumbnails(ax, ds, points)
        if ax.get_legend_handles_labels()[0]:
            legend = ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
            for handle in filter(None, legend.legend_handles):
                handle.set(sizes=[40], alpha=1.0)
        ax.set(xticks=[], yticks=[], title=title, aspect="equal")
        ax.spines[:].set_visible(False)
        facts = {key: xy.attrs[key] for key in ("method", "seed") if key in xy.attrs}
        return finish(fig, caption(ds, **facts))


def _draw_points(
    ax: Axes,
    ds: xr.Dataset,
    points: np.ndarray,
    color: xr.DataArray | Literal[False],
    *,
    named: bool,
) -> None:
    """Scatter the points, by class with a legend or by value with a colour bar."""
    size = float(np.clip(4e4 / len(points), 1.5, 20))
    style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.8}
    if color is False:
        ax.scatter(points[:, 0], points[:, 1], color=colors(1)[0], **style)
        return
    values = np.asarray(color.values)
    if not np.issubdtype(values.dtype, np.integer):
        drawn = ax.scatter(points[:, 0], points[:, 1], c=values, cmap="cividis", **style)
        ax.figure.colorbar(drawn, ax=ax, label=str(color.name or ""), shrink=0.6)
        return
    names = [str(name) for name in ds["class"].values] if "class" in ds.coords else []
    numbers = np.unique(values)
    palette = colors(max(len(names), int(numbers.max()) + 1))
    for number in numbers:
        members = points[values == number]
        name = names[number] if 0 <= number < len(names) else str(number)
        ax.scatter(
            members[:, 0],
            members[:, 1],
            color=UNLABELLED if number < 0 else palette[number],
            label="no label" if number < 0 else name,
            zorder=0 if number < 0 else 1,
            **style,
        )
        if named and number >= 0:
            _name_cluster(ax, members, name)


def _name_cluster(ax: Axes, members: np.ndarray, name: str) -> None:
    """Write the class beside its densest part, for those who cannot tell the colours apart."""
    center = np.median(members, axis=0)
    nearest = members[np.linalg.norm(members - center, axis=1).argmin()]
    outline = [patheffects.withStroke(linewidth=3, foreground="white")]
    ax.annotate(
        name, nearest, ha="center", va="center", weight="bold", path_effects=outline, zorder=5
    )


def _lay_thumbnails(ax: Axes, ds: xr.Dataset, points: np.ndarray) -> None:
    """Put an image on the map wherever there is room for one."""
    chosen = spaced(points, THUMBNAIL_SPACING)
    images = ds["image"].isel(sample=chosen).values
    height = images.shape[1]
    for image, at in zip(images, points[chosen], strict=True):
        box = AnnotationBbox(
            OffsetImage(picture(image), zoom=20 / height),
            (float(at[0]), float(at[1])),
            frameon=True,
            pad=0.05,
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


def class_names(ds: xr.Dataset) -> list[str]:
    """The name of every sample's class, empty where it has none."""
    if "label" not in ds:
        return [""] * ds.sizes["sample"]
    names = [*(str(name) for name in ds["class"].values), ""]
    return [names[number] for number in ds["label"].values]


def picture(image: np.ndarray) -> np.ndarray:
    """Make an image (y, x, channel) of any type one that matplotlib shows: uint8 RGB.

    One channel becomes grey, of more than three the first three are shown; types other than
    uint8 are stretched from their smallest to their largest finite value.
    """
    shown = np.asarray(image)
    if shown.dtype != np.uint8:
        values = np.nan_to_num(shown.astype(np.float64), posinf=0.0, neginf=0.0)
        low, high = values.min(), values.max()
        shown = ((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    return np.repeat(shown[..., :1], 3, axis=-1) if shown.shape[-1] < 3 else shown[..., :3]
