"""Figures of what a network looks at: maps over their images, receptive fields."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from workbench._images import picture
from workbench.show.style import colors, finish, fitted, panels, styled


def cams(
    x: Any,
    maps: Mapping[str, Mapping[str, Any]],
    *,
    predictions: str | Sequence[str] = "",
    boxes: Sequence[Sequence[float]] | None = None,
    signed: bool = False,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Maps laid over images: rows of layers or images, columns of methods or target classes.

    Scaling to [0, 1] happens here and nowhere else: each map is divided by its own largest value,
    so that 0 stays 0 and what is negative is not drawn. Two maps of a figure are therefore alike
    in shape when they look alike, not in strength. The caption says so.

    Parameters
    ----------
    x
        One image for all rows, or one for each: an array (y, x, channel) or a tensor (channel, y,
        x), float images in [0, 1].
    maps
        Row to column to map, (y, x) of any size; drawn smoothly over the greyed image, or alone
        where it has the image's own resolution.
    predictions
        A text for the image, or one for each row: the predicted classes and probabilities.
    boxes
        (left, top, right, bottom) in pixels of the image, one for each row.
    signed
        Draw negative values as well, in blue.
    title, caption
        Above and below the figure.

    Raises
    ------
    ValueError
        There is no map, a map is not (y, x), or the number of images, predictions or boxes is
        not that of the rows.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((8, 8, 3))
    >>> fig = cams(image, {"layer4": {"Grad-CAM": np.eye(2)}}, predictions="cat 93%")
    >>> [ax.get_title() for ax in fig.axes]
    ['', 'Grad-CAM']
    """
    if not maps or not all(maps.values()):
        raise ValueError("there is nothing to show: no map was given")
    rows = len(maps)
    images = [as_image(image) for image in _for_rows(x, rows, "images", np.ndim(x) == 4)]
    texts = _for_rows(predictions, rows, "predictions", not isinstance(predictions, str))
    frames = [None] * rows if boxes is None else _for_rows(boxes, rows, "boxes", True)
    columns = list(dict.fromkeys(name for row in maps.values() for name in row))
    with styled():
        height, width = images[0].shape[:2]
        side = 1.75 if len(columns) > 2 else 2.4
        tall = (side * height / width + 0.3) * rows + 0.7
        fig, axes = panels(rows, 1 + len(columns), side * (1 + len(columns)), tall, title)
        untitled = set(columns)
        for r, (name, row) in enumerate(maps.items()):
            _draw_image(axes[r, 0], images[r], name, texts[r], frames[r], side)
            for ax, column in zip(axes[r, 1:], columns, strict=True):
                if column not in row:
                    continue
                _draw_map(ax, images[r], _plane(row[column], column), signed)
                _draw_box(ax, frames[r])
                if column in untitled:  # its first map, which need not be in the first row
                    ax.set_title(fitted(column, side, 9), fontsize=9, loc="center")
                    untitled.remove(column)
        scaling = "each map divided by its largest " + ("magnitude" if signed else "value")
        return finish(fig, " · ".join(filter(None, (caption, scaling))))


def _for_rows(values: Any, rows: int, what: str, several: bool) -> list[Any]:
    """One value for each row: the same for all, or as many as there are."""
    if not several:
        return [values] * rows
    if len(values) != rows:
        raise ValueError(f"{len(values)} {what} for {rows} rows")
    return list(values)


def as_image(x: Any) -> np.ndarray:
    """Make an array (y, x, channel), or a tensor (channel, y, x), as RGB bytes."""
    if hasattr(x, "detach"):
        x = x.detach().cpu().permute(1, 2, 0).numpy()
    values = np.asarray(x)
    if values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1:
        values = np.rint(values * 255).astype(np.uint8)
    return picture(values)


def _plane(values: Any, name: str) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    plane = np.asarray(values, dtype=float)
    if plane.ndim != 2:
        raise ValueError(f"map {name!r} is {plane.shape}, not (y, x)")
    return plane


def _draw_image(ax: Axes, image: np.ndarray, row: str, text: str, box: Any, side: float) -> None:
    """The image with its texts, which its width of `side` inches holds."""
    ax.imshow(image, interpolation="nearest")
    ax.set_axis_on()
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_ylabel(fitted(row, side * image.shape[0] / image.shape[1], 9), fontsize=9)
    ax.set_xlabel(fitted(text, side), fontsize=8)
    _draw_box(ax, box)


def _draw_map(ax: Axes, image: np.ndarray, values: np.ndarray, signed: bool) -> None:
    height, width = image.shape[:2]
    alone = values.shape == (height, width)
    if not alone:
        ax.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
    strongest = (np.abs(values) if signed else values).max()
    scaled = values / strongest if strongest > 0 else np.zeros_like(values)
    ax.imshow(
        scaled,
        cmap="RdBu_r" if signed else "gray" if alone else "inferno",
        vmin=-1 if signed else 0,
        vmax=1,
        alpha=None if alone else 0.6,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest" if alone else "bilinear",
    )


def _draw_box(ax: Axes, box: Any) -> None:
    if box is not None:
        left, top, right, bottom = (float(edge) for edge in box)
        size = right - left, bottom - top
        for color, width in (("black", 2.4), ("white", 1.0)):
            ax.add_patch(
                Rectangle((left - 0.5, top - 0.5), *size, fill=False, color=color, lw=width)
            )


def receptive_field(
    x: Any,
    table: pd.DataFrame,
    *,
    unit: tuple[float, float] = (0.5, 0.5),
    box: tuple[float, float, float, float] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """What one unit of each layer can see, drawn on the image.

    The square of a unit that sees more than the image goes beyond its edge, where there is only
    padding.

    Parameters
    ----------
    x
        An array (y, x, channel) or a tensor (channel, y, x), float images in [0, 1].
    table
        As ``gradcam.receptive_field`` returns it, a row for each square; sizes that differ along
        y and x are pairs.
    unit
        Where the units lie on the image, (y, x) as fractions; by default in the middle. Each
        layer's nearest unit is taken.
    box
        (left, top, right, bottom) of the object, in pixels.
    title, caption
        Above and below the figure.

    Raises
    ------
    ValueError
        The table has no row.

    Examples
    --------
    >>> table = pd.DataFrame({"size": [7], "stride": [2], "padding": [3], "output": [(8, 8)]},
    ...                      index=["conv1"])
    >>> fig = receptive_field(np.zeros((16, 16, 3)), table)
    >>> fig.axes[0].get_legend().get_texts()[0].get_text()
    'conv1: 7 px'
    """
    if table.empty:
        raise ValueError("there is nothing to show: the table has no row")
    image = as_image(x)
    height, width = image.shape[:2]
    with styled():
        fig, ax = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
        ax.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
        for (name, row), color in zip(table.iterrows(), colors(len(table)), strict=True):
            corner, wide, high = _square(row, unit, height, width)
            label = f"{name}: {row['size']} px"
            if not np.isfinite(wide + high):
                label, wide, high = f"{name}: everything", width, height
            ax.add_patch(Rectangle(corner, wide, high, fill=False, color=color, lw=2, label=label))
        if box is not None:
            ax.add_patch(
                Rectangle(
                    box[:2],
                    box[2] - box[0],
                    box[3] - box[1],
                    fill=False,
                    color="black",
                    lw=1,
                    ls="--",
                    label="the object's box",
                )
            )
        ax.autoscale_view()
        ax.set_aspect("equal")
        ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        ax.set(title=title, xlabel="pixels", ylabel="pixels")
        return finish(fig, caption)


def _square(
    row: "pd.Series[Any]", unit: tuple[float, float], height: int, width: int
) -> tuple[tuple[float, float], float, float]:
    """The left top corner, width and height of one unit's field; the image's if it is endless."""
    found = []
    for axis, length in enumerate((height, width)):
        size, step, padding = (_along(row[key], axis) for key in ("size", "stride", "padding"))
        start = 0.0
        if np.isfinite(size):
            number = min(int(unit[axis] * length / step), row["output"][axis] - 1)
            start = number * step - padding
        found.append((start, size))
    (top, high), (left, wide) = found
    return (left, top), wide, high


def _along(value: Any, axis: int) -> float:
    return float(value[axis] if isinstance(value, tuple) else value)
