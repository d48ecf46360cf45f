"""The FiftyOne App on a dataset of ours: its map, a lasso, a tag, and the way back to Python."""

import json
import re
import time

import pytest
from jupyterlab_driving import PATIENCE, open_notebook, run_all, run_last
from mouse import FOUR_CORNERS, lasso
from playwright.sync_api import expect

CODE = """
import json
dataset = show.to_fiftyone(ds, "lassoed", maps={"corners": xy}, progress=False)
for _ in range(3):  # FiftyOne waits a minute for its server, which a busy machine may exceed
    link = show.app_link(dataset)
    if "http" in link:
        break
print(link)
"""
STATE = """
back = show.from_fiftyone(dataset, ds, progress=False)
checked = back.tags.values[:, back.tag.values == "checked"].any(axis=1)
threes = ds.sample.values[ds.label.values == 3].tolist()
print(json.dumps({"threes": threes, "tagged": back.sample.values[checked].tolist()}))
"""


@pytest.mark.usefixtures("fiftyone_database")
@pytest.mark.browser
@pytest.mark.timeout(1200)
def test_a_lasso_and_a_tag_in_the_app_come_back(lab, tab, new_tab, keep):
    lab.write("app.ipynb", FOUR_CORNERS, CODE, STATE)
    open_notebook(tab, lab, "app.ipynb")
    run_all(tab, patience=500)
    link = tab.locator(".jp-OutputArea-output").get_by_text("FiftyOne App: http")
    address = re.search(r"http\S+", link.inner_text()).group()
    keep(tab, "notebook")
    threes = json.loads(run_last(tab))["threes"]

    app = new_tab(width=1800)
    advertisement = app.locator(".MuiPopover-root").get_by_text("Dismiss", exact=True)
    app.add_locator_handler(advertisement, lambda button: button.click())
    app.goto(address, wait_until="commit")
    app.get_by_text("corners", exact=True).click()
    expect(app.get_by_text(re.compile(r"^\d+ points$"))).to_be_visible()
    app.get_by_role("button", name="Select", exact=True).click()
    keep(app, "map")
    biggest = app.locator("canvas:not([class*=looker])").last
    lasso(app, biggest, 0.5, 0.5, 0.99, 0.99)
    expect(app.get_by_text(f"{len(threes)} samples").first).to_be_visible()
    keep(app, "lasso")

    app.locator("[data-cy=action-tag-sample-labels]").click()
    tag = app.get_by_placeholder(f"+ tag {len(threes)} samples")
    tag.fill("checked")
    tag.press("Enter")
    app.get_by_text("Apply", exact=True).click()
    expect(app.get_by_text("Apply", exact=True)).to_be_hidden()
    until = time.monotonic() + PATIENCE  # the App says nothing when it has saved them
    while not (tagged := json.loads(run_last(tab))["tagged"]) and time.monotonic() < until:
        tab.wait_for_timeout(500)
    assert tagged == threes
    keep(app, "tagged")
