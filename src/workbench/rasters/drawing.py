"""The things that stand on the made-up mosaic: their outlines and colours."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SHADOW = 3
"""Pixels by which a shadow falls to the right and below."""
_ROOFS = np.array([[168, 84, 66], [140, 72, 60], [120, 120, 126], [176, 122, 92]], np.float32)
_CABS = np.array([[200, 60, 50], [60, 90, 180], [230, 220, 80]], np.float32)


def draw(land: Floats, thing: Any, top: int, left: int) -> None:
    """Draw one object and its shadow onto a tile whose first pixel is at `top`, `left`.

    `thing` has ``x``, ``y`` (pixels), ``long``, ``short`` (half of its sides), ``angle``, ``hue``
    and ``label``.
    """
    reach = int(np.hypot(thing.long, thing.short)) + SHADOW + 2
    rows, columns = (
        slice(max(int(at) - reach - start, 0), max(min(int(at) + reach - start, length), 0))
        for at, start, length in zip((thing.y, thing.x), (top, left), land.shape, strict=False)
    )
    canvas = land[rows, columns]
    y, x = np.mgrid[rows, columns] + 0.5
    x, y = x + (left - thing.x), y + (top - thing.y)
    shape, color = SHAPES[thing.label]
    u, v = _turned(thing, x - SHADOW, y - SHADOW)
    canvas[shape(u / thing.long, v / thing.short)] *= 0.6
    u, v = _turned(thing, x, y)
    u, v = u / thing.long, v / thing.short
    there = shape(u, v)
    canvas[there] = color(u[there], v[there], thing.hue)


def _turned(thing: Any, x: Any, y: Any) -> tuple[Any, Any]:
    cos, sin = np.cos(thing.angle), np.sin(thing.angle)
    return x * cos + y * sin, y * cos - x * sin


def _rectangle(u: Any, v: Any) -> Any:
    return (np.abs(u) <= 1) & (np.abs(v) <= 1)


def _oval(u: Any, v: Any) -> Any:
    return u * u + v * v <= 1


def _house(_: Any, v: Any, hue: int) -> Any:
    """A roof whose two sides differ in brightness, with a ridge."""
    light = np.where(v < 0, 1.15, 0.8)
    light = np.where(np.abs(v) < 0.1, 1.4, light)
    return _ROOFS[hue % len(_ROOFS)] * light[:, None]


def _pool(u: Any, v: Any, hue: int) -> Any:
    rim = (u * u + v * v > 0.7)[:, None]
    return np.where(rim, [214, 208, 196], [60 + 2 * hue, 150 + 3 * hue, 196])


def _tank(u: Any, v: Any, hue: int) -> Any:
    light = 205 + 2 * hue - 55 * np.hypot(u + 0.4, v + 0.4)
    return light[:, None] * np.array([1.0, 1.0, 0.98])


def _tree(u: Any, v: Any, hue: int) -> Any:
    light = 0.9 - 0.35 * np.hypot(u + 0.3, v + 0.3) + 0.12 * np.sin(9 * u + hue) * np.cos(9 * v)
    return light[:, None] * np.array([62 + 3 * hue, 124, 52])


def _truck(u: Any, _: Any, hue: int) -> Any:
    cab = (u > 0.5)[:, None]
    return np.where(cab, _CABS[hue % len(_CABS)], [222, 222, 216])


SHAPES: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any, int], Any]]] = {
    "house": (_rectangle, _house),
    "pool": (_oval, _pool),
    "tank": (_oval, _tank),
    "tree": (_oval, _tree),
    "truck": (_rectangle, _truck),
}
