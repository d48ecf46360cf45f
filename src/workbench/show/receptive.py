"""The receptive field as a square on the image."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from workbench.show.cams import as_image
from workbench.show.style import colors, finish, styled


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
                    box[:2], box[2] - box[0], box[3] - box[1], fill=False, color="black", lw=1,
                    ls="--", label="the object's box",
                )
            )  # fmt: skip
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
