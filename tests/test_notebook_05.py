"""The Grad-CAM notebook runs in batch, on real images, stand-ins and one's own, and is right."""

from importlib.resources import files

from notebook_running import run
from PIL import Image

from workbench import datasets

NAME = "05_grad_cam"
SMALL = {"model": "cifar10", "n_samples": 100, "n_mosaics": 4}


class TestGradCam:
    def test_on_real_cifar(self, real_data, tmp_path):
        results = run(NAME, tmp_path, **{**SMALL, "n_mosaics": 8})
        assert results["stand_in_for"] is None
        assert "DOES NOT HOLD" not in results["claims"].values()
        energy = results["energy"]["mosaics"]
        # a quarter by chance; .8 when this was written
        assert energy["gradcam"] > 0.6
        assert 0.1 < energy["random map"] < 0.45

    def test_on_the_stand_in(self, tmp_path, monkeypatch):
        monkeypatch.delenv("WORKBENCH_DATA", raising=False)
        results = run(NAME, tmp_path, **SMALL)
        assert results["stand_in_for"] == "cifar10"
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
