"""`workbench new` writes a notebook that keeps the contract and runs, and refuses what is wrong."""

import json
import shutil
import subprocess
import sys

import nbformat
import pytest
from notebook_contract import NOTEBOOKS, ROOT, problems
from notebook_running import write_digits
from typer.testing import CliRunner

from workbench.batch import JobError, compose, run_notebook
from workbench.batch.cli import app
from workbench.batch.new import new_notebook


@pytest.fixture
def folder(tmp_path):
    """A folder with the presets and one notebook of number 01."""
    folder = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks" / "presets", folder / "presets")
    shutil.copy(NOTEBOOKS[0], folder)
    return folder


@pytest.mark.kernel
def test_it_keeps_the_contract_and_runs_with_the_smoke_preset(folder, tmp_path):
    path = new_notebook("07_my_question", "Who looks like whom?", folder)
    assert problems(path) == []
    nbformat.validate(nbformat.read(path, as_version=4))
    for other in set(NOTEBOOKS) - {NOTEBOOKS[0]}:
        shutil.copy(other, folder)  # the preset names their parameters
    parameters = compose("smoke", folder=folder).parameters_of(path)
    record = run_notebook(path, parameters, out=tmp_path / "runs")
    assert record.status == "succeeded", record.error
    results = json.loads((record.folder / "results.json").read_text())
    assert results["claims"] == {"neighbours vote better than guessing": "holds"}
    assert results["accuracy"]["vote"] > 0.9 > 0.2 > results["accuracy"]["guessing"]


@pytest.mark.kernel
def test_it_takes_the_readers_own_data(folder, tmp_path):
    path = new_notebook("02_mine", folder=folder)
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].source.startswith("# Mine?\n")
    write_digits(tmp_path / "mine", 60)
    code = [cell.source for cell in cells if cell.cell_type == "code" and "%pip" not in cell.source]
    code.insert(1, "data, k = './mine', 100")  # more neighbours than there are images
    code.append("assert ds.sizes['sample'] == 60")
    program = [sys.executable, "-c", "\n".join(code)]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("My Question", "'02_my_question' would be one"),
        ("7_question", "'02_question' would be one"),
        ("02-how-many", "'02_how_many' would be one"),
        ("../02_x", "'02_02_x' would be one"),
        ("???", "'02_my_question' would be one"),
        ("01_other", r"01 is taken by .*01_mnist_embeddings.ipynb; 02 is free"),
        ("01_mnist_embeddings", "is there already, and is not overwritten"),
    ],
)
def test_a_wrong_name_is_refused_and_a_right_one_named(folder, name, says):
    before = {path: path.read_bytes() for path in folder.glob("*") if path.is_file()}
    with pytest.raises(JobError, match=says):
        new_notebook(name, folder=folder)
    assert before == {path: path.read_bytes() for path in folder.glob("*") if path.is_file()}


def test_a_title_that_asks_nothing_is_refused(folder):
    with pytest.raises(JobError, match="'My study' asks nothing"):
        new_notebook("02_mine", "My study", folder)


def test_the_command_says_what_to_do_next(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["new", "02_mine.ipynb", "--title", "Mine?"])
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Run it with: workbench run notebooks/02_mine.ipynb"
    assert (folder / "02_mine.ipynb").is_file()
    again = CliRunner().invoke(app, ["new", "02_mine"])
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    monkeypatch.chdir(folder)
    nowhere = CliRunner().invoke(app, ["new", "02_mine"])
    assert nowhere.exit_code == 2
    assert "there is no folder notebooks" in nowhere.stderr
