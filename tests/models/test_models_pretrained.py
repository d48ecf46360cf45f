"""Networks by name: their preset, their weights out of the cache, and what is said without them."""

import hashlib
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional as F
from torchvision.models import SqueezeNet1_1_Weights, resnet18, resnet34, squeezenet1_1

from workbench import models

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def images():
    values = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    return xr.Dataset({"image": (("sample", "y", "x", "channel"), values)})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A torch cache that holds untrained weights in the place of resnet18's."""
    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    weights = resnet18().state_dict()
    torch.save(weights, home / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    return home, weights


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """Serve a file of weights on this machine; its address, and the requests as they come."""
    folder, asked = tmp_path_factory.mktemp("served"), []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(args)

    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def serve(weights, digest=None):
        torch.save(weights, folder / "weights")
        digest = digest or hashlib.sha256((folder / "weights").read_bytes()).hexdigest()[:8]
        file = (folder / "weights").rename(folder / f"served-{digest}.pth")
        return f"http://127.0.0.1:{serving.server_port}/{file.name}", asked

    yield serve
    serving.shutdown()
    serving.server_close()


def reference(weights, images, mode="bilinear"):
    """What torchvision's own network makes of images resized and normalised by hand."""
    network = resnet18(num_classes=len(weights["fc.weight"])).eval()
    network.load_state_dict(weights)
    x = torch.from_numpy(images["image"].values).permute(0, 3, 1, 2).float() / 255
    x = F.interpolate(x, (224, 224), mode=mode, antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        return network((x - mean) / std).softmax(1).numpy()


class TestTorchvision:
    def test_weights_in_the_cache_are_used_with_their_preset(self, cache, images, monkeypatch):
        home, weights = cache
        monkeypatch.setenv("TORCH_HOME", str(home))
        network = models.load("resnet18")
        assert "layer4" in dict(network.named_children())
        assert len(network.classes) == 1000
        assert network.classes[281] == "tabby"
        found = models.predict(network, images, progress=False)
        np.testing.assert_allclose(found, reference(weights, images), atol=1e-5)
        assert found.sizes["class"] == 1000
        layer = models.activations(network, images, "layer4", progress=False)
        assert layer.shape == (3, 512)

    def test_weights_are_downloaded_once_and_checked(self, server, images, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        weights = squeezenet1_1().state_dict()
        url, asked = server(weights)
        monkeypatch.setattr(SqueezeNet1_1_Weights.DEFAULT.value, "url", url)
        for _ in range(2):
            network = models.load("squeezenet1_1")
        assert len(asked) == 1
        found = network.state_dict()
        assert all(torch.equal(found[key], value) for key, value in weights.items())
        assert models.predict(network, images, progress=False).shape == (3, 1000)

    def test_weights_that_are_not_what_was_published_are_refused(
        self, server, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        url, _ = server(squeezenet1_1().state_dict(), digest="0" * 8)
        monkeypatch.setattr(SqueezeNet1_1_Weights.DEFAULT.value, "url", url)
        with pytest.raises(ValueError, match=r"'squeezenet1_1' cannot be read.*invalid hash"):
            models.load("squeezenet1_1")
        assert not list(tmp_path.rglob("*.pth"))

    def test_damaged_weights_in_the_cache_are_told_to_be_deleted(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        file = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
        file.parent.mkdir(parents=True)
        torch.save(squeezenet1_1().state_dict(), file)
        os.truncate(file, 1_000_000)
        with pytest.raises(ValueError, match=r"delete the file .* from the cache") as caught:
            models.load("squeezenet1_1")
        assert str(file.parent.parent) in str(caught.value)
        torch.save(resnet18().state_dict(), file)
        with pytest.raises(ValueError, match=r"cannot be read .*Missing key"):
            models.load("squeezenet1_1")

    def test_without_the_weights_it_says_where_they_come_from(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        with pytest.raises(models.WeightsNotFoundError) as caught:
            models.load("resnet34")
        told = str(caught.value)
        assert "resnet34-b627a593.pth" in told
        assert "load(path, architecture='resnet34')" in told
        assert not list(tmp_path.rglob("*.pth"))

    def test_unknown_names_get_the_nearest(self):
        with pytest.raises(ValueError, match=r"'resnet43': .*Do you mean resnet34"):
            models.load("resnet43")
        with pytest.raises(ValueError, match="Do you mean cifar10"):
            models.load("cifar1")

    def test_detectors_are_no_classifiers(self):
        with pytest.raises(ValueError, match="do not know it"):
            models.load("torchvision/fasterrcnn_resnet50_fpn")


class TestHub:
    @pytest.fixture
    def hub(self, tmp_path, monkeypatch):
        """The hub's client with an empty cache, and nobody at the hub's address."""
        client = pytest.importorskip("huggingface_hub")
        monkeypatch.setattr(client.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(client.constants, "ENDPOINT", "http://127.0.0.1:9")

        def wait(_):
            raise AssertionError("it waits to ask again")

        monkeypatch.setattr(client.utils._http.time, "sleep", wait)
        return tmp_path

    def test_without_a_network_it_is_said_at_once(self, hub):
        with pytest.raises(models.WeightsNotFoundError, match="go online once, or bring the file"):
            models.load("timm/resnet10t.c3_in1k")

    def test_without_a_network_the_cache_serves(self, hub):
        import timm
        from safetensors.torch import save_file

        commit = hub / "models--timm--resnet10t.c3_in1k" / "snapshots" / ("0" * 40)
        commit.mkdir(parents=True)
        (commit.parents[1] / "refs").mkdir()
        (commit.parents[1] / "refs" / "main").write_text(commit.name)
        weights = timm.create_model("resnet10t").state_dict()
        save_file(weights, commit / "model.safetensors")
        found = models.load("timm/resnet10t.c3_in1k").state_dict()
        assert all(torch.equal(found[key], value) for key, value in weights.items())


class TestArchitectures:
    def test_a_state_dict_of_a_name_gets_its_classes_and_preset(self, images, tmp_path):
        torch.manual_seed(1)
        weights = resnet18(num_classes=7).state_dict()
        torch.save(weights, tmp_path / "mine")
        network = models.load(tmp_path / "mine", architecture="resnet18")
        found = models.predict(network, images, progress=False)
        assert found.shape == (3, 7)
        np.testing.assert_allclose(found, reference(weights, images), atol=1e-5)
        with pytest.raises(ValueError, match="does not fit ResNet: "):
            models.load(tmp_path / "mine", architecture="resnet34")
        with pytest.raises(ValueError, match="architecture='resnet43'"):
            models.load(tmp_path / "mine", architecture="resnet43")

    def test_timms_presets_are_its_own(self, images, tmp_path):
        torch.manual_seed(1)
        weights = resnet18().state_dict()
        torch.save(weights, tmp_path / "mine")
        # timm's resnet18 is the same network under the same names; its preset is bicubic
        network = models.load(tmp_path / "mine", architecture="timm/resnet18")
        assert type(network).__module__.startswith("timm")
        found = models.predict(network, images, progress=False)
        np.testing.assert_allclose(found, reference(weights, images, "bicubic"), atol=1e-5)
        assert network.classes[0].startswith("tench")

    def test_gradients_reach_the_image_through_the_preset(self, tmp_path):
        torch.save(resnet34().state_dict(), tmp_path / "mine")
        network = models.load(tmp_path / "mine", architecture="resnet34")
        x = torch.rand(1, 3, 48, 48, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(x)[0, 5], x)
        assert gradient.shape == x.shape
        assert gradient.abs().sum() > 0
        with pytest.raises(ValueError, match="1 channels, not 3"):
            network(torch.rand(1, 1, 48, 48))


def test_a_torchvision_of_another_build_is_explained(tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator nms does not exist')")
    code = "from workbench import models; models.load('resnet34')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: 'resnet34': it is no file and no shipped network")
    assert "built for another torch" in last
    assert "pip install --force-reinstall torch torchvision" in last
