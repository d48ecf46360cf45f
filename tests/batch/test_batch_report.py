"""The report and the notebooks' pages: complete, alone, readable by anybody on any screen."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest

from workbench.batch import Job, RunRecord, run_many, write_index, write_report
from workbench.batch.alt_text import describe
from workbench.batch.report import read_summary

BADGE = "# Do digits *fall* into `groups_*`?\n\n[![Colab](https://example.org/b.svg)](https://example.org)"
SHOWN = """
import matplotlib.pyplot as plt, pandas as pd
from workbench import batch
figure, axes = plt.subplots()
axes.plot([1, 2])
axes.set(title="Loss", xlabel="epoch")
figure.supxlabel("n = 2 · digits")
plt.close(figure)
figure
"""
RECORDED = """
from IPython.display import HTML, display
display(HTML('<img src="//example.org/far.png" alt="far away"><b>bold</b>'))
batch.record("name", "digits")
batch.record("stand_in_for", stand_in)
batch.record("score", pd.DataFrame({"way": ["a"], "share": [0.123456]}))
batch.record("bad <b>", "<script>")
batch.check({"it holds": True, "it does not": False, "of others": None}, strict=False)
"""


pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """A run on stand-in data, one on others, and one that failed."""
    folder = tmp_path_factory.mktemp("report")
    cell, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    typed = 'stand_in: str | None = None\nword: str = ""'
    parameters = cell(typed, metadata={"tags": ["parameters"]})
    story = [text(f"{BADGE}\n\nSee [this](https://example.org)."), parameters]
    story += [cell(SHOWN), cell(RECORDED)]
    nbformat.write(nbformat.v4.new_notebook(cells=story), folder / "good.ipynb")
    failing = [text("# It fails"), cell("raise ValueError('<no>')")]
    nbformat.write(nbformat.v4.new_notebook(cells=failing), folder / "bad.ipynb")
    good = {"stand_in": "mnist", "word": "a, b"}
    jobs = [Job(folder / "good.ipynb", good), Job(folder / "good.ipynb"), Job(folder / "bad.ipynb")]
    return run_many(jobs, out=folder / "runs", n_jobs=2)


@pytest.fixture(scope="module")
def report(records: list[RunRecord]) -> Path:
    return write_report(records, records[0].folder.parent / "report")


def test_the_report_says_what_ran_on_what_and_how_it_ended(
    records: list[RunRecord], report: Path
) -> None:
    page = report.read_text()
    assert "<h1>Report on 3 notebook runs</h1>" in page
    assert "2 succeeded, 1 failed" in page
    assert "<b>Stand-in data.</b> mnist could not be loaded" in page
    assert page.count('<span class="stand-in">stand-in for mnist</span>') == 1
    assert page.count("<b>Stand-in for mnist.</b>") == 1
    assert page.count("1 of 3 claims does not hold") == 2
    assert page.count("<td>0.1235</td>") == 2
    assert "<b>ValueError</b>: &lt;no&gt;, in <code>cells[1]</code>" in page
    assert "<script" not in page
    assert "-p stand_in=mnist -p &#39;word=a, b&#39;" in page
    assert {p.name for p in report.parent.iterdir()} == {
        "index.html", "bad.html", *(f"{record.id}.html" for record in records[:2]),
    }  # fmt: skip
    with pytest.raises(ValueError, match="there are none"):
        write_report([], report.parent)


def test_a_summary_is_the_notebooks_own(records: list[RunRecord]) -> None:
    summary = read_summary(records[0])
    assert (summary.title, summary.question) == ("Do digits fall into groups_*?", "See this.")
    (figure,) = summary.figures
    assert figure.alt == "Figure: Loss; across: epoch; n = 2 · digits"
    assert figure.cell == 3  # after the injected parameters
    copy = records[2].folder.parent.parent / "copy" / records[2].id
    shutil.copytree(records[2].folder, copy)
    (copy / "bad.ipynb").write_text("{")
    assert read_summary(RunRecord.load(copy)).title == "bad"


def test_tagged_cells_are_the_main_figures(records: list[RunRecord]) -> None:
    path = records[1].folder / "good.ipynb"
    document = json.loads(path.read_text())
    more = [{**document["cells"][2], "metadata": {"tags": [tag]}} for tag in ("", "main-figure")]
    path.write_text(json.dumps({**document, "cells": document["cells"] + more}))
    assert [f.cell for f in read_summary(records[1]).figures] == [len(document["cells"]) + 1]
    path.write_text(json.dumps({**document, "cells": document["cells"] + 5 * more[:1]}))
    assert [f.cell for f in read_summary(records[1]).figures] == [2, 5, 6, 8]
    path.write_text(json.dumps(document))


def test_a_figure_is_described_by_its_words() -> None:
    figure, panels = plt.subplots(2, 5, layout="constrained")
    assert describe(figure) == ""
    for n, panel in enumerate(panels.flat):
        panel.set_title(f"digit {n}")
    figure.supxlabel("n = 10", x=0.01)
    figure.suptitle("All\ndigits")
    figure.canvas.draw()  # the layout moves the texts
    said = "Figure: All digits; digit 0, digit 1, digit 2, digit 3, digit 4, digit 5, digit 6, "
    assert describe(figure) == said + "digit 7 and 2 more; n = 10"
    plt.close(figure)


@pytest.mark.parametrize("name", ["report", "index", "notebook"])
def test_a_page_stands_alone_and_suits_a_phone_the_dark_and_a_screen_reader(
    browser: Any, records: list[RunRecord], report: Path, name: str
) -> None:
    index = write_index(records[0].folder.parent)
    pages = {"report": report, "index": index, "notebook": records[0].folder / "good.html"}
    context = browser.new_context(
        color_scheme="dark", viewport={"width": 390, "height": 800}, offline=True
    )
    tab, asked, said = context.new_page(), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.goto(pages[name].absolute().as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [
        pages[name].absolute().as_uri()
    ]
    assert said == []
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    colour = "parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/))"
    assert tab.evaluate(colour) < 60
    assert tab.evaluate("document.documentElement.lang") == "en"
    assert tab.locator("main").count() == tab.locator("h1").count() == 1
    assert tab.evaluate("[...document.images].every(image => image.alt && image.naturalWidth)")
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert tab.evaluate(
        "[...document.links].every(a => a.textContent.trim() || a.querySelector('img')?.alt)"
    )
    if name == "notebook":
        assert tab.get_by_alt_text("Figure: Loss; across: epoch; n = 2 · digits").is_visible()
        assert not tab.get_by_text("axes.plot([1, 2])").is_visible()
        tab.get_by_text("Code").nth(2).click()
        assert tab.get_by_text("axes.plot([1, 2])").is_visible()
        assert tab.locator(".wide", has_text="far away").count() == 1
    else:
        assert tab.evaluate("[...document.querySelectorAll('thead th')].every(th => th.scope)")
        for link in tab.locator("a[href$='.html']").all():
            assert (pages[name].parent / link.get_attribute("href").partition("#")[0]).is_file()
    context.close()
