"""The state of a jupyter-scatter widget as a picture, for pages in which no script runs."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_MOST = 2000
_WIDTH, _HEIGHT = 480, 360


def draw(model: Mapping[str, Any]) -> str:
    """Return a scatter widget's points as an SVG, each in its colour.

    Of more than 2,000 points every n-th is drawn, and the line below says so. What the widget's
    `points` hold is x, y (from -1 to 1) and two values, one of which may choose the colour.

    Parameters
    ----------
    model
        The widget's model as a notebook's metadata keep it, with its buffers in base64.
    """
    import numpy as np

    state = model["state"]
    data = next(b["data"] for b in model["buffers"] if b["path"] == ["points", "view"])
    about = state["points"]
    points = np.frombuffer(base64.b64decode(data), about["dtype"]).reshape(about["shape"])
    step = -(-len(points) // _MOST) or 1
    circles = []
    for x, y, *values in points[::step]:
        place = f'cx="{(x + 1) / 2 * _WIDTH:.1f}" cy="{(1 - y) / 2 * _HEIGHT:.1f}"'
        circles.append(f'<circle {place} r="2" fill="{_colour(state, values)}"/>')
    said = f"{len(points):,} points: {_axis(state, 'x')} across, {_axis(state, 'y')} up"
    said += f"; every {step}th is drawn" if step > 1 else ""
    box = f'viewBox="-8 -8 {_WIDTH + 16} {_HEIGHT + 16}" width="{_WIDTH}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{said}" '
        f'style="background:#fff">{"".join(circles)}</svg><div>{said}</div>'
    )


def _axis(state: Mapping[str, Any], axis: str) -> str:
    low, high = state.get(f"{axis}_domain") or (-1, 1)
    return f"{escape(str(state.get(f'{axis}_title') or axis))} from {low:.4g} to {high:.4g}"


def _colour(state: Mapping[str, Any], values: Sequence[float]) -> str:
    """Return a point's colour: of a list of colours the one that its value chooses."""
    colour, by = state.get("color"), {"valueA": 0, "valueB": 1}.get(str(state.get("color_by")))
    if isinstance(colour, list) and colour and isinstance(colour[0], list):
        value = values[by] if by is not None and by < len(values) else 0
        categories = state.get("color_scale") in (None, "categorical")
        at = value if categories else value * (len(colour) - 1)  # else it goes from 0 to 1
        colour = colour[min(max(round(float(at)), 0), len(colour) - 1)]
    if isinstance(colour, list) and len(colour) >= 3:
        return "#" + "".join(f"{round(255 * share):02x}" for share in colour[:3])
    return escape(str(colour or "#333"))
