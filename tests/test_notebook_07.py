"""The notebook from pictures to a detector, on blood smears, composed scenes and COCO."""

import os
from pathlib import Path

import pytest
from notebook_running import run, run_in, smoke
from PIL import Image

from workbench import boxes

NAME = "07_annotate_and_train"
BCCD = Path(os.environ.get("WORKBENCH_DATA", "")) / "bccd"
TINY = {"n_train": 8, "n_test": 6, "epochs": 2, "size": 96}


@pytest.mark.skipif(not BCCD.is_dir(), reason="the blood smears are not at hand")
def test_on_the_blood_smears(tmp_path):
    results, folder = run_in(NAME, tmp_path, **smoke(NAME))
    assert "DOES NOT HOLD" not in results["claims"].values()
    assert results["average_precision"]["low"] > results["chance"]["high"]
    assert (folder / "fcn" / "model.safetensors").is_file()
    assert "boxes are drawn already" in (folder / f"{NAME}.ipynb").read_text()


def test_on_composed_scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    results = run(NAME, tmp_path / "runs", **TINY)
    assert results["name"] == "composed scenes"
    assert results["claims"]["every box that was drawn is in the store"] == "holds"


@pytest.mark.slow
def test_on_ones_own_folder_and_coco_file(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    rows = []
    for i in range(16):
        image = Image.new("RGB", (120, 80), "grey")
        image.paste("white", (10 + 2 * i, 20, 40 + 2 * i, 50))
        image.save(tmp_path / "photos" / f"{i}.png")
        box = {"x_min": 10 + 2 * i, "y_min": 20, "x_max": 40 + 2 * i, "y_max": 50}
        rows.append({"sample": f"{i}.png", "label": "sheet", **box})
    from workbench import datasets

    boxes.to_coco(datasets.load(tmp_path / "photos"), boxes.as_table(rows), tmp_path / "mine.json")
    monkeypatch.chdir(tmp_path)
    own = {"data": "./photos", "coco": "./mine.json"}
    results = run(NAME, tmp_path / "runs", **{**TINY, **own})
    assert "sheet" in results["average_precision"]
