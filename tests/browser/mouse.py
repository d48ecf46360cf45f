"""Drawing with the mouse, and a map to draw on."""

# A cell: one class in each corner of a map, so that a lasso around a corner holds what is known.
FOUR_CORNERS = """
import numpy as np, xarray as xr
from workbench import datasets, show
ds = datasets.load("digits", n=300)
ds = ds.isel(sample=ds.label.values < 4)
corner = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])[ds.label.values]
jitter = np.random.default_rng(0).uniform(-0.4, 0.4, corner.shape)
xy = xr.DataArray(corner + jitter, dims=("sample", "axis"))
"""


def lasso(tab, canvas, left, top, right, bottom):
    """Draw around a rectangle, given in shares of a canvas's width and height."""
    box = canvas.bounding_box()
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 0.05)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    tab.mouse.move(*points[0])
    tab.mouse.down()
    for point in points[1:]:
        tab.mouse.move(*point, steps=8)
    tab.mouse.up()
