"""The documentation builds strictly, fetches nothing, and its examples and commands are right."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from notebook_contract import NOTEBOOKS, ROOT, badge

from workbench.batch.cli.common import named_values
from workbench.batch.notebook import Notebook
from workbench.batch.parameters import check_parameters, combinations, read_parameters

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
REMOTE = re.compile(r"(https?:)?//")


def blocks(page, *languages):
    return [code for language, code in FENCE.findall(page.read_text()) if language in languages]


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python", "pycon")], ids=name
)
def test_examples_run(page, tmp_path, monkeypatch):
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    here = {"__name__": "__main__"}
    for code in blocks(page, "python"):
        exec(compile(code, name(page), "exec"), here)
    parser = doctest.DocTestParser()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    session = "\n".join(blocks(page, "pycon"))
    runner.run(parser.get_doctest(session, here, name(page), name(page), 0))
    assert runner.failures == 0


def test_the_readers_first_lines_are_few():
    first = blocks(ROOT / "README.md", "python")[0]
    assert len([line for line in first.splitlines() if line and "import" not in line]) == 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_its_badge_in_the_readme_and_its_page(path):
    row = re.search(rf"^\| \[{path.stem}\].*$", (ROOT / "README.md").read_text(), re.M)
    assert row
    assert badge(path.name) in row[0]
    assert f"notebooks/{path.name}" in (ROOT / "docs" / "index.md").read_text()
    ways = [
        code for page in PAGES if page.parent.name == "want" for code in blocks(page, "console")
    ]
    assert f"workbench run notebooks/{path.name}" in "".join(ways)


def runs():
    """Every `workbench run` or `open NOTEBOOK` of the documentation, as words."""
    for page in PAGES:
        for line in "".join(blocks(page, "console")).splitlines():
            words = shlex.split(line.removeprefix("$ ")) if line.startswith("$ ") else []
            if (
                words[:1]
                and Path(words[0]).name == "workbench"
                and words[1:2] in (["run"], ["open"])
            ):
                yield pytest.param(words[2:], id=f"{name(page)}: {line[:60]}")


@pytest.mark.parametrize("words", [*runs()])
def test_commands_name_notebooks_and_parameters_that_there_are(words):
    given = [text for flag, text in pairwise(words) if flag == "-p"]
    for path in (word for word in words if word.endswith(".ipynb") and "my_question" not in word):
        assert ROOT / path in NOTEBOOKS
        if "epcohs=1" not in given:
            known = read_parameters(Notebook.read(ROOT / path))
            for chosen in combinations(known, named_values(given)):
                check_parameters(known, chosen)


class Fetched(HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "link" and attrs.get("rel") != "canonical":
            self.found.append(attrs.get("href"))
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.found.append(attrs.get("src"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
def test_the_site_fetches_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text())
        assert not [link for link in parser.found if link and REMOTE.match(link)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_what_the_page_where_is_what_names_is_there():
    page = (ROOT / "docs" / "where-is-what.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| `(\w[\w/]+/)`:(.*) \|$", page, re.M)
    packages = {path.parent.name for path in (ROOT / "src" / "workbench").glob("*/__init__.py")}
    assert {package.split("/")[0] for package, _ in rows} == packages
    named = {package + file for package, text in rows for file in re.findall(r"`(\w+\.py)`", text)}
    assert not [file for file in named if not (ROOT / "src" / "workbench" / file).is_file()]


@pytest.mark.kernel
def test_the_search_works_on_pages_opened_from_disk(site, browser):
    context = browser.new_context(offline=True)
    tab = context.new_page()
    tab.goto((site / "index.html").as_uri())
    tab.locator("[data-md-component=search-query]").fill("receptive field")
    tab.locator(".md-search-result__item a").first.click()
    tab.wait_for_url(re.compile("gradcam|explain"))
    assert "receptive field" in tab.locator("main").inner_text().lower()
    context.close()


def test_the_reference_holds_every_public_name(site):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from hooks import TOPICS, public_names
    finally:
        sys.path.pop(0)
    for full, place in public_names().items():
        page = (site / "api" / f"{full.split('.')[1]}.html").read_text()
        assert f'id="{place}"' in page, full
    assert len(TOPICS) == len(list(site.glob("api/*.html")))
    assert not re.search(
        r":(func|class|meth|mod):", "".join(p.read_text() for p in site.glob("api/*.html"))
    )
