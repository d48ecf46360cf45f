"""Files of networks: weights are data and run nothing; programs need the word of who loads them."""

import contextlib
import os
import warnings

import pytest
import torch
from torch import nn

from workbench import models


class Acting(nn.Module):
    """A network that writes a file when it is read."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.weight = torch.ones(1)

    def forward(self, x):
        return x.mean((2, 3)) * self.weight

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        self.weight = torch.from_file(self.path, shared=True, size=1)


def script(path, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Acting(str(target))).save(str(path))


def test_torchscript_acts_when_it_is_read_and_needs_trust(tmp_path):
    script(tmp_path / "it.pth", tmp_path / "written")
    with pytest.raises(
        ValueError, match=r"TorchScript .*trusted=True; safetensors files and state"
    ):
        models.load(tmp_path / "it.pth")
    assert not (tmp_path / "written").exists()
    # the same file does act where it is trusted: the attack is a real one
    with contextlib.suppress(Exception):
        models.load(tmp_path / "it.pth", trusted=True)
    assert (tmp_path / "written").exists()


def test_an_expression_in_an_exported_program_is_not_evaluated(tmp_path):
    dim = torch.export.Dim("batch", min=2, max=99)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    program = torch.export.export(network, (torch.rand(3, 3, 8, 8),), dynamic_shapes=({0: dim},))
    torch.export.save(program, tmp_path / "it.pt2")
    with pytest.raises(ValueError, match=r"torch\.export .*runs its author's code .*trusted=True"):
        models.load(tmp_path / "it.pt2")


def test_an_onnx_program_needs_trust(tmp_path):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.rand(1, 3, 8, 8),), tmp_path / "it.onnx", dynamo=False)
    with pytest.raises(ValueError, match=r"ONNX .*trusted=True"):
        models.load(tmp_path / "it.onnx")


def test_trust_is_no_licence_for_pickles(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    torch.save({"state_dict": Bomb()}, tmp_path / "it.pt")
    for trusted in (False, True):
        with pytest.raises(ValueError, match="can run any code"):
            models.load(tmp_path / "it.pt", trusted=trusted)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["resnet34", "cifar10", "efficientnet-lite0", "timm/resnet18"])
def test_a_file_in_the_working_folder_does_not_take_a_names_place(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    planted = models.SmallResNet(classes=3, widths=(4, 4, 4, 4, 4))
    torch.save(planted.state_dict(), tmp_path / name)
    with contextlib.suppress(FileNotFoundError, ImportError):
        assert models.load(name)(torch.rand(1, 3, 32, 32)).shape[1] in (10, 1000)
    # said as a file, it is one
    assert models.load(f"./{name}")(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_a_name_that_is_a_file_here_says_how_to_mean_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"the file or folder here is \./mynet"):
        models.load("mynet")
