"""``python -m workbench.models train`` from images to a file that loads."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from workbench import datasets, models
from workbench.models.__main__ import app
from workbench.models.training import train


def idx(array):
    """An array of bytes in the IDX format."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """IDX files of bright and dark squares: two of the ten classes."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 300), ("t10k", 60)):
        label = rng.integers(0, 2, n)
        image = rng.integers(0, 60, (n, 28, 28)) + 180 * label[:, None, None]
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(image))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(label))
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "weights"


def test_train_writes_a_file_that_tells_its_recipe_and_predicts_as_measured(small_mnist):
    call = ["train", "mnist", "--out", str(small_mnist), "--epochs", "2", "--seed", "3"]
    done = CliRunner().invoke(app, call, catch_exceptions=False)
    assert done.exit_code == 0
    file = small_mnist / "mnist.safetensors"
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["about"])
    assert about["recipe"]["epochs"] == len(about["losses"]) == 2
    assert about["recipe"]["seed"] == 3
    assert not about["recipe"]["flip"]
    assert about["data"]["name"] == "mnist"
    network = models.load(file)
    assert network.classes == [str(i) for i in range(10)]
    test = datasets.load("mnist", split="test")
    assert models.evaluate(network, test, progress=False) == about["test"]

    before = file.read_bytes()
    # all epochs are in the checkpoint: the same command again trains nothing and writes the same
    CliRunner().invoke(app, call, catch_exceptions=False)
    assert file.read_bytes() == before


def test_a_folder_is_trained_on_and_measured_on_what_is_held_out(tmp_path):
    rng = np.random.default_rng(0)
    for name, low in (("bright", 180), ("dark", 0)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(low, low + 60, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    out = tmp_path / "out"
    call = ["train", str(tmp_path / "photos"), "--out", str(out), "--epochs", "8"]
    done = CliRunner().invoke(app, call, catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["accuracy"] == 1.0
    assert {file.name for file in out.iterdir()} == {
        "model.safetensors", "log.csv", "log.png", "snapshots",
    }  # fmt: skip
    assert models.load(out / "model.safetensors").classes == ["bright", "dark"]


def test_an_unknown_network_is_named(tmp_path):
    with pytest.raises(ValueError, match="'resnet35' is neither 'small-resnet', 'fcn' nor a name"):
        train("resnet35", datasets.load("digits", n=20), out=tmp_path)
