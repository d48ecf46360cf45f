"""Every map against an exact fact, an independent implementation or an invariant."""

import numpy as np
import pytest
import torch
from comparing import TARGETS, close
from torch import nn
from torch.nn import functional as F

from workbench import gradcam
from workbench.gradcam.cam_methods import FORMULAS, eigencam, gradcam_plus_plus
from workbench.models import SmallResNet


class TestExactFacts:
    """With average pooling and one linear layer behind it, layer4's weights are known."""

    def test_gradcam_weights_are_the_linear_layers(self, seen, resnet):
        h, w = seen.activations["layer4"].shape[2:]
        expected = resnet.fc.weight[TARGETS] / (h * w)
        found = seen.gradients["layer4"]
        torch.testing.assert_close(found, expected[:, :, None, None].expand_as(found))
        by_hand = torch.einsum("nk,nkyx->nyx", expected, seen.activations["layer4"])
        close(seen.map("gradcam", signed=True), by_hand)
        torch.testing.assert_close(seen.map("gradcam"), seen.map("gradcam", signed=True).relu())

    def test_hirescam_and_xgradcam_are_gradcam_there(self, seen):
        for method in ("hirescam", "xgradcam"):
            close(seen.map(method, signed=True), seen.map("gradcam", signed=True))

    def test_ablation_drops_are_weight_times_mean_activation(self, seen, resnet):
        expected = resnet.fc.weight[TARGETS] * seen.activations["layer4"].mean((2, 3))
        close(seen.ablation_drops("layer4"), expected)

    def test_ablationcam_keeps_its_sign_where_the_logit_is_negative(self, resnet, images):
        classes = [resnet(images)[i].argsort()[[0, -1]][i % 2].item() for i in range(3)]
        with gradcam.Probe(resnet, "layer4") as probe:
            seen = probe.run(images, classes)
            found = seen.map("ablationcam", signed=True) * seen.score.abs()[:, None, None]
        assert (seen.score < 0).tolist() == [True, False, True]
        drops = resnet.fc.weight[classes] * seen.activations["layer4"].mean((2, 3))
        close(found, torch.einsum("nk,nkyx->nyx", drops, seen.activations["layer4"]), 1e-4)


class TestGradCamPlusPlus:
    def test_is_equation_19_in_double_precision(self, seen):
        for layer in ("layer1", "layer4"):
            a, g = seen.activations[layer].double(), seen.gradients[layer].double()
            below = 2 * g**2 + a.sum((2, 3), keepdim=True) * g**3
            alpha = torch.where(g != 0, g**2 / torch.where(g != 0, below, 1), 0)
            weights = (alpha * g.clamp(min=0)).sum((2, 3), keepdim=True)
            close(seen.map("gradcam++", layer, signed=True), (weights * a).sum(1), 1e-6)

    def test_gradients_whose_square_underflows_count(self):
        a, g = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 1e-30)
        # alpha = 1 / (2 + 2e-30) at each of four places
        torch.testing.assert_close(
            gradcam_plus_plus(a, g), torch.full((1, 2, 2), 1e-30), rtol=1e-6, atol=0
        )


class TestEigenCam:
    def test_is_the_first_singular_vector_and_lies_on_the_energys_side(self, seen):
        for layer in ("layer1", "layer4"):
            places = seen.activations[layer].flatten(2).transpose(1, 2).double().numpy()
            found = seen.map("eigencam", layer, signed=True).flatten(1).double().numpy()
            for one, ours in zip(places, found, strict=True):
                _, _, vt = np.linalg.svd(one)
                theirs = one @ vt[0]
                assert min(abs(ours - theirs).max(), abs(ours + theirs).max()) < 1e-3
                assert np.corrcoef(ours, np.linalg.norm(one, axis=1))[0, 1] >= 0

    def test_its_sign_follows_the_activations_energy(self):
        a = torch.rand(4, 5, 6, 6)
        torch.testing.assert_close(eigencam(-a), eigencam(a), rtol=1e-4, atol=1e-4)

    def test_knows_no_class(self, resnet, images):
        with gradcam.Probe(resnet, "layer4") as probe:
            one, other = (probe.run(images, t).map("eigencam") for t in (1, 2))
        torch.testing.assert_close(one, other)


class TestPixelMethods:
    def test_the_gradient_is_autograds(self, seen, resnet, images):
        x = images.clone().requires_grad_()
        resnet(x)[range(3), TARGETS].sum().backward()
        close(seen.attribution("gradient"), x.grad)
        close(seen.map("gradient"), x.grad.abs().amax(1))
        close(seen.map("gradient", signed=True), x.grad.sum(1))

    def test_integrated_gradients_add_up_to_the_scores_difference(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 2))
        x = torch.rand(2, 3, 8, 8)
        with gradcam.Probe(model) as probe:
            found = probe.run(x, 1).attribution("integrated_gradients", steps=100)
        expected = (model(x) - model(torch.zeros_like(x)))[:, 1]
        torch.testing.assert_close(found.sum((1, 2, 3)), expected, rtol=1e-3, atol=1e-4)

    def test_smoothgrad_of_a_linear_network_is_its_gradient(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 2))
        with gradcam.Probe(model) as probe:
            seen = probe.run(torch.rand(2, 1, 8, 8), [0, 1])
            close(seen.attribution("smoothgrad", samples=3), seen.attribution("gradient"))

    def test_smoothgrad_is_repeatable(self, seen):
        one, again, other = (seen.map("smoothgrad", samples=2, seed=s) for s in (1, 1, 2))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)

    def test_guided_backpropagation_guides_modules_and_functions_alike(self):
        class Written(nn.Module):
            def __init__(self, by):
                super().__init__()
                self.conv, self.by, self.fc = nn.Conv2d(1, 8, 3), by, nn.Linear(8, 2)

            def forward(self, x):
                return self.fc(self.by(self.conv(x)).mean((2, 3)))

        x, found = torch.rand(1, 1, 8, 8), []
        ways = (
            nn.ReLU(),
            nn.ReLU(inplace=True),
            F.relu,
            torch.relu,
            torch.relu_,
            torch.Tensor.relu,
        )
        for by in ways:
            torch.manual_seed(3)
            with gradcam.Probe(Written(by)) as probe:
                seen = probe.run(x, 0)
                found.append(seen.attribution("guided_backprop"))
                assert not torch.allclose(found[-1], seen.attribution("gradient"))
        for other in found[1:]:
            torch.testing.assert_close(other, found[0])

    def test_guided_backpropagation_without_relus_is_refused(self):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Linear(72, 2))
        with gradcam.Probe(model) as probe, pytest.raises(ValueError, match="network has none"):
            probe.run(torch.rand(1, 1, 8, 8)).map("guided_backprop")

    def test_guided_gradcam_is_the_product_with_the_bilinear_map(self, seen):
        cam = F.interpolate(
            seen.map("gradcam", "layer4")[:, None], size=64, mode="bilinear", align_corners=False
        )
        close(
            seen.attribution("guided_gradcam", "layer4"), seen.attribution("guided_backprop") * cam
        )

    def test_occlusion_finds_the_one_pixel_that_counts(self):
        class Pixel(nn.Module):
            def forward(self, x):
                return torch.stack([x[:, 0, 2, 5], -x[:, 0, 2, 5]], 1)

        x = torch.rand(2, 1, 8, 8)
        with gradcam.Probe(Pixel()) as probe:
            found = probe.run(x, 0).map("occlusion", signed=True, window=1, stride=1, fill=0.0)
        expected = torch.zeros(2, 8, 8)
        expected[:, 2, 5] = x[:, 0, 2, 5]
        torch.testing.assert_close(found, expected)

    def test_occlusion_covers_every_pixel(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(70, 1))
        nn.init.ones_(model[1].weight)
        x = torch.rand(1, 1, 7, 10)
        with gradcam.Probe(model) as probe:
            found = probe.run(x, 0).map("occlusion", window=3, stride=2, fill=0.0)
        assert (found > 0).all()


@pytest.mark.parametrize("method", [*FORMULAS, "ablationcam", "guided_backprop", "occlusion"])
def test_a_map_does_not_depend_on_the_rest_of_the_batch(method, images):
    torch.manual_seed(0)
    model = SmallResNet(widths=(4, 4, 6, 6, 8))
    with gradcam.Probe(model.train(), "layer3") as probe:
        together = probe.run(images, [1, 2, 3]).map(method, signed=True)
        alone = [
            probe.run(images[i : i + 1], t).map(method, signed=True)
            for i, t in enumerate([1, 2, 3])
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_maps_are_resampled_bilinearly(seen):
    small = seen.map("gradcam", "layer1")
    expected = F.interpolate(small[:, None], size=(64, 48), mode="bilinear", align_corners=False)
    assert torch.equal(seen.map("gradcam", "layer1", size=(64, 48)), expected[:, 0])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("smoothgrad", {"samples": 0}),
        ("integrated_gradients", {"steps": 0}),
        ("occlusion", {"window": 0}),
        ("occlusion", {"stride": -1}),
        ("ablationcam", {"batch_size": 0}),
    ],
)
def test_options_below_one_are_refused(seen, method, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}=.*: it must be at least 1"):
        seen.map(method, **options)


def test_unknown_methods_and_layers_are_named(seen):
    with pytest.raises(ValueError, match=r"no method 'grad-cam'; there is gradcam, gradcam\+\+"):
        seen.map("grad-cam")
    with pytest.raises(ValueError, match="layer 'layer2' was not probed; layer1, layer4 were"):
        seen.map("gradcam", "layer2")


def test_guided_backpropagation_guides_relu6_too():
    torch.manual_seed(0)
    plain, clipped = (
        nn.Sequential(
            nn.Conv2d(3, 4, 3), act, nn.Conv2d(4, 2, 3), act, nn.Flatten(), nn.Linear(32, 2)
        )
        for act in (nn.ReLU(), nn.ReLU6())
    )
    clipped.load_state_dict(plain.state_dict())
    maps = []
    for model in (plain, clipped):  # no unit comes near 6
        with gradcam.Probe(model) as probe:
            maps.append(probe.run(torch.ones(1, 3, 8, 8), 1).map("guided_backprop"))
    torch.testing.assert_close(*maps)
    assert maps[0].any()
