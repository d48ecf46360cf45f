"""`workbench open` and `workbench review`, all but the pages that they show."""

import json
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from toys import UGLY, ugly_folder
from typer.testing import CliRunner

from workbench import datasets, labels
from workbench.commands import _document, app, write_copy

PARAMETERS = 'data: str = "mnist"\nk: int = 3'


def command(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook with parameters and a cell to look at; the working directory has photos."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    cells = [
        nbformat.v4.new_markdown_cell("# A title"),
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_markdown_cell("Words.\n\n## Look at it\n\nMore words."),
        nbformat.v4.new_code_cell("data", metadata={"tags": ["look-here"]}),
    ]
    (tmp_path / "kept").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "kept" / "own.ipynb")
    return tmp_path / "kept" / "own.ipynb"


def opened(notebook, **values):
    return write_copy(notebook, values, Path("opened"))


def test_a_copy_has_the_parameters_and_says_where_to_look(notebook):
    copy, anchor = opened(notebook, data="./photos")
    assert copy.parts == ("opened", "own", "own.ipynb")
    assert anchor == "Look-at-it"
    cells = nbformat.read(copy, 4).cells
    assert "(#Look-at-it)" in cells[0].source
    assert cells[3].source == "# Parameters\ndata = '../../photos'"
    assert nbformat.validate(nbformat.read(copy, 4)) is None


def test_the_same_parameters_open_the_same_copy_as_it_was_left(notebook):
    copy, _ = opened(notebook, data="./photos")
    copy.write_text(copy.read_text().replace("More words", "Own words"))
    assert opened(notebook, data="./photos")[0] == copy
    assert "Own words" in copy.read_text()
    assert opened(notebook, data="./photos", k=4)[0].parent.name == "own-2"
    assert opened(notebook)[0].parent.name == "own-3"


def test_of_a_notebook_that_changed_the_old_copy_is_kept(notebook):
    copy, _ = opened(notebook)
    copy.write_text(copy.read_text().replace("More words", "Own words"))
    notebook.write_text(notebook.read_text().replace("More words", "Newer words"))
    assert opened(notebook)[0] == copy
    assert "Newer words" in copy.read_text()
    (old,) = [path for path in copy.parent.iterdir() if path != copy]
    assert "Own words" in old.read_text()


def test_somebody_elses_file_is_never_replaced(notebook, tmp_path):
    other = tmp_path / "opened" / "own" / "own.ipynb"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    assert opened(notebook)[0].parent.name == "own-2"
    assert other.read_text() == "{}"


@pytest.mark.parametrize(
    ("given", "said"),
    [("dta=./photos", "did you mean 'data'"), ("k=many", "'k' is int"), ("k", "name=value")],
)
def test_a_wrong_parameter_is_an_error_before_anything_opens(notebook, given, said):
    code, output = command("open", notebook, "-p", given)
    assert (code, said in output) == (2, True), output


def test_a_page_without_voila_names_the_extra(notebook, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "voila", None)
    monkeypatch.setitem(sys.modules, "voila.app", None)
    code, output = command("open", notebook, "--app")
    assert (code, "[app]" in output) == (2, True), output
    code, output = command("review", "./photos")
    assert (code, "[app]" in output) == (2, True), output


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    """An ugly folder, queued, its first 20 labels decided on as its owner would, queued again."""
    folder = tmp_path_factory.mktemp("review")
    wrong = ugly_folder(folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert command("review", "photos", "--no-page")[0] == 0
        queue = pd.read_csv("photos-review/issues.csv", index_col="sample")
        ds = datasets.load("./photos", progress=False)
        classes = ds["class"].values.tolist()
        issues = queue.assign(suggested=[classes.index(name) for name in queue["suggested"]])
        answers = {path: true_class(path) for path in queue.index[:20]}
        store = "photos-review/review.db"
        labels.review_batch(ds, issues, answers, store, progress=False)
        code, said = command("review", "photos", "--no-page")
        assert code == 0, said
    return folder, wrong, queue, said


def true_class(path):
    """The class of an image of the ugly folder, by the number in its name."""
    number = path.rpartition("/")[2].removeprefix("IMG_2024-05-").split()[0].split(".")[0]
    return [*UGLY.values()][int(number) % 4]


class TestReview:
    def test_the_queue_begins_with_wrong_labels(self, reviewed):
        _, wrong, queue, _ = reviewed
        assert len(queue) == 60
        assert len(wrong) == 3
        assert set(wrong) <= set(queue.index[:20])
        assert set(queue["given"]) == set(UGLY.values())

    def test_what_was_decided_is_written(self, reviewed):
        folder, wrong, _, said = reviewed
        assert "Decided on 20 of 60 images" in said
        assert f"{len(wrong)} changed" in said
        table = pd.read_csv(folder / "photos-review" / "issues.csv", index_col="sample")
        assert (table["review"] == "changed").sum() == 3
        corrected = datasets.load(folder / "photos-review" / "corrected", progress=False)
        names = corrected["class"].values[corrected["label"].values]
        ids = corrected["sample"].values
        assert all(true_class(i) == name for i, name in zip(ids, names, strict=True))

    def test_an_earlier_corrected_folder_is_kept(self, reviewed, monkeypatch):
        monkeypatch.chdir(reviewed[0])
        assert command("review", "photos", "--no-page")[0] == 0
        there = {path.name for path in (reviewed[0] / "photos-review").glob("corrected*")}
        assert there == {"corrected", "corrected-2"}

    def test_somebody_elses_folder_is_left_alone(self, reviewed, tmp_path):
        (tmp_path / "issues.csv").write_text("mine")
        code, output = command("review", reviewed[0] / "photos", "--to", tmp_path, "--no-page")
        assert (code, "no review's" in output) == (2, True), output
        assert [file.name for file in tmp_path.iterdir()] == ["issues.csv"]
        assert (tmp_path / "issues.csv").read_text() == "mine"

    def test_images_without_labels_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "photos").mkdir()
        code, output = command("review", "photos", "--no-page")
        assert (code, "error:" in output) == (2, True)


def test_the_pages_notebook_is_one(tmp_path):
    nbformat.validate(nbformat.reads(json.dumps(_document("1")), 4))
