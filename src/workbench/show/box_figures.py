"""Boxes, polygons and points drawn on the images that they belong to."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon

from workbench._images import picture
from workbench.datasets.boxes import CORNERS, as_table, image_of, image_sizes
from workbench.show.style import caption, colors, finish, styled

#: Longest side of an image in pixels, as it is drawn.
_LONGEST = 640
_STROKES = ("-", "--", ":", "-.")


def boxes(
    ds: xr.Dataset,
    boxes: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    n: int = 6,
    columns: int = 3,
    seed: int = 0,
    title: str = "",
) -> Figure:
    """Bounding boxes, polygons and points over their images, a colour a class.

    Parameters
    ----------
    ds
        An image dataset; images come from ``path`` where it has one. With more than `n` samples,
        `n` of them are drawn at random and shown in the dataset's order.
    boxes
        A table of boxes, or several by name, such as the truth and a network's, told apart by
        their strokes. Scores stand beside their boxes.
    n, columns
        Images in all and in a row.
    seed
        Fixes the draw.
    title
        Above the figure.

    Raises
    ------
    ValueError
        `ds` is empty, or a sample of a table is not in it.

    Examples
    --------
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), np.zeros((1, 9, 9, 1)))},
    ...                 coords={"sample": [7]})
    >>> box = {"sample": 7, "x_min": 1, "y_min": 2, "x_max": 4, "y_max": 7, "label": "cat"}
    >>> globals()["boxes"](ds, pd.DataFrame([box])).axes[0].get_title()
    '7'
    """
    if not (total := ds.sizes["sample"]):
        raise ValueError("there is nothing to show: the dataset holds no sample")
    tables = {
        name: as_table(table, ds)
        for name, table in (boxes.items() if isinstance(boxes, Mapping) else [("", boxes)])
    }
    labels = sorted({label for table in tables.values() for label in table["label"]})
    shades = dict(zip(labels, colors(len(labels)), strict=True))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(total, size=min(n, total), replace=False))
    rows = -(-len(chosen) // columns)
    with styled():
        size = (3.2 * columns, 2.6 * rows + 0.6)
        fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, at in zip(axes.flat, chosen.tolist(), strict=False):
            sample = ds["sample"].values[at]
            height, width = image_sizes(ds.isel(sample=[at]))[0]
            ax.imshow(picture(image_of(ds, at, _LONGEST)), extent=(0, width, height, 0))
            ax.set_title(str(sample), fontsize=8, loc="center")
            for stroke, table in zip(_STROKES * len(tables), tables.values(), strict=False):
                for row in table[table["sample"] == sample].to_dict("records"):
                    _draw(ax, row, shades[row["label"]], stroke)
        lines = [
            Line2D([], [], color=shade, label=label) for label, shade in shades.items() if label
        ]
        for stroke, name in zip(_STROKES * len(tables), tables, strict=False):
            lines += [Line2D([], [], color="black", ls=stroke, label=name)] if name else []
        if lines:
            fig.legend(handles=lines, loc="outside upper right", ncols=6, fontsize=8)
        fig.suptitle(title, x=0.01, ha="left")
        shown = sum(
            int(table["sample"].isin(ds["sample"].values[chosen]).sum())
            for table in tables.values()
        )
        facts = {"boxes": shown} | ({"seed": seed} if len(chosen) < total else {})
        return finish(fig, caption(ds, n=len(chosen), **facts))


def _draw(ax: Axes, row: Mapping[str, object], shade: str, stroke: str) -> None:
    """One object; a point is a dot."""
    x_min, y_min, x_max, y_max = (float(str(row[name])) for name in CORNERS)
    ring = row["points"]
    if ring is None:
        ring = [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]
    points = np.asarray(ring)
    if len(points) == 1:
        ax.plot(*points[0], "o", color=shade, mec="white", ms=5)
    else:
        ax.add_patch(Polygon(points, fill=False, edgecolor="white", lw=2.4, alpha=0.6))
        ax.add_patch(Polygon(points, fill=False, edgecolor=shade, lw=1.4, ls=stroke))
    if not np.isnan(score := float(str(row["score"]))):
        ax.text(x_min, y_min, f"{score:.2f}", fontsize=6, color="white", va="bottom",
                bbox={"facecolor": shade, "edgecolor": "none", "pad": 0.6})  # fmt: skip
