"""The probe leaves nothing behind, works on models in any state, and says what is wrong."""

import gc
from collections import Counter

import psutil
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from workbench import datasets, gradcam, models
from workbench.gradcam.maps import FORMULAS
from workbench.models import SmallResNet


@pytest.fixture
def small():
    torch.manual_seed(0)
    return SmallResNet(widths=(4, 4, 6, 6, 8))


@pytest.fixture
def expected(resnet, images):
    with gradcam.Probe(resnet, "layer3") as probe:
        return probe.run(images, 7).map("gradcam", signed=True)


def state(model):
    """Everything about a model that a visit could change."""
    return {
        name: (
            module.training,
            getattr(module, "inplace", None),
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
            sorted(vars(module)),
            [(id(p), p.requires_grad, p.grad is None, p._version) for p in module.parameters()],
            [b.clone().tolist() for b in module.buffers(recurse=False) if b.numel() < 3],
        )
        for name, module in model.named_modules()
    }


class TestNothingIsLeft:
    @pytest.mark.parametrize("method", gradcam.METHODS)
    def test_after_success(self, small, images, method):
        small.train()
        small.layer2.eval()
        before, x = state(small), images.clone()
        with gradcam.Probe(small, ["layer1", "layer4"]) as probe:
            seen = probe.run(images, [1, 2, 3])
            found = seen.map(method, **({"samples": 2} if method == "smoothgrad" else {}))
        assert state(small) == before
        assert torch.equal(images, x)
        assert not images.requires_grad
        tensors = [found, seen.output, seen.score, *seen.activations.values(), seen.x]
        assert not any(t.requires_grad or t.grad_fn for t in tensors)

    @pytest.mark.parametrize("method", ["gradcam", "ablationcam", "guided_backprop", "occlusion"])
    def test_after_an_exception_in_the_network(self, small, images, method):
        fuse = {"left": 10**9}

        class Fuse(nn.Module):
            def forward(self, x):
                fuse["left"] -= 1
                if fuse["left"] < 0:
                    raise KeyboardInterrupt
                return x

        model = nn.Sequential(small, Fuse()).train()
        before = state(model)
        with gradcam.Probe(model, "0.layer4") as probe:
            seen = probe.run(images)
            fuse["left"] = 1 if method == "ablationcam" else 0
            with pytest.raises(KeyboardInterrupt):
                probe.run(images) if method == "gradcam" else seen.map(method)
        assert state(model) == before
        assert torch.is_grad_enabled()

    def test_in_place_relus_stay_in_place(self, resnet, images):
        before = state(resnet)
        with gradcam.Probe(resnet, ["bn1", "layer1.0.bn1", "layer4"]) as probe:
            for method in gradcam.METHODS:
                options = {"samples": 1} if method == "smoothgrad" else {}
                options |= {"window": 64} if method == "occlusion" else {}
                options |= {"steps": 1} if method == "integrated_gradients" else {}
                probe.run(images[:1]).map(method, **options)
        assert state(resnet) == before
        assert resnet.relu.inplace

    def test_a_thousand_runs_take_no_more_memory_than_a_hundred(self, small):
        x = torch.rand(1, 3, 16, 16)

        def tensors():
            gc.collect()
            return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

        with gradcam.Probe(small, ["layer1", "layer3"]) as probe:
            for run in range(1000):
                seen = probe.run(x)
                seen.map("gradcam++", "layer1")
                if run == 99:
                    alive, memory = tensors(), psutil.Process().memory_info().rss
        assert tensors() <= alive
        assert psutil.Process().memory_info().rss - memory < 20 * 2**20

    def test_after_an_exception_beside_the_network(self, small, images):
        before = state(small.train())

        def fail(output):
            raise KeyError("target")

        with pytest.raises(KeyError), gradcam.Probe(small, ["layer1", "layer4"]) as probe:
            probe.run(images, fail)
        assert state(small) == before
        assert torch.is_grad_enabled()
        with pytest.raises(RuntimeError, match="was left"):
            probe.run(images)


class Convolutions(TorchDispatchMode):
    """Counts convolutions on the way there, and by what they give back on the way back."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.calls["forward"] += 1
        if func is torch.ops.aten.convolution_backward.default:
            self.calls["backward", *args[-1]] += 1
        return func(*args, **(kwargs or {}))


def test_every_map_of_four_layers_takes_one_pass_there_and_one_back(resnet, images):
    names = ["layer1", "layer2", "layer3", "layer4"]
    with gradcam.Probe(resnet, names) as probe, Convolutions() as counter:
        seen = probe.run(images, 7)
        for name in names:
            for method in FORMULAS:
                seen.map(method, name)
    # 20 convolutions, 15 of them behind layer1; no gradient is computed of a weight or a bias
    assert counter.calls == {"forward": 20, ("backward", True, False, False): 15}


class TestStates:
    def test_a_frozen_model(self, resnet, images, expected):
        resnet.requires_grad_(False)
        with gradcam.Probe(resnet, "layer3") as probe:
            torch.testing.assert_close(probe.run(images, 7).map(signed=True), expected)

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_under_no_grad(self, resnet, images, expected, context):
        with context():
            inside = images.clone()
            with gradcam.Probe(resnet, "layer3") as probe:
                seen = probe.run(inside, 7)
                found = seen.map(signed=True)
                seen.map("guided_backprop")
        torch.testing.assert_close(found, expected)

    def test_a_model_in_training_mode_is_looked_at_in_evaluation(self, resnet, images, expected):
        resnet.train()
        mean = resnet.bn1.running_mean.clone()
        with gradcam.Probe(resnet, "layer3") as probe:
            torch.testing.assert_close(probe.run(images, 7).map(signed=True), expected)
        assert torch.equal(resnet.bn1.running_mean, mean)
        assert resnet.training

    def test_a_layer_before_an_in_place_relu_shows_what_it_gave(self, resnet, images):
        with gradcam.Probe(resnet, "layer1.0.bn1") as probe:
            seen = probe.run(images, 7)
        for module in resnet.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        kept = []
        handle = resnet.layer1[0].bn1.register_forward_hook(lambda _, __, o: kept.append(o))
        score = resnet(images)[:, 7]
        handle.remove()
        torch.testing.assert_close(seen.activations["layer1.0.bn1"], kept[0])
        (gradient,) = torch.autograd.grad(score.sum(), kept)
        torch.testing.assert_close(seen.gradients["layer1.0.bn1"], gradient)
        assert (seen.activations["layer1.0.bn1"] < 0).any()

    def test_one_pass_for_many_layers_gives_what_one_pass_each_gives(self, resnet, images):
        names = ["layer1", "layer2", "layer2.0", "layer4"]
        with gradcam.Probe(resnet, names) as probe:
            together = probe.run(images, 7)
        for name in names:
            with gradcam.Probe(resnet, name) as probe:
                alone = probe.run(images, 7)
            torch.testing.assert_close(together.gradients[name], alone.gradients[name])
            torch.testing.assert_close(together.activations[name], alone.activations[name])


class TestWhatIsTaken:
    def test_a_layer_by_name_or_module_or_list(self, resnet, images, expected):
        for layers in ("layer3", resnet.layer3, ["layer3"], (resnet.layer3,)):
            with gradcam.Probe(resnet, layers) as probe:
                torch.testing.assert_close(probe.run(images, 7).map(signed=True), expected)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_a_model_of_another_precision(self, small, images, dtype):
        with gradcam.Probe(small, "layer4") as probe:
            expected = probe.run(images, 7).map("hirescam")
        with gradcam.Probe(small.to(dtype), "layer4") as probe:
            seen = probe.run(images, 7)
            found = seen.map("hirescam")
            seen.map("eigencam")
        assert found.dtype == seen.x.dtype == dtype
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05 * expected.max())

    def test_targets_of_every_kind(self, resnet, images):
        output = resnet(images)
        top = output.argmax(1)
        kinds = {
            "none": (None, output[range(3), top]),
            "number": (7, output[:, 7]),
            "list": ([1, 2, 3], output[range(3), [1, 2, 3]]),
            "tensor": (torch.tensor([1, 2, 3]), output[range(3), [1, 2, 3]]),
            "function": (lambda o: o[:, 1] - o[:, 2], output[:, 1] - output[:, 2]),
        }
        with gradcam.Probe(resnet, "layer4") as probe:
            for name, (target, score) in kinds.items():
                seen = probe.run(images, target)
                torch.testing.assert_close(seen.score, score.detach(), msg=name)
                assert (seen.target is None) == (name == "function")
            assert probe.run(images).target.tolist() == top.tolist()

    def test_an_image_dataset(self):
        ds = datasets.load("photos", n=4)
        model = models.load("cifar10")
        with gradcam.Probe(model, "layer4") as probe:
            seen = probe.run(ds)
        x = torch.from_numpy(ds["image"].values).permute(0, 3, 1, 2) / 255
        torch.testing.assert_close(seen.x, x)
        assert [text.count("%") for text in seen.predictions(model.classes)] == [2] * 4

    def test_grey_images_of_a_dataset_for_a_network_of_three_channels(self, small):
        ds = datasets.load("photos", n=2).isel(channel=[0])
        with gradcam.Probe(small, "layer4") as probe:
            assert probe.run(ds).x.shape == (2, 3, 32, 32)

    def test_a_segmenters_output_by_a_function(self):
        model = nn.Conv2d(3, 5, 3, padding=1)
        x = torch.rand(2, 3, 8, 8)
        with gradcam.Probe(model, model) as probe:
            with pytest.raises(ValueError, match="not \\(sample, class\\): give a function"):
                probe.run(x, 1)
            seen = probe.run(x, lambda o: o[:, 1].mean((1, 2)))
        torch.testing.assert_close(seen.gradients[""][:, 1], torch.full((2, 8, 8), 1 / 64))


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


class TestErrors:
    def test_layers(self, resnet, images):
        with pytest.raises(ValueError, match="no layer 'lyer4'; there is layer4"):
            gradcam.Probe(resnet, "lyer4")
        with pytest.raises(ValueError, match="this Linear is not a part of the model"):
            gradcam.Probe(resnet, nn.Linear(1, 1))
        with pytest.raises(TypeError, match="a name or a module, not a int"):
            gradcam.Probe(resnet, [4])
        with pytest.raises(ValueError, match=r"'fc' gives \(3, 1000\): it has no spatial output"):
            gradcam.Probe(resnet, "fc").run(images)
        with pytest.raises(ValueError, match="one position is no spatial output"):
            gradcam.Probe(resnet, "avgpool").run(images)

    def test_a_layer_that_is_not_reached_or_not_used(self, small, images):
        small.spare = nn.Conv2d(3, 3, 3)
        with pytest.raises(ValueError, match="did not reach spare"):
            gradcam.Probe(small, "spare").run(images)
        with pytest.raises(ValueError, match="score does not depend on layer 'layer4'"):
            gradcam.Probe(small, "layer4").run(images, lambda o: torch.ones(3))

    def test_targets(self, small, images):
        probe = gradcam.Probe(small, "layer4")
        for target, words in (
            ([1, 2], r"targets of shape \(2,\) for 3 images"),
            ([], r"targets of shape \(0,\) for 3 images"),
            ([1, 2, 10], "there is no class 10: the model has 0 to 9"),
            (-1, "there is no class -1"),
            (lambda o: o.sum(), r"gives \(\), not one score for each of 3 images"),
        ):
            with pytest.raises(ValueError, match=words):
                probe.run(images, target)
        with pytest.raises(TypeError, match="class numbers, got"):
            probe.run(images, [0.5, 1.0, 2.0])

    def test_images(self, small, images):
        probe = gradcam.Probe(small, "layer4")
        broken = images.clone()
        broken[1, 0, 0, 0] = float("nan")
        with pytest.raises(
            ValueError, match="NaN or infinite pixels in 1 images; the first is at 1"
        ):
            probe.run(broken)
        for x in (images[0], (images * 255).byte(), images.numpy(), images[:0]):
            with pytest.raises(ValueError, match="images are a float tensor"):
                probe.run(x)

    def test_a_probe_that_was_left(self, small, images):
        with gradcam.Probe(small, "layer4") as probe:
            seen = probe.run(images)
        seen.map("layercam")
        for method in ("ablationcam", "gradient", "guided_gradcam"):
            with pytest.raises(RuntimeError, match="within the probe"):
                seen.map(method)
        with pytest.raises(RuntimeError, match="was left"):
            probe.run(images)

    def test_a_network_that_hides_its_layers(self, small, tmp_path):
        torch.jit.trace(small.eval(), torch.rand(1, 3, 32, 32)).save(tmp_path / "scripted.pt")
        with pytest.raises(ValueError, match="TorchScript files hide their layers"):
            gradcam.Probe(models.load(tmp_path / "scripted.pt"), "layer4")
