"""Chromium, JupyterLab and screenshots for all browser tests; a console error fails them."""

import re

import jupyterlab_driving as driving
import pytest
from notebook_contract import ROOT

SCREENSHOTS = ROOT / "screenshots"
#: What is said on the console through no fault of ours: (where from, what).
HARMLESS = [
    # What a machine without the internet does not get: fonts of FiftyOne's App, Colab's badge.
    (r"^https://fonts\.googleapis\.com/", r"net::ERR_"),
    (r"^https://colab\.research\.google\.com/assets/colab-badge\.svg$", r"net::ERR_"),
    # Voilà's template asks for icons from elsewhere, which the page's policy keeps it from.
    (r"^http://127\.0\.0\.1:", r"cdn\.jsdelivr\.net.* Content Security Policy"),
    # anywidget says this after two seconds, and goes on; a busy machine takes longer.
    (r"^$", r"^\[anywidget\] Failed to initialize model\.$"),
]


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """JupyterLab over an empty folder, which the tests put notebooks into."""
    folder, own = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter")
    with driving.serving(folder, own) as running:
        yield running


@pytest.fixture
def errors():
    """The errors on the console of every tab; the test fails if there are any."""
    found = []
    yield found
    assert not found, "\n".join(found)


@pytest.fixture
def new_tab(browser, errors, keep):
    """Open a tab with its own cookies and storage; how it looked last is kept, as failures tell."""
    opened = []

    def opening(width=1280):
        tab = browser.new_page(viewport={"width": width, "height": 1000})
        opened.append(tab)
        tab.set_default_timeout(driving.PATIENCE * 1000)
        # Where a page is loaded anew before JupyterLab knows its kernel again, it asks for one.
        asked = tab.locator(".jp-Dialog", has_text="Select Kernel")
        tab.add_locator_handler(asked, lambda: asked.locator(".jp-mod-accept").click())
        tab.on("pageerror", lambda error: _note("", str(error), errors))
        tab.on("console", lambda message: _note_message(message, errors))
        return tab

    yield opening
    for number, tab in enumerate(opened):
        keep(tab, f"last-{number}")
        tab.close()


def _note_message(message, errors):
    if message.type == "error":
        _note(message.location.get("url", ""), message.text, errors)


def _note(where, text, errors):
    if not any(re.search(w, where) and re.search(t, text) for w, t in HARMLESS):
        errors.append(f"{where}: {text}")


@pytest.fixture
def tab(lab, new_tab):
    """A tab for JupyterLab; the kernels that it leaves are ended."""
    yield new_tab()
    lab.end_kernels()


@pytest.fixture
def keep(request):
    """Keep a screenshot of a tab, or of a part of it, under the test's name."""
    SCREENSHOTS.mkdir(exist_ok=True)
    own = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")

    def keeping(shown, name, **options):
        shown.screenshot(path=SCREENSHOTS / f"{own}-{name}.png", **options)

    return keeping


def pytest_terminal_summary(terminalreporter):
    """Say where the screenshots are."""
    if any(SCREENSHOTS.glob("*.png")):
        terminalreporter.write_line(f"Screenshots to look at: {SCREENSHOTS}")
