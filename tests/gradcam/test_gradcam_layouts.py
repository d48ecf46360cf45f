"""Where a layer's output holds the plane: tokens, channels last, shapes of one's own."""

import pytest
import torch
from torch import nn

from workbench import gradcam


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
