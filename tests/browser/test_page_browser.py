"""Pages without code, through Voilà: `workbench review` and `workbench open --app`."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import nbformat
import pandas as pd
import pytest
from jupyterlab_driving import KERNEL, PATIENCE
from notebook_running import write_digits

PARAMETERS = "n: int = 3"
PAGE = """
from workbench import boxes, datasets, embeddings, show
ds = datasets.load("digits", n=n)
xy = embeddings.project(embeddings.features(ds), "pca")
show.scatter(ds, xy, title="A map")
"""
ANNOTATION = 'boxes.annotate(ds, ["loop"], "drawn.db")'


@contextmanager
def showing(folder, *arguments):
    """The command, until it says where its page is; ended as a closed terminal ends it."""
    environment = {k: v for k, v in os.environ.items() if k != "WORKBENCH_RUN_ID"}
    log = folder / "log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "workbench.commands", *arguments, "--no-browser"]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    try:
        until = time.monotonic() + PATIENCE
        while not (found := re.search(r"Page: (\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield found[1], log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def answered(address):
    """The status that somebody without the token gets, and where they are sent."""
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            return answer.status, answer.url
    except urllib.error.HTTPError as error:
        return error.code, error.url


@pytest.mark.timeout(400)
def test_review_in_one_command(tmp_path, new_tab, keep):
    """Queue, page, decisions by the keyboard, and the corrected folder behind them."""
    write_digits(tmp_path / "digits", 100)
    moved = tmp_path / "digits" / "class 1" / "1.png"
    moved.rename(tmp_path / "digits" / "class 0" / "1.png")
    with showing(tmp_path, "review", "digits") as (page, _):
        open_to_all = page.partition("?")[0]
        assert "/login" in answered(open_to_all)[1]
        assert answered(f"{open_to_all}voila/files/review.db")[0] == 403
        tab = new_tab()
        tab.goto(page)
        tab.click(".wb-card >> nth=0")
        first = tab.locator(".wb-card").first.get_attribute("title")
        assert "class 0/1.png" in first
        tab.keyboard.press("Enter")
        tab.wait_for_function(
            "document.querySelector('.wb-status')?.textContent.startsWith('1 reviewed')"
        )
        keep(tab, "page")
        tab.goto("about:blank")  # it would miss the server
    corrected = tmp_path / "digits-review" / "corrected"
    assert (corrected / "class 1" / "1.png").exists()
    assert not (corrected / "class 0" / "1.png").exists()
    table = pd.read_csv(tmp_path / "digits-review" / "issues.csv", index_col="sample")
    assert table.loc["class 0/1.png", ["review", "label"]].tolist() == ["changed", "class 1"]


@pytest.mark.browser
@pytest.mark.timeout(400)
def test_a_notebook_as_a_page(tmp_path, new_tab, keep):
    """Map and annotation work, with the parameters given, and no code is shown."""
    cells = [
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        *map(nbformat.v4.new_code_cell, (PAGE.strip(), ANNOTATION)),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, tmp_path / "own.ipynb")
    with showing(tmp_path, "open", "own.ipynb", "--app", "-p", "n=40") as (page, _):
        tab = new_tab()
        tab.goto(page)
        tab.get_by_text("0 of 40 images complete").first.wait_for()
        tab.wait_for_selector("canvas")
        keep(tab, "page", full_page=True)
        assert "datasets.load" not in tab.inner_text("body")
        tab.goto("about:blank")
    assert (tmp_path / "opened" / "own" / "drawn.db").exists()
