"""Where a layer's output holds the plane: tokens, channels last, shapes of one's own."""

from itertools import product
from math import ceil, floor

import pytest
import torch
from torch import nn

from workbench import gradcam
from workbench.models.layers import layout_of


class TestTransformers:
    @pytest.mark.parametrize(
        ("name", "layer", "prefix"),
        [
            ("vit_tiny_patch16_224", "blocks.2.norm1", 1),
            ("deit_tiny_distilled_patch16_224", "blocks.2.norm1", 2),
            ("vit_small_patch14_reg4_dinov2", "blocks.2.norm1", 5),
        ],
    )
    def test_timms(self, name, layer, prefix):
        import timm

        torch.manual_seed(0)
        options = {"img_size": 56} if "14" in name else {"img_size": 64}
        model = timm.create_model(name, pretrained=False, num_classes=7, depth=3, **options)
        x = torch.rand(2, 3, *(next(iter(options.values())),) * 2)
        kept = []
        handle = model.get_submodule(layer).register_forward_hook(lambda *a: kept.append(a[2]))
        model.eval()(x)
        handle.remove()
        with gradcam.Probe(model, layer) as probe:
            seen = probe.run(x, 3)
            assert seen.map("ablationcam").shape == (2, 4, 4)
        expected = kept[0][:, prefix:].transpose(1, 2).reshape(2, -1, 4, 4)
        torch.testing.assert_close(seen.activations[layer], expected)

    def test_torchvisions_and_the_block_whose_patches_nobody_reads(self):
        from torchvision.models import VisionTransformer

        torch.manual_seed(0)
        model = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
        nn.init.normal_(model.heads.head.weight)
        layer = "encoder.layers.encoder_layer_1"
        with gradcam.Probe(model, f"{layer}.ln_1") as probe:
            seen = probe.run(torch.rand(2, 3, 32, 32))
            assert seen.map().shape == seen.map("ablationcam").shape == (2, 4, 4)
        with pytest.raises(ValueError, match="class token is read; take the last block's first"):
            gradcam.Probe(model, layer).run(torch.rand(2, 3, 32, 32))

    def test_swin_transformers_whose_channels_come_last(self):
        import timm
        from torchvision.models import SwinTransformer

        torch.manual_seed(0)
        ours = SwinTransformer([2, 2], 16, [1, 1], [2, 2], [4, 4], num_classes=5)
        theirs = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, num_classes=5,
                                   embed_dim=24, depths=(1, 1, 1, 1))  # fmt: skip
        for model, layer, side, grid in ((ours, "features.1", 32, 16), (theirs, "layers.1", 56, 7)):
            with gradcam.Probe(model.eval(), layer) as probe:
                seen = probe.run(torch.rand(1, 3, side, side))
                assert seen.map("ablationcam").shape == (1, grid, grid)

    def test_an_image_that_is_not_square(self):
        import timm

        model = timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), depth=2)
        with gradcam.Probe(model, "blocks.1.norm1") as probe:
            assert probe.run(torch.rand(1, 3, 32, 64)).map().shape == (1, 2, 4)

    def test_prefix_tokens_that_join_late(self):
        import timm

        model = timm.create_model("cait_xxs24_224", img_size=64, depth=1, num_classes=5).eval()
        assert model.num_prefix_tokens == 1
        with gradcam.Probe(model, "blocks.0") as probe:
            assert probe.run(torch.rand(1, 3, 64, 64)).map().shape == (1, 4, 4)

    def test_windows_and_tables_of_positions_are_no_outputs_of_images(self):
        from torchvision.models.swin_transformer import SwinTransformer, SwinTransformerBlockV2

        model = SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=5,
                                block=SwinTransformerBlockV2)  # fmt: skip
        layer = "features.1.0.attn.cpb_mlp"
        with pytest.raises(ValueError, match=r"\(1, 7, 7, 2\) for 2 images, not one output each"):
            gradcam.Probe(model, layer).run(torch.rand(2, 3, 32, 32))

    def test_a_reshape_of_ones_own(self):
        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.fc = nn.Linear(3, 4), nn.Linear(4, 2)

            def forward(self, x):
                return self.fc(self.inner(x.flatten(2).transpose(1, 2)[:, :24]).mean(1))

        x, model = torch.rand(1, 3, 6, 6), Tokens()
        with pytest.raises(ValueError, match="24 tokens fill no grid of the image's 6×6"):
            gradcam.Probe(model, "inner").run(x)
        reshape = lambda o: o.transpose(1, 2).reshape(1, 4, 4, 6)  # noqa: E731
        with gradcam.Probe(model, "inner", reshape=reshape) as probe:
            seen = probe.run(x)
            assert seen.map().shape == (1, 4, 6)
            with pytest.raises(ValueError, match="needs more than `reshape`"):
                seen.map("ablationcam")


class Wrapped(nn.Module):
    """A layer that gives what it is told, behind a convolution of as many pixels."""

    def __init__(self, shape, inner=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.inner = inner or nn.Identity()
        self.shape = shape

    def forward(self, x):
        n = len(x)
        total = torch.Size(self.shape).numel()
        flat = self.conv(x).flatten(1)
        return self.inner(
            flat.repeat(1, -(-total // flat.shape[1]))[:, :total].view(n, *self.shape)
        )


class TestFourAxes:
    @pytest.mark.parametrize(
        ("shape", "inner", "grid"),
        [
            ((56, 56, 96), None, (56, 56)),  # Swin's first stage at 224 pixels
            ((28, 28, 48), None, (28, 28)),
            ((14, 14, 8), None, (14, 14)),
            ((14, 7, 7), None, (7, 7)),
            ((8, 7, 7), None, (7, 7)),
            ((7, 7, 8), None, (7, 7)),
            ((96, 28, 28), nn.BatchNorm2d(96), (28, 28)),
            ((28, 28, 28), nn.BatchNorm2d(28), (28, 28)),
            ((14, 14, 14), nn.LayerNorm(14), (14, 14)),
            ((5, 30, 14), nn.Conv2d(5, 5, 1), (30, 14)),  # its own strides along y and x
        ],
    )
    def test_the_axes_with_the_images_proportions_are_the_plane(self, shape, inner, grid):
        x = torch.rand(2, 3, 224, 224)
        layout = layout_of(Wrapped(shape, inner), "inner", torch.rand(2, *shape), x.shape[2:], 2)
        assert layout.grid == grid
        last = layout.kind == "channels last"
        assert last == (shape[:2] == grid and (shape[2] != grid[0] or type(inner) is nn.LayerNorm))

    @pytest.mark.parametrize("shape", [(3, 197, 64), (16, 196, 96), (20, 9, 64)])
    def test_impossible_proportions_are_refused(self, shape):
        model = Wrapped(shape)
        with pytest.raises(ValueError, match="no two axes have the proportions of the image's 224"):
            layout_of(model, "inner", torch.rand(1, *shape), (224, 224), 1)

    def test_an_image_that_a_preset_stretches(self):
        from workbench.models.architectures import Preprocess

        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 6, 3, 2), nn.Flatten())
        model.register_forward_pre_hook(Preprocess(size=(32, 32)))
        with gradcam.Probe(model, "1") as probe:
            assert probe.run(torch.rand(1, 3, 20, 60)).map(signed=True).shape == (1, 7, 7)

    def test_a_change_is_shown_where_it_is(self):
        import timm

        torch.manual_seed(0)
        model = timm.create_model("swin_tiny_patch4_window7_224", img_size=112, num_classes=5,
                                  embed_dim=48, depths=(1, 1, 1, 1))  # fmt: skip
        x = torch.rand(1, 3, 112, 112)
        y = x.clone()
        y[:, :, 76:85, 28:36] = torch.rand(1, 3, 9, 8)
        with gradcam.Probe(model.eval(), "layers.0") as probe:
            a, b = (probe.run(image, 3).activations["layers.0"] for image in (x, y))
        row, column = divmod(int((a - b).abs().sum(1).argmax()), a.shape[3])
        assert abs((row + 0.5) / a.shape[2] - 0.72) < 0.06
        assert abs((column + 0.5) / a.shape[3] - 0.29) < 0.06


def test_hieras_unrolled_tokens_are_put_in_order_or_refused():
    import timm

    torch.manual_seed(0)
    model = timm.create_model("hiera_tiny_224", img_size=64, num_classes=5).eval()
    nn.init.normal_(model.head.fc.weight)
    x = torch.rand(1, 3, 64, 64)
    y = x.clone()
    y[:, :, 44:48, 16:20] = 0
    with gradcam.Probe(model, "blocks.0") as probe:
        a, b = (probe.run(image, 3).activations["blocks.0"] for image in (x, y))
    row, column = divmod(int((a - b).abs().sum(1).argmax()), a.shape[3])
    assert abs(row - 11) <= 1
    assert abs(column - 4) <= 1
    with pytest.raises(ValueError, match="tokens in an order of its own"):
        gradcam.Probe(model, "blocks.0.norm1").run(x, 3)


def test_a_video_has_a_plane_with_time():
    from torchvision.models.video import r3d_18

    torch.manual_seed(0)
    model = r3d_18(weights=None, num_classes=4)
    with gradcam.Probe(model, "layer3") as probe:
        seen = probe.run(torch.rand(1, 3, 8, 32, 32), 2)
        for method in ("gradcam", "gradcam++", "xgradcam", "layercam", "eigencam"):
            assert seen.map(method, signed=True).shape == (1, 2, 4, 4)
        assert seen.map("gradient").shape == (1, 8, 32, 32)
        assert seen.map(signed=True, size=(8, 32, 32)).shape == (1, 8, 32, 32)
        with pytest.raises(ValueError, match="occlusion covers windows of images"):
            seen.map("occlusion")


class TestTokens:
    def grid(self, shape, image, module=None):
        model = nn.Sequential(module or nn.Identity())
        return layout_of(model, "0", torch.zeros(shape), image, shape[0]).grid

    def test_every_grid_of_patches_is_found_whatever_the_images_proportions(self):
        for height, width, patch in product((40, 75, 224, 301), (50, 99, 224, 610), (7, 8, 16)):
            for rounded in (floor, ceil):
                grid = (rounded(height / patch), rounded(width / patch))
                assert self.grid((1, grid[0] * grid[1], 5), (height, width)) == grid

    def test_channels_are_not_taken_for_tokens(self):
        # 506 = 22 × 23 is no grid of square patches in a square image, 512 - 6 no number of tokens
        with pytest.raises(ValueError, match="512 tokens fill no grid"):
            self.grid((1, 512, 196), (224, 224))
        # 32 - 7 = 5 × 5, but what is pooled comes behind the channels
        with pytest.raises(ValueError, match="fill no grid"):
            self.grid((1, 32, 1), (64, 64), nn.AdaptiveAvgPool1d(1))
