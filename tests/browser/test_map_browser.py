"""The interactive map in JupyterLab: a lasso, the gallery, tags and corrected labels."""

import json
import re
import time
from io import BytesIO

import numpy as np
import pytest
from jupyterlab_driving import PATIENCE, open_notebook, run_all, run_last, use_theme
from legibility import illegible
from mouse import FOUR_CORNERS, lasso
from PIL import Image, ImageColor
from playwright.sync_api import expect

CODE = """
seen = show.scatter(ds, xy, title="Four corners")
seen
"""
STATE = """
import json
threes = ds.sample.values[ds.label.values == 3].tolist()
corrected = {i: int(label) for i, label in seen.corrections.items()}
state = {"threes": threes, "selected": seen.selection().tolist(), "corrected": corrected}
print(json.dumps(state | {"tags": {tag: sorted(ids) for tag, ids in seen.tags.items()}}))
"""


@pytest.mark.timeout(600)
def test_a_lasso_fills_the_gallery_and_what_is_said_of_it_reaches_python(lab, tab, keep):
    lab.write("map.ipynb", FOUR_CORNERS, CODE, STATE)
    open_notebook(tab, lab, "map.ipynb")
    run_all(tab)
    widget = tab.locator(".workbench-live")
    canvas = widget.locator("canvas").first
    expect(canvas).to_be_visible()
    # The still picture is for where there is no widget.
    expect(tab.locator(".jp-OutputArea-output img[src^='data:image/png']").first).to_be_hidden()
    threes = json.loads(run_last(tab))["threes"]

    lasso(tab, canvas, 0.5, 0.5, 0.99, 0.99)
    expect(widget.get_by_text(f"{len(threes)} selected")).to_be_visible()
    captions = widget.locator("figure").evaluate_all("all => all.map((one) => one.title)")
    assert captions == [f"{i} · 3" for i in threes]
    keep(tab, "light")

    widget.get_by_placeholder("tag").fill("odd")
    widget.get_by_role("button", name="Tag").click()
    expect(widget.get_by_text(f"{len(threes)} tagged 'odd'")).to_be_visible()
    widget.get_by_placeholder("class").fill("2")
    widget.get_by_role("button", name="Relabel").click()
    expect(widget.locator("figcaption").first).to_have_text(f"{threes[0]} · 3 → 2")
    state = json.loads(run_last(tab))
    assert state["selected"] == threes
    assert state["tags"] == {"odd": threes}
    assert state["corrected"] == {str(i): 2 for i in threes}

    painted_as(tab, canvas, "2")
    assert illegible(widget) == {}
    use_theme(tab, "Dark")
    assert illegible(widget) == {}
    keep(tab, "dark")
    widget.get_by_role("button", name="Clear").click()
    expect(widget.locator("figure")).to_have_count(0)


def painted_as(tab, canvas, name):
    """Wait until the points in the lower right have the colour of a class, by what is painted."""
    swatch = tab.locator(".workbench-live span", has_text=re.compile(f"^ ?{name}$")).last
    dot = swatch.locator("span").first.evaluate("dot => getComputedStyle(dot).backgroundColor")
    wanted = np.array(ImageColor.getrgb(dot.replace(" ", "")))
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        pixels = np.asarray(Image.open(BytesIO(canvas.screenshot())).convert("RGB"))
        corner = pixels[pixels.shape[0] // 2 :, pixels.shape[1] // 2 :].reshape(-1, 3)
        colors, counts = np.unique(corner, axis=0, return_counts=True)
        vivid = np.ptp(colors.astype(int), axis=1) > 30
        most = colors[vivid][counts[vivid].argmax()]
        if np.abs(most - wanted).max() <= 3:
            return
    raise AssertionError(f"the points are painted {most}, and the legend says {wanted}")
