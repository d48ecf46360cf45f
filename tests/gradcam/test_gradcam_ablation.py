"""Ablation-CAM's replays against whole passes."""

import pytest
import torch
from torch import nn

from workbench import gradcam
from workbench.models import SmallResNet


class TestAblation:
    def test_replaying_gives_what_ablating_in_a_full_pass_gives(self, resnet, images):
        for layer in ("layer3.0.conv1", "layer3.0.bn2", "layer3.0.downsample", "bn1"):
            module = resnet.get_submodule(layer)
            with gradcam.Probe(resnet, layer) as probe:
                seen = probe.run(images[:2, :, :32, :32], [3, 5])
                drops = seen.ablation_drops(layer, batch_size=50)
            for k in (0, 9, 33):

                def ablate(_, __, output, k=k):
                    output = output.clone()
                    output[:, k] = 0
                    return output

                handle = module.register_forward_hook(ablate)
                with torch.no_grad():
                    ablated = resnet(images[:2, :, :32, :32])[[0, 1], [3, 5]]
                handle.remove()
                torch.testing.assert_close(drops[:, k], seen.score - ablated, rtol=1e-3, atol=2e-5)

    def test_the_prefix_is_not_run_again(self, resnet, images):
        runs = []
        count = resnet.layer1.register_forward_hook(lambda *_: runs.append(1))
        inner = []
        count_inner = resnet.layer1[0].register_forward_hook(lambda *_: inner.append(1))
        with gradcam.Probe(resnet, "layer4") as probe:
            seen = probe.run(images[:1])
            inner.clear()
            seen.ablation_drops(batch_size=8)
        count.remove()
        count_inner.remove()
        assert inner == [1]  # once, to record it; 64 replays did without

    def test_a_target_function_gives_what_its_class_gives(self, images):
        torch.manual_seed(0)
        model = SmallResNet(widths=(4, 4, 6, 6, 8))
        with gradcam.Probe(model, "layer4") as probe:
            by_class = probe.run(images, [1, 2, 3]).ablation_drops()
            by_function = probe.run(images, lambda o: o[range(3), [1, 2, 3]]).ablation_drops()
        torch.testing.assert_close(by_class, by_function)

    def test_a_layer_that_runs_twice_is_refused(self, images):
        conv = nn.Conv2d(3, 3, 3, padding=1)
        model = nn.Sequential(conv, nn.ReLU(), conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        with gradcam.Probe(model, conv) as probe, pytest.raises(ValueError, match="runs 2 times"):
            probe.run(images).map("ablationcam")
