"""Run a curated notebook in batch, as its tests do."""

import json
from pathlib import Path

from notebook_contract import ROOT
from PIL import Image
from sklearn.datasets import load_digits

from workbench.batch import compose, run_notebook


def run(name, out, **parameters):
    """Run a notebook and return the results that it recorded."""
    return run_in(name, out, **parameters)[0]


def run_in(name, out, **parameters):
    """Run a notebook and return its results and its folder."""
    record = run_notebook(ROOT / "notebooks" / f"{name}.ipynb", parameters, out=out)
    assert record.status == "succeeded", record.error
    return json.loads((record.folder / "results.json").read_text()), record.folder


def smoke(name):
    """The parameters of a notebook in the preset `smoke`."""
    preset = compose("smoke", folder=ROOT / "notebooks")
    return preset.parameters_of(ROOT / "notebooks" / f"{name}.ipynb")


def write_digits(folder: Path, n: int) -> None:
    """Write a folder of one's own: scikit-learn's digits, a subfolder a class."""
    images, labels = load_digits(return_X_y=True)
    for i in range(n):
        file = folder / f"class {labels[i]}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images[i].reshape(8, 8) * 15).astype("uint8")).save(file)
