"""The Grad-CAM notebook runs in batch, on real images, stand-ins and one's own, and is right."""

from importlib.resources import files

import pytest
import torch
from gradcam_networks import random_network
from notebook_running import run, run_in
from PIL import Image

from workbench import datasets

NAME = "05_grad_cam"
SMALL = {"model": "cifar10", "data": "cifar10", "n_samples": 100, "n_mosaics": 4}


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """An empty torch cache, the only source of weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


class TestGradCam:
    def test_on_real_cifar(self, real_data, tmp_path):
        results = run(NAME, tmp_path, **SMALL)
        assert results["stand_in_for"] is None
        assert "DOES NOT HOLD" not in results["claims"].values()
        energy = results["energy"]["mosaics"]
        # a quarter by chance; .8 when this was written
        assert energy["gradcam"] > 0.6
        assert 0.1 < energy["random map 16×16"] < 0.45

    def test_on_the_stand_in_and_without_resnet34(self, tmp_path, monkeypatch, checkpoints):
        monkeypatch.delenv("WORKBENCH_DATA", raising=False)
        results, folder = run_in(NAME, tmp_path, **{**SMALL, "model": "resnet34"})
        assert results["stand_in_for"] == "cifar10"
        assert results["network"] == "SmallResNet"
        assert results["claims"]["the fields are as measured"] == "holds"
        told = (folder / f"{NAME}.ipynb").read_text()
        assert "the package's small network takes its place: the weights of 'resnet34'" in told
        assert "go online once, or bring the file and load(path, architecture='resnet34')" in told

    @pytest.mark.slow
    def test_on_resnet34_that_has_learnt_nothing(self, tmp_path, monkeypatch, checkpoints):
        monkeypatch.delenv("WORKBENCH_DATA", raising=False)
        weights = random_network("resnet34").state_dict()
        torch.save(weights, checkpoints / "resnet34-b627a593.pth")
        few = {"model": "resnet34", "data": "cifar10", "n_samples": 16, "n_mosaics": 1}
        results = run(NAME, tmp_path, **few)
        assert results["network"] == "ResNet"
        assert list(results["receptive_field"].values()) == ["59", "179", "547", "899"]
        # reported, and no reason to stop: nothing is promised for this network
        assert "DOES NOT HOLD" in results["claims"].values()
        assert results["claims"]["the fields are as measured"] == "holds"

    def test_on_a_model_and_a_folder_of_ones_own(self, tmp_path, monkeypatch):
        weights = files("workbench.models") / "weights" / "cifar10.safetensors"
        (tmp_path / "mine.safetensors").write_bytes(weights.read_bytes())
        photos = datasets.load("photos", n=40)
        for i, image in enumerate(photos["image"].values):
            file = tmp_path / "mine" / f"class {i % 2}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
        monkeypatch.chdir(tmp_path)
        own = {"model": "./mine.safetensors", "data": "./mine", "layers": "layer2 layer3"}
        results = run(NAME, tmp_path / "runs", **{**SMALL, **own, "n_mosaics": 2})
        assert results["stand_in_for"] is None
        assert set(results["receptive_field"]) == {"layer2", "layer3"}
        assert set(results["energy"]) == {"mosaics"}
