"""Notebook 04 runs on composed scenes, and on a reader's own folder in MLRSNet's layout."""

import numpy as np
from notebook_running import run
from PIL import Image

NOTEBOOK = "04_multilabel_noise"


def test_composed_scenes(tmp_path):
    results = run(NOTEBOOK, tmp_path, n_samples=300, folds=2)
    assert results["name"] == "digits"
    assert results["claims"]["each table counts every image"] == "holds"
    assert np.array(results["joint"]).sum(axis=(1, 2)).tolist() == [300.0] * 6


def test_a_folder_in_mlrsnets_layout(tmp_path):
    layout = tmp_path / "aerial"
    rng = np.random.default_rng(0)
    (layout / "Labels").mkdir(parents=True)
    for category in ("airplane", "airport", "beach"):
        (layout / "Images" / category).mkdir(parents=True)
        rows = ["image,airplane,runway"]
        for i in range(20):
            there = rng.integers(0, 2, 2)
            pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
            pixels[:16] += np.uint8(150 * there[0])
            pixels[16:] += np.uint8(150 * there[1])
            Image.fromarray(pixels).save(layout / "Images" / category / f"{i}.png")
            rows.append(f"{i}.png,{there[0]},{there[1]}")
        (layout / "Labels" / f"{category}.csv").write_text("\n".join(rows))
    results = run(
        NOTEBOOK, tmp_path, data=str(layout), classes="airplane,runway", n_samples=None, folds=2
    )
    assert results["name"] == "mlrsnet"
    assert np.array(results["joint"]).sum(axis=(1, 2)).tolist() == [40.0, 40.0]
    claims = results["claims"]
    assert claims["our score for wrong labels finds them best"] == "not about these data"
