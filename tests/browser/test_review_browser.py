"""The review in a real browser: JupyterLab, its keyboard, and a kernel that is killed."""

import json
import os
import sqlite3
import time
from contextlib import closing

import psutil
import pytest
from jupyterlab_driving import open_notebook, run_all, use_theme
from legibility import illegible

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
keys = {"j": "Space", "k": "Enter", "s": "7"}
labels.review(ds, issues, "keyboard.db", reviewer="anna", neighbors=graph, keys=keys)
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


def open_review(tab, lab):
    open_notebook(tab, lab, "review.ipynb")
    run_all(tab)
    tab.wait_for_selector(".wb-card")
    tab.wait_for_function("document.querySelectorAll('.wb-status span').length > 2")


def log(lab):
    with closing(sqlite3.connect(lab.folder / "keyboard.db", timeout=30)) as store:
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
def test_one_review_from_the_keyboard(lab, tab, errors, keep):
    """One story, as browsers start slowly: keys, shortcuts, pages, undo, a dead kernel."""
    lab.write("review.ipynb", CODE)
    open_review(tab, lab)
    cells = tab.locator(".jp-Cell").count()
    first = shown(tab)
    assert len(first) == 6
    tab.click(".wb-card >> nth=0")
    press(tab, "j", "Enter", "u", "x")
    assert [row[1] for row in saved(tab, lab, 4)] == ["confirm", "change", "unclear", "none"]
    signs = [badge[0] for badge in badges(tab)]
    assert signs == ["✓", "→", "?", "✕"]
    assert tab.locator(".wb-keys kbd").all_inner_texts()[:2] == ["j", "k"]
    zoomed(tab)

    press(tab, "n")
    tab.wait_for_selector(".wb-near img")
    assert tab.locator(".wb-near img").count() == 5
    press(tab, "n", "/")
    tab.keyboard.type("7")
    press(tab, "Enter")  # the search closes, the fifth image is a 7
    assert saved(tab, lab, 5)[-1][2] == 7
    press(tab, "z", "s")  # and by a key of the reader's own
    assert saved(tab, lab, 7)[-1][2] == 7

    # Keys that JupyterLab knows as well (a, b, d d, x, z, m, y) did nothing to the notebook.
    # Here, d leaves an image out of the dataset; z takes both and the 7 back.
    press(tab, "a", "b", "d", "d", "m", "y", "z", "z", "z")
    assert [row[1] for row in saved(tab, lab, 12)[-3:]] == ["undo"] * 3
    tab.wait_for_function("document.querySelectorAll('.wb-decision:not(:empty)').length === 4")
    assert tab.locator(".jp-Cell").count() == cells

    reviewed = "document.querySelector('.wb-status')?.textContent.startsWith('4 reviewed')"
    tab.wait_for_function(reviewed)
    legible_in_both_themes(tab, keep)
    turning(tab, lab, first)
    after_a_dead_kernel(tab, lab, errors)
    keep(tab, "goes-on")


def zoomed(tab):
    """The enlarged image grows by key and by wheel, at the pointer, and is whole again after."""
    scale = "new DOMMatrix(getComputedStyle(document.querySelector('.wb-large img')).transform).a"
    press(tab, "e", "+", "+")
    assert tab.evaluate(scale) == pytest.approx(1.25**2)
    tab.mouse.move(300, 200)
    tab.mouse.wheel(0, -100)
    tab.wait_for_function(f"{scale} > 1.9")
    origin = tab.evaluate("document.querySelector('.wb-large img').style.transformOrigin")
    width, height = tab.evaluate("[innerWidth, innerHeight]")
    assert [float(part.rstrip("%")) for part in origin.split()] == pytest.approx(
        [30_000 / width, 20_000 / height], rel=1e-3
    )
    press(tab, *"-" * 9)
    assert tab.evaluate(scale) == 1
    press(tab, "Escape")
    tab.wait_for_selector(".wb-large", state="hidden")


def legible_in_both_themes(tab, keep):
    for theme in ("Dark", "Light"):
        use_theme(tab, theme)
        assert illegible(tab.locator(".wb-review")) == {}
        keep(tab, theme.lower())
    tab.click(".wb-card >> nth=4")  # the menu took the focus


def turning(tab, lab, first):
    """The next page comes by itself, was loaded before, and undo finds the way back."""
    tab.evaluate(WATCH)
    press(tab, "3", "3")
    tab.wait_for_function("window.idle.length === 1")
    second = shown(tab)
    assert not set(first) & set(second)
    for turn in range(2, 5):
        for _ in range(6):
            press(tab, "Space")
            tab.wait_for_timeout(60)  # a hasty reviewer
        tab.wait_for_function(f"window.idle.length === {turn}")
    rows = saved(tab, lab, 32)
    assert len({row[0] for row in rows}) == 24, rows
    turns = tab.evaluate("window.turns")
    assert all(turn["whole"] for turn in turns)
    if path := os.environ.get("WORKBENCH_TIMINGS"):
        timings = {"turns": turns, "idle": tab.evaluate("window.idle")}
        with open(path, "w") as file:  # noqa: PTH123
            json.dump(timings, file)
    press(tab, "z")
    rows = saved(tab, lab, 33)
    assert rows[-1][1] == "undo"
    tab.wait_for_function("document.querySelectorAll('.wb-decision:not(:empty)').length === 5")


def after_a_dead_kernel(tab, lab, errors):
    """What was saved is there when the notebook is run again; the review goes on behind it."""
    before = log(lab)
    (session,) = lab.api("sessions")
    children = psutil.Process(lab.server.pid).children(recursive=True)
    (kernel,) = [c for c in children if any(session["kernel"]["id"] in x for x in c.cmdline())]
    assert errors == []
    kernel.kill()
    assert log(lab) == before
    lab.end_kernels()
    open_review(tab, lab)
    # JupyterLab and its widget manager say of the dead kernel that it cannot be reached.
    of_the_dead = (session["kernel"]["id"], "@jupyter-widgets/jupyterlab-manager")
    errors[:] = [error for error in errors if not any(sign in error for sign in of_the_dead)]
    decided = {row[0] for row in before if row[1] != "undo"}
    ids = tab.eval_on_selector_all(".wb-card", "boxes => boxes.map((box) => box.title)")
    undone = before[-1][0]
    assert ids[0].startswith(f"sample {undone},")
    assert not {title.split()[1].rstrip(",") for title in ids[1:]} & decided
    tab.click(".wb-card >> nth=0")
    press(tab, "u")
    assert saved(tab, lab, len(before) + 1)[-1][:2] == (undone, "unclear")
