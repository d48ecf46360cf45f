"""Notebooks on a folder as people have them, and what they then say of it."""

import json

import nbformat
import pytest
from notebook_running import run_in
from toys import UGLY, ugly_folder

#: What belongs to other data, and has no place in what a run shows and records of this folder.
OTHERS = ("mnist", "cifar", "digits", "stand-in")
NOTEBOOKS = {
    "01_mnist_embeddings": {"epochs": 1, "split": "all"},
    "02_cifar_embeddings": {"epochs": 1, "split": "all"},
    "03_label_noise_review": {"split": "all"},
}


@pytest.mark.kernel
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_on_an_ugly_folder(name, tmp_path, monkeypatch):
    """It succeeds, names the reader's data, and claims nothing of anybody else's."""
    ugly_folder(tmp_path / "holiday", 48)
    monkeypatch.chdir(tmp_path)
    results, folder = run_in(name, tmp_path / "runs", data="./holiday", **NOTEBOOKS[name])
    assert (results["name"], results["stand_in_for"]) == ("holiday", None)
    assert "DOES NOT HOLD" not in results["claims"].values()
    assert not any(word in json.dumps(results["name"]).lower() for word in OTHERS)
    notebook = nbformat.read(folder / f"{name}.ipynb", 4)
    shown = [
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert any(UGLY["grass"] in text for text in shown)
