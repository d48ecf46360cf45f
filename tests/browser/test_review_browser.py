"""The review in a real browser: JupyterLab, its keyboard, and a kernel that is killed."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from types import SimpleNamespace

import psutil
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs a browser: apt-get install chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupyterlab")

FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
TOKEN = "only-for-this-test"
CODE = """
import numpy as np, pandas as pd
from workbench import datasets, embeddings, labels
ds = datasets.load("digits", n=200)
ds = ds.assign(label=labels.inject_noise(ds.label, "uniform", 0.2, seed=1).label)
score = np.linspace(1, 0, 200)
issues = pd.DataFrame(
    {"suggested": (ds.label.values + 1) % 10, "score": score, "is_issue": score > 0.7},
    index=pd.Index(ds.sample.values, name="sample"),
)
graph = embeddings.neighbors(embeddings.features(ds), k=5)
labels.review(ds, issues, "review.db", reviewer="anna", neighbors=graph)
"""
#: Milliseconds from each last key of a page until the next grid is painted, its images too, and
#: until a frame is painted without any work, which is what the machine itself takes.
WATCH = """() => {
    const grid = document.querySelector('.wb-grid');
    window.turns = []; window.idle = [];
    let pressed = 0;
    document.addEventListener('keydown', () => { pressed = performance.now(); }, true);
    const painted = (done) => requestAnimationFrame(() => setTimeout(done, 0));
    new MutationObserver(() => {
        const from = pressed;
        painted(() => {
            const images = [...grid.querySelectorAll('img')];
            const whole = images.every((image) => image.complete && image.naturalWidth > 0);
            window.turns.push({ ms: performance.now() - from, whole });
            const start = performance.now();
            painted(() => window.idle.push(performance.now() - start));
        });
    }).observe(grid, { attributes: true, attributeFilter: ['data-page'] });
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one notebook."""
    place = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(CODE.strip())],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    nbformat.write(notebook, place / "review.ipynb")
    return place


@pytest.fixture(scope="module")
def lab(folder, tmp_path_factory):
    """JupyterLab on a free port, with a token and none of the user's settings."""
    own = tmp_path_factory.mktemp("jupyter")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = ("CONFIG_DIR", "RUNTIME_DIR", "DATA_DIR")
    environment = {**os.environ, **{f"JUPYTER_{name}": str(own / name) for name in names}}
    environment |= {
        "JUPYTER_NO_CONFIG": "1",
        "IPYTHONDIR": str(own / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("WORKBENCH_RUN_ID", None)
    command = [
        sys.executable, "-m", "jupyter", "lab", "--allow-root", "--no-browser",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    with (own / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        answering(f"{address}/api/status?token={TOKEN}", server, own / "log")
        yield SimpleNamespace(address=address, folder=folder, server=server)
    finally:
        server.terminate()
        server.wait(60)


def answering(url, server, log, patience=120):
    until = time.monotonic() + patience
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab does not answer:\n{log.read_text()}")


@pytest.fixture(scope="module")
def page(lab):
    """The notebook, its cell run and the first images shown."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 1000})
        tab.set_default_timeout(120_000)
        tab.errors = []
        tab.on("pageerror", lambda error: tab.errors.append(str(error)))
        open_notebook(tab, lab)
        yield tab
        browser.close()


def open_notebook(tab, lab):
    tab.goto(f"{lab.address}/lab/tree/review.ipynb?token={TOKEN}&reset")
    tab.wait_for_selector(".jp-Notebook .jp-Cell")
    tab.wait_for_selector(".jp-Notebook .jp-Spinner", state="detached")
    tab.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    try:
        run_cell(tab, 40_000)
    except playwright.TimeoutError:
        # On a busy machine JupyterLab can lose a key while it is connecting to the kernel.
        run_cell(tab, 120_000)
    tab.wait_for_function("document.querySelectorAll('.wb-status span').length > 2")


def run_cell(tab, patience):
    tab.click(".jp-Notebook .cm-content")
    tab.keyboard.press("Control+Enter")
    tab.wait_for_selector(".wb-card", timeout=patience)


def log(lab):
    with closing(sqlite3.connect(lab.folder / "review.db", timeout=30)) as store:
        query = "SELECT sample, action, label, reviewer FROM decisions ORDER BY id"
        return store.execute(query).fetchall()


def saved(tab, lab, n):
    """Wait until the log has so many rows, and return it."""
    tab.wait_for_function("document.querySelector('.wb-review').dataset.unsaved !== '1'")
    until = time.monotonic() + 60
    while len(log(lab)) < n and time.monotonic() < until:
        tab.wait_for_timeout(50)
    return log(lab)


def shown(tab):
    return [int(box) for box in tab.eval_on_selector_all(
        ".wb-card", "boxes => boxes.map((box) => box.dataset.at)")]  # fmt: skip


def badges(tab):
    return tab.eval_on_selector_all(
        ".wb-decision", "boxes => boxes.map((box) => box.textContent).filter(Boolean)"
    )


def press(tab, *keys):
    for key in keys:
        tab.keyboard.press(key)


@pytest.mark.timeout(600)
def test_one_review_from_the_keyboard(page, lab):
    """One story, as browsers start slowly: keys, shortcuts, pages, undo, a dead kernel."""
    cells = page.locator(".jp-Cell").count()
    first = shown(page)
    assert len(first) == 6
    page.click(".wb-card >> nth=0")
    press(page, "Space", "Enter", "u", "x")
    assert [row[1] for row in saved(page, lab, 4)] == ["confirm", "change", "unclear", "none"]
    signs = [badge[0] for badge in badges(page)]
    assert signs == ["✓", "→", "?", "✕"]

    press(page, "n")
    page.wait_for_selector(".wb-near img")
    assert page.locator(".wb-near img").count() == 5
    press(page, "n", "/")
    page.keyboard.type("7")
    press(page, "Enter")  # the search closes, the fifth image is a 7
    assert saved(page, lab, 5)[-1][2] == 7

    # Keys that JupyterLab knows as well (a, b, d d, x, z, m, y) did nothing to the notebook.
    press(page, "a", "b", "d", "d", "m", "y", "z")
    assert saved(page, lab, 6)[-1][1] == "undo"
    page.wait_for_function("document.querySelectorAll('.wb-decision:not(:empty)').length === 4")
    assert page.locator(".jp-Cell").count() == cells

    turning(page, lab, first)
    after_a_dead_kernel(page, lab)
    assert page.errors == []


def turning(page, lab, first):
    """The next page comes by itself, was loaded before, and undo finds the way back."""
    page.evaluate(WATCH)
    press(page, "3", "3")
    page.wait_for_function("window.idle.length === 1")
    second = shown(page)
    assert not set(first) & set(second)
    for turn in range(2, 5):
        for _ in range(6):
            press(page, "Space")
            page.wait_for_timeout(60)  # a hasty reviewer
        page.wait_for_function(f"window.idle.length === {turn}")
    rows = saved(page, lab, 26)
    assert len({row[0] for row in rows}) == 24
    turns = page.evaluate("window.turns")
    assert all(turn["whole"] for turn in turns)
    if path := os.environ.get("WORKBENCH_TIMINGS"):
        timings = {"turns": turns, "idle": page.evaluate("window.idle")}
        with open(path, "w") as file:  # noqa: PTH123
            json.dump(timings, file)
    press(page, "z")
    rows = saved(page, lab, 27)
    assert rows[-1][1] == "undo"
    page.wait_for_function("document.querySelectorAll('.wb-decision:not(:empty)').length === 5")


def after_a_dead_kernel(page, lab):
    """What was saved is there when the notebook is run again; the review goes on behind it."""
    before = log(lab)
    children = psutil.Process(lab.server.pid).children(recursive=True)
    kernels = [child for child in children if "ipykernel_launcher" in child.cmdline()]
    assert len(kernels) == 1
    kernels[0].kill()
    assert log(lab) == before
    for session in api(lab, "sessions"):
        api(lab, f"sessions/{session['id']}", method="DELETE")
    open_notebook(page, lab)
    decided = {row[0] for row in before if row[1] != "undo"}
    ids = page.eval_on_selector_all(".wb-card", "boxes => boxes.map((box) => box.title)")
    undone = before[-1][0]
    assert ids[0].startswith(f"sample {undone},")
    assert not {title.split()[1].rstrip(",") for title in ids[1:]} & decided


def api(lab, path, method="GET"):
    request = urllib.request.Request(f"{lab.address}/api/{path}", method=method)
    request.add_header("Authorization", f"token {TOKEN}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or "null")
