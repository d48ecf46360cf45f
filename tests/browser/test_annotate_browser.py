"""Annotation in a real browser: mouse and keyboard, a reload, a killed kernel, two people."""

import json
import sqlite3
import time
from contextlib import closing, suppress
from urllib.error import HTTPError

import numpy as np
import psutil
import pytest
from jupyterlab_driving import open_notebook, run_all, use_theme
from legibility import illegible
from PIL import Image

CODE = """
import warnings
from workbench import boxes, datasets
ds = datasets.load("./photos", size=32).drop_vars(["label", "class"])
boxes.annotate(ds, ["plate", "car", "person"], "drawn.db", reviewer="NAME")
"""
#: Full size, upright, of the photographs; on file they lie on their side.
WIDTH, HEIGHT = 1200, 900


@pytest.fixture
def photos(lab):
    folder = lab.folder / "photos"
    folder.mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    rng = np.random.default_rng(0)
    for name in "abcdefgh":
        pixels = rng.integers(0, 255, (WIDTH // 50, HEIGHT // 50, 3), np.uint8)
        image = Image.fromarray(pixels).resize((HEIGHT, WIDTH))
        image.save(folder / f"{name}.jpg", exif=exif)
    for name in ("anna", "ben"):
        lab.write(f"{name}.ipynb", CODE.replace("NAME", name))


class Canvas:
    """The first image of the page, with places in full-size pixels of the upright image."""

    def __init__(self, tab):
        self.tab, self.svg = tab, tab.locator(".wb-canvas").first

    def place(self, x, y):
        return self.svg.evaluate(
            "(svg, [x, y]) => { const p = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());"
            " return [p.x, p.y]; }",
            [x, y],
        )

    def drag(self, start, end):
        self.tab.mouse.move(*self.place(*start))
        self.tab.mouse.down()
        self.tab.mouse.move(*self.place(*end), steps=4)
        self.tab.mouse.up()

    def click(self, *at):
        self.tab.mouse.click(*self.place(*at))


def open_annotation(tab, lab, name="anna"):
    open_notebook(tab, lab, f"{name}.ipynb")
    run_all(tab)
    tab.wait_for_selector(".wb-card")
    tab.wait_for_function("document.querySelectorAll('.wb-status span').length > 2")
    return Canvas(tab)


def log(lab, name="drawn.db"):
    with closing(sqlite3.connect(lab.folder / name, timeout=30)) as store:
        query = "SELECT object, action, data, sample, reviewer FROM decisions ORDER BY id"
        rows = store.execute(query).fetchall()
    return [(name, action, json.loads(data or "null"), *more) for name, action, data, *more in rows]


def saved(tab, lab, n):
    """Wait until the log has so many rows, and return the last one."""
    until = time.monotonic() + 60
    while len(log(lab)) < n and time.monotonic() < until:
        tab.wait_for_timeout(50)
    rows = log(lab)
    assert len(rows) == n
    return rows[-1]


def corners(data):
    return [data[name] for name in ("x_min", "y_min", "x_max", "y_max")]


def press(tab, *keys):
    for key in keys:
        tab.keyboard.press(key)


@pytest.mark.timeout(900)
def test_a_day_of_annotation(lab, photos, tab, new_tab, errors, keep):
    """One story, as browsers start slowly."""
    canvas = open_annotation(tab, lab)
    size = canvas.svg.locator("image").evaluate(
        "e => [e.width.baseVal.value, e.height.baseVal.value]"
    )
    assert size == [WIDTH, HEIGHT]
    mouse(tab, lab, canvas)
    keyboard(tab, lab)
    shapes(tab, lab, canvas)
    zoomed(tab, lab, canvas, keep)
    for theme in ("Dark", "Light"):
        use_theme(tab, theme)
        keep(tab, theme.lower())
        texts = set(illegible(tab.locator(".wb-boxes")))
        assert texts <= {"plate", "car", "person"}  # these lie on the photographs
    pages(tab, lab, canvas)
    before = log(lab)
    reloaded(tab, lab, keep)
    after_a_dead_kernel(tab, lab, errors, before)
    two_at_once(tab, lab, new_tab, keep)


def mouse(tab, lab, canvas):
    """Draw, move, resize, delete, undo: each is saved on release, within two screen pixels."""
    near = pytest.approx
    pixel = 2 * WIDTH / canvas.svg.bounding_box()["width"]
    canvas.drag((200, 150), (500, 450))
    drawn = saved(tab, lab, 1)
    assert (drawn[1], drawn[2]["label"]) == ("change", "plate")
    assert corners(drawn[2]) == near([200, 150, 500, 450], abs=pixel)
    canvas.drag((350, 300), (450, 350))
    assert corners(saved(tab, lab, 2)[2]) == near([300, 200, 600, 500], abs=2 * pixel)
    canvas.drag((600, 500), (1500, 1000))  # a handle, to beyond the edge
    assert corners(saved(tab, lab, 3)[2]) == near([300, 200, WIDTH, HEIGHT], abs=2 * pixel)
    press(tab, "x")
    assert saved(tab, lab, 4)[1] == "none"
    press(tab, "z", "z")
    assert saved(tab, lab, 6)[1] == "undo"
    tab.wait_for_function(
        "Math.abs(document.querySelector('rect.wb-outline')?.width.baseVal.value - 300) < 40"
    )


def keyboard(tab, lab):
    """Every action has a key, and none of them reaches the notebook."""
    cells = tab.locator(".jp-Cell").count()
    press(tab, "1", "a")
    drawn = saved(tab, lab, 7)[2]
    assert (drawn["label"], corners(drawn)) == ("car", [480, 360, 720, 540])
    press(tab, "ArrowRight", "Shift+ArrowDown")
    assert corners(saved(tab, lab, 9)[2]) == [492, 360, 732, 549]
    press(tab, "2")
    assert saved(tab, lab, 10)[2]["label"] == "person"
    press(tab, "/")
    tab.keyboard.type("pla")
    press(tab, "Enter")
    assert saved(tab, lab, 11)[2]["label"] == "plate"
    press(tab, "s", "Delete", "d", "d", "m", "y")
    assert saved(tab, lab, 12)[1] == "none"
    assert tab.locator(".jp-Cell").count() == cells


def shapes(tab, lab, canvas):
    """A polygon by its corners, a point by a click."""
    press(tab, "p")
    for at in ((100, 700), (300, 700), (200, 850)):
        canvas.click(*at)
    press(tab, "Enter")
    drawn = saved(tab, lab, 13)[2]
    pixel = 2 * WIDTH / canvas.svg.bounding_box()["width"]
    assert np.array(drawn["points"]) == pytest.approx(
        np.array([[100, 700], [300, 700], [200, 850]]), abs=pixel
    )
    press(tab, "Escape", "o")
    canvas.click(900, 800)
    assert saved(tab, lab, 14)[2]["points"][0] == pytest.approx([900, 800], abs=pixel)
    press(tab, "Escape", "b")


def zoomed(tab, lab, canvas, keep):
    """Zoomed and enlarged, coordinates stay those of the full-size image, and finer."""
    tab.mouse.move(*canvas.place(800, 300))
    for _ in range(6):
        tab.mouse.wheel(0, -100)
    press(tab, "e")
    tab.wait_for_function("document.querySelector('.wb-canvas')?.clientHeight > 400")
    view = [float(x) for x in canvas.svg.get_attribute("viewBox").split()]
    assert view[2] < WIDTH / 3
    assert view[0] < 800 < view[0] + view[2]
    canvas.drag((780, 280), (820, 310))
    assert corners(saved(tab, lab, 15)[2]) == pytest.approx([780, 280, 820, 310], abs=0.5)
    tab.wait_for_timeout(500)
    keep(tab, "enlarged")
    press(tab, "e", "f")
    assert canvas.svg.get_attribute("viewBox") == f"0 0 {WIDTH} {HEIGHT}"


def pages(tab, lab, canvas):
    """Enter: complete, and on to the next image; n: the next page, which was loaded before."""
    canvas.click(1100, 100)
    press(tab, "Enter")
    assert saved(tab, lab, 16)[:2] == ("*", "confirm")
    assert "wb-focused" in tab.locator(".wb-card").nth(1).get_attribute("class")
    press(tab, "n")
    tab.wait_for_function("document.querySelectorAll('.wb-card').length === 2")
    press(tab, "N")
    tab.wait_for_function("document.querySelectorAll('.wb-card').length === 6")


def objects(tab):
    return tab.locator(".wb-card").first.locator(".wb-shape").count()


def reloaded(tab, lab, keep):
    """After a reload the kernel's widget is there again, as it was left."""
    assert objects(tab) == 4
    tab.reload()
    tab.wait_for_selector(".jp-Notebook .jp-Cell")
    run_all(tab)
    tab.wait_for_function("document.querySelectorAll('.wb-status span').length > 2")
    names = tab.eval_on_selector_all(".wb-name", "all => all.map((e) => e.textContent)")
    assert names == ["b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg", "g.jpg"]
    keep(tab, "reloaded")


def processes(lab, kernel):
    """The server's processes that run a kernel."""
    found = []
    for child in psutil.Process(lab.server.pid).children(recursive=True):
        with suppress(psutil.Error):
            found += [child] * any(kernel in part for part in child.cmdline())
    return found


def ended(lab):
    """End the kernels; whether none is left."""
    with suppress(HTTPError):  # while the server is at work on one
        lab.end_kernels()
        return not lab.api("sessions")


def wait_until(tab, holds):
    until = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < until
        tab.wait_for_timeout(200)


def after_a_dead_kernel(tab, lab, errors, before):
    """What was called saved is there; what could not be saved is said so."""
    assert log(lab) == before
    (session,) = lab.api("sessions")
    (kernel,) = processes(lab, session["kernel"]["id"])
    assert errors == []
    kernel.kill()
    kernel.wait(30)
    assert log(lab) == before
    # The server starts a dead kernel again, and must be through with that before it can end it.
    wait_until(tab, lambda: processes(lab, session["kernel"]["id"]))
    wait_until(tab, lambda: ended(lab))
    canvas = open_annotation(tab, lab)
    of_the_dead = (session["kernel"]["id"], "@jupyter-widgets/jupyterlab-manager")
    errors[:] = [error for error in errors if not any(sign in error for sign in of_the_dead)]
    canvas.drag((100, 100), (300, 300))
    assert saved(tab, lab, len(before) + 1)[3] == "b.jpg"


def two_at_once(tab, lab, new_tab, keep):
    """Two people draw in one store, and see how far they agree."""
    n = len(log(lab))
    other = new_tab()
    canvas = open_annotation(other, lab, "ben")
    press(other, "Escape")
    other.locator(".wb-card").nth(1).click(position={"x": 5, "y": 5})
    second = Canvas(other)
    second.svg = other.locator(".wb-canvas").nth(1)
    second.drag((110, 100), (300, 310))
    Canvas(tab).drag((600, 600), (700, 700))
    saved(tab, lab, n + 2)
    assert {(row[3], row[4]) for row in log(lab)[n:]} == {("b.jpg", "ben"), ("b.jpg", "anna")}
    other.wait_for_function(
        "document.querySelector('.wb-status')?.textContent.includes('F1 with anna')"
    )
    assert canvas.svg.count() == 1
    keep(other, "ben")


REVIEW = """
from workbench import boxes, datasets
ds = datasets.load("./photos", size=32).drop_vars(["label", "class"])
def box(x, label="car", **more):
    return dict(sample="a.jpg", x_min=x, y_min=300, x_max=x + 90, y_max=390, label=label, **more)
given = boxes.as_table([box(100), box(300, "plate"), box(500)], ds)
seen = [box(100, score=.9), box(300, score=.9), box(545, score=.9), box(900, score=.9)]
boxes.review(ds, given, boxes.find_box_issues(given, seen), "reviewed.db", reviewer="anna", audit=0)
"""


@pytest.mark.timeout(600)
def test_each_suspect_box_takes_one_key(lab, photos, tab, keep):
    lab.write("review.ipynb", REVIEW)
    open_annotation(tab, lab, "review")
    asked = tab.locator("figcaption").all_inner_texts()
    assert ["a car?" in asked[0], "missing" in asked[1], "placed" in asked[2]] == [True] * 3
    keep(tab, "asked")
    tab.locator(".wb-canvas").first.click(position={"x": 4, "y": 4})
    press(tab, "0", "Enter", "Space", "x")
    until = time.monotonic() + 60
    while len(rows := log(lab, "reviewed.db")) < 4 and time.monotonic() < until:
        tab.wait_for_timeout(50)
    assert [row[1] for row in rows] == ["change", "change", "confirm", "none"]
    assert rows[0][2]["label"] == "car"
    assert corners(rows[1][2]) == [900, 300, 990, 390]
    tab.wait_for_function("document.querySelectorAll('.wb-card[data-done=yes]').length === 0")
    press(tab, "z")
    tab.wait_for_function("document.querySelector('.wb-said')?.textContent.includes('taken back')")
    keep(tab, "undone")
