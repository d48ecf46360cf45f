"""The probe leaves nothing behind, works on models in any state, and says what is wrong."""

import copy
import gc
from collections import Counter

import psutil
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from workbench import datasets, gradcam, models
from workbench.gradcam.cam_methods import FORMULAS


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

    @pytest.mark.long
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


class Caching(nn.Module):
    """Keeps tensors beside its parameters while it evaluates, as LeViT and its kin do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bias = nn.Parameter(torch.ones(4))
        self.cache = {}
        self.last = None

    def forward(self, x):
        if not self.training:
            self.cache["bias"] = self.bias * 2
            self.last = self.bias * 2
        bias = self.bias * 2 if self.training else self.cache["bias"]
        return (self.conv(x).relu() + bias.view(-1, 1, 1)).mean((2, 3))


@pytest.mark.parametrize("training", [False, True])
def test_what_a_network_caches_is_left_as_it_was(training):
    model = Caching().train(training)
    x = torch.rand(1, 3, 8, 8)
    with gradcam.Probe(model, "conv") as probe:
        probe.run(x).map("gradient")
    assert model.cache == {}
    assert model.last is None
    copy.deepcopy(model)
    gradcam.faithfulness(model, x, {"gradcam": torch.rand(1, 3, 3)}, layer="conv", progress=False)


class TestWhatAModelTakesAndGives:
    def test_several_inputs(self, images):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3, 8)

            def forward(self, x, gate):
                return self.conv(x).mean((2, 3)) * gate

        torch.manual_seed(0)
        gate = torch.rand(3, 4)
        model = Two()
        with gradcam.Probe(model, "conv") as probe:
            seen = probe.run((images, gate), [0, 1, 2])
            torch.testing.assert_close(seen.output, model(images, gate).detach())
            for method in gradcam.METHODS:
                if "guided" not in method:
                    assert seen.map(method, signed=True).any(), method
            alone = probe.run((images[1:2], gate[1:2]), 1)
            for method in ("ablationcam", "occlusion", "smoothgrad"):
                a, b = seen.map(method, signed=True)[1], alone.map(method, signed=True)[0]
                torch.testing.assert_close(a, b, msg=method)
            with pytest.raises(ValueError, match="input 1 is not a tensor with one entry"):
                probe.run((images, gate[:2]), 0)

    @pytest.mark.parametrize("form", ["dict", "tuple", "list of dicts", "logits"])
    def test_outputs_of_any_form_with_a_function(self, small, images, form):
        class Formed(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = small

            def forward(self, x):
                y = self.inner(x)
                if form == "list of dicts":
                    return [{"scores": row} for row in y]
                return {"dict": {"a": y}, "tuple": (y, y.sum()), "logits": {"logits": y}}[form]

        target = {
            "dict": lambda o: o["a"][:, 2],
            "tuple": lambda o: o[0][:, 2],
            "list of dicts": lambda o: torch.stack([one["scores"][2] for one in o]),
            "logits": lambda o: o[:, 2],
        }[form]
        with gradcam.Probe(small, "layer4") as probe:
            plain = probe.run(images, 2)
            expected = {m: plain.map(m, signed=True) for m in ("gradcam", "occlusion")}
        with gradcam.Probe(Formed(), "inner.layer4") as probe:
            seen = probe.run(images, target)
            for method, maps in expected.items():
                torch.testing.assert_close(seen.map(method, signed=True), maps)
            if form != "logits":
                with pytest.raises(ValueError, match=r"not a tensor of scores: give a target"):
                    probe.run(images, 2)

    def test_labels_of_a_dataset(self, small):
        ds = datasets.load("photos", n=3)
        with gradcam.Probe(small, "layer4") as probe:
            assert probe.run(ds, ds["label"]).target.tolist() == ds["label"].values.tolist()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_occlusion_in_half_precision(self, small, images, dtype):
        with gradcam.Probe(small.to(dtype)) as probe:
            assert probe.run(images, 1).map("occlusion", stride=16).shape == (3, 64, 64)

    def test_sums_do_not_overflow_in_half_precision(self):
        from workbench.gradcam.cam_methods import FORMULAS

        model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 32 * 32, 2))
        nn.init.constant_(model[0].bias, 100)
        with gradcam.Probe(model.half(), "0") as probe:
            seen = probe.run(torch.rand(1, 3, 32, 32), 0)
        for method in FORMULAS:
            assert torch.isfinite(seen.map(method, signed=True)).all(), method

    def test_smoothgrad_of_an_image_does_not_depend_on_the_batch(self, small, images):
        with gradcam.Probe(small) as probe:
            together = probe.run(images, 1).map("smoothgrad", samples=2)
            alone = probe.run(images[2:], 1).map("smoothgrad", samples=2)
        torch.testing.assert_close(together[2:], alone)

    def test_compiled_and_quantised_networks_are_named(self, small, images):
        with pytest.raises(ValueError, match=r"torch.compile, .* model._orig_mod"):
            gradcam.Probe(torch.compile(small), "layer4")
        quantised = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)).eval()
        quantised = torch.ao.quantization.quantize_dynamic(quantised, {nn.Linear})
        with pytest.raises(ValueError, match="quantised network has no gradients"):
            gradcam.Probe(quantised, "1")
        with gradcam.Probe(quantised) as probe:
            seen = probe.run(images, 1)
            assert seen.map("occlusion", stride=32, signed=True).any()
            with pytest.raises(ValueError, match="has no gradients: take 'occlusion'"):
                seen.map("gradient")


def test_a_map_of_nothing_is_said(small, images):
    with gradcam.Probe(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                                     nn.Flatten()), "1") as probe:  # fmt: skip
        seen = probe.run(images, lambda output: -output.sum(1))
        with pytest.warns(UserWarning, match="3 of 3 maps of 'gradcam' are nowhere positive"):
            seen.map()
