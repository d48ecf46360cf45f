"""``python -m workbench.models train`` from images to a file that loads."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from workbench import datasets, models
from workbench.models.__main__ import app


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


def test_there_must_be_a_recipe():
    done = CliRunner().invoke(app, ["train", "cifar11"])
    assert done.exit_code == 2
    assert "no recipe for 'cifar11'" in done.output
