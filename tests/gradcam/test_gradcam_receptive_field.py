"""Receptive fields: known values, gradients as witness, graphs of every kind."""

import numpy as np
import pytest
import torch
from gradcam_networks import random_network
from torch import nn
from torch.nn import functional as F

from workbench import gradcam, models
from workbench.models import OpaqueModel

LAYERS = ["layer1", "layer2", "layer3", "layer4"]


def test_resnet34_as_published():
    table = gradcam.receptive_field(random_network("resnet34"), (3, 224, 224), LAYERS)
    assert table["size"].tolist() == [59, 179, 547, 899]
    assert table["stride"].tolist() == [4, 8, 16, 32]
    assert table["padding"].tolist() == [29, 89, 273, 449]
    assert table["output"].tolist() == [(56, 56), (28, 28), (14, 14), (7, 7)]


def test_gradients_confirm_a_torchvision_network(resnet):
    table = gradcam.receptive_field(resnet, (3, 64, 64), LAYERS[:3], confirm=True)
    assert table["measured"].tolist() == table["size"].tolist() == [43, 99, 211]


def test_gradients_confirm_every_layer_of_the_shipped_network():
    table = gradcam.receptive_field(models.load("cifar10"), (3, 32, 32), confirm=True)
    assert len(table) > 25
    assert (table["measured"] == table["size"]).all()


class Branches(nn.Module):
    """A wide and a narrow way, dilation, oblong kernels, joined by a sum and a concatenation."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 3, padding=3, dilation=3)
        self.narrow = nn.Conv2d(3, 4, 1)
        self.oblong = nn.Conv2d(4, 4, (1, 5), padding=(0, 2))
        self.joined = nn.Conv2d(8, 4, 2, stride=2)

    def forward(self, x):
        y = self.wide(x) + self.narrow(x)
        for _ in range(2):
            y = F.relu(self.oblong(y))
        y = self.joined(torch.cat([y, self.narrow(x)], 1))
        return F.avg_pool2d(F.max_pool2d(y, 3, 1, 1, ceil_mode=True), 2)


def test_branches_dilation_loops_and_oblong_kernels():
    table = gradcam.receptive_field(Branches(), (3, 32, 32), confirm=True)
    assert table["size"].to_dict() == {"wide": 7, "narrow": 1, "oblong": (7, 15), "joined": (8, 16)}
    assert (table["measured"] == table["size"]).all()
    assert table.loc["oblong", "padding"] == (3, 7)


@pytest.mark.parametrize(
    ("last", "size", "step"),
    [
        (nn.Upsample(scale_factor=2), 4, 1),
        (nn.ConvTranspose2d(3, 3, 2, stride=2), 4, 1),
        (nn.AdaptiveAvgPool2d(4), 6, 4),
        (nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(3, 3, 5)), 12, 2),
        (nn.Conv2d(3, 3, 3, padding="same", dilation=2), 12, 2),
        (nn.MaxPool2d(3, 1, dilation=2), 12, 2),
    ],
)
def test_single_operations_behind_a_convolution(last, size, step):
    model = nn.Sequential(nn.Conv2d(3, 3, 4, stride=2, padding=1), last)
    row = gradcam.receptive_field(model, (3, 16, 16), "1").loc["1"]
    assert (row["size"], row["stride"]) == (size, step)


class Focus(nn.Module):
    """Four slices of the image become channels, as in YOLO's first layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(12, 4, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        rows = (x[..., ::2, :], x[:, :, 1::2])
        return self.last(torch.cat([half[..., i::2] for half in rows for i in (0, 1)], 1))


@pytest.mark.parametrize(
    ("between", "channels", "size", "step"),
    [
        (nn.PixelShuffle(2), 1, 4, 0.5),
        (nn.PixelUnshuffle(2), 16, 8, 2),
        (nn.LPPool2d(2, 2), 4, 8, 2),
    ],
)
def test_planes_that_are_rearranged(between, channels, size, step):
    before, after = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(channels, 2, 3, padding=1)
    model = nn.Sequential(before, between, after)
    row = gradcam.receptive_field(model, (3, 16, 16), "2", confirm=True).loc["2"]
    assert (row["size"], row["measured"], row["stride"]) == (size, size, step)


def test_slices_of_the_plane():
    row = gradcam.receptive_field(Focus(), (3, 16, 16), "last", confirm=True).loc["last"]
    assert (row["size"], row["measured"], row["stride"], row["padding"]) == (6, 6, 2, 2)


def test_what_gates_or_attends_sees_everything():
    from torchvision.ops import SqueezeExcitation

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 8, 3, padding=1), SqueezeExcitation(8, 2)
            self.after = nn.Conv2d(8, 8, 3, 2, 1)

        def forward(self, x):
            return self.after(self.gate(self.conv(x)))

    table = gradcam.receptive_field(Gated(), (3, 16, 16), ["conv", "gate", "after"], confirm=True)
    assert table["size"].tolist() == [3, np.inf, np.inf]
    assert table["stride"].tolist() == [1, 1, 2]
    assert table["measured"].isna().tolist() == [False, True, True]


def test_transformers():
    from torchvision.models import SwinTransformer, VisionTransformer

    vit = VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=5)
    table = gradcam.receptive_field(
        vit, (3, 32, 32), ["conv_proj", "encoder.layers.encoder_layer_0"]
    )
    assert table["size"].tolist() == [8, np.inf]
    assert table["output"].tolist() == [(4, 4), (4, 4)]
    swin = SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4])
    table = gradcam.receptive_field(swin, (3, 32, 32), ["features.0", "features.1"])
    assert table["size"].tolist() == [4, np.inf]
    assert table["output"].tolist() == [(8, 8), (8, 8)]


def test_channels_last_keep_their_plane():
    from torchvision.models.convnext import CNBlock

    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), CNBlock(8, 1e-6, 0.0))
    table = gradcam.receptive_field(model, (3, 32, 32), ["0", "1.block.3", "1"], confirm=True)
    assert table["size"].tolist() == [4, 28, 28]
    assert table.loc["1", "measured"] == 28


def test_the_narrowest_layer_and_whether_it_covers_the_object(resnet):
    table = gradcam.receptive_field(resnet, (3, 224, 224), LAYERS, object_size=150)
    assert gradcam.narrowest(table) == "layer4"
    assert table["covers"].tolist() == [False, False, True, True]


def test_the_narrowest_is_the_last_to_run_not_the_last_to_be_named():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.second = nn.Conv2d(4, 4, 3, padding=1)
            self.first = nn.Conv2d(3, 4, 4, 4)

        def forward(self, x):
            return self.second(self.first(x)).mean((2, 3))

    table = gradcam.receptive_field(Turned(), (3, 32, 32))
    assert list(table.index)[:2] == ["first", "second"]
    assert gradcam.narrowest(table) == "second"


def test_the_narrowest_of_a_transformer_is_read_by_the_output():
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5).eval()
    nn.init.normal_(model.head.weight)
    table = gradcam.receptive_field(model, (3, 64, 64))
    assert not table.loc["blocks.1", "used"]
    layer = gradcam.narrowest(table)
    with gradcam.Probe(model, layer) as probe:
        assert probe.run(torch.rand(1, 3, 64, 64), 1).map(signed=True).any()


def test_a_preset_does_not_count(resnet, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "w.pt")
    loaded = models.load(tmp_path / "w.pt", architecture="resnet18")
    assert loaded._forward_pre_hooks  # resizes to 224
    table = gradcam.receptive_field(loaded, (3, 64, 64), "layer1")
    assert table["size"].tolist() == [43]
    assert table["output"].tolist() == [(16, 16)]


def test_layers_without_a_plane_are_named(resnet):
    with pytest.raises(ValueError, match="'fc' was not reached, or its output has no plane"):
        gradcam.receptive_field(resnet, (3, 64, 64), ["layer1", "fc"])
    with pytest.raises(ValueError, match="no layer 'layer5'"):
        gradcam.receptive_field(resnet, (3, 64, 64), "layer5")
    with pytest.raises(ValueError, match="hide their layers"):
        gradcam.receptive_field(OpaqueModel("ONNX", ()), (3, 64, 64))


def test_the_model_is_left_alone(resnet):
    resnet.train()
    before = {k: v.clone() for k, v in resnet.state_dict().items()}
    gradcam.receptive_field(resnet, (3, 32, 32), ["layer1"], confirm=True)
    assert resnet.training
    assert all(torch.equal(before[k], v) for k, v in resnet.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in resnet.modules())


def test_what_a_network_of_one_size_does_not_let_us_measure_is_said():
    import timm

    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1, num_classes=5).eval()
    with pytest.warns(UserWarning, match="takes no image of 32×32 pixels"):
        table = gradcam.receptive_field(model, (3, 64, 64), "patch_embed.proj", confirm=True)
    assert table["size"].tolist() == [16]
    assert np.isnan(table["measured"].iloc[0])


def test_behind_adaptive_pooling_nothing_is_measured():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(4), nn.Conv2d(4, 4, 3))
    with pytest.warns(UserWarning, match="2 layers are not measured.*adaptive pooling"):
        table = gradcam.receptive_field(model, (3, 17, 17), confirm=True)
    assert table["size"].tolist() == [3, 5, 13]
    assert table["measured"].isna().tolist() == [False, True, True]


def test_a_product_of_two_branches_is_measured_where_both_are_zero():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(3, 4, 5), nn.Conv2d(3, 4, 3, padding=0)
            self.last = nn.Identity()

        def forward(self, x):
            return self.last(self.wide(x) * self.narrow(x[:, :, 1:-1, 1:-1]) * 0.5)

    row = gradcam.receptive_field(Product(), (3, 16, 16), "last", confirm=True).loc["last"]
    assert row["size"] == row["measured"] == 5
