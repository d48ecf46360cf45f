"""What a probe refuses, and in which words."""

import pytest
import torch
from torch import nn

from workbench import gradcam, models


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
        opaque = models.load(tmp_path / "scripted.pt", trusted=True)
        with pytest.raises(ValueError, match="TorchScript files hide their layers"):
            gradcam.Probe(opaque, "layer4")
        x = torch.rand(1, 3, 32, 32)
        for method in ("occlusion", "gradient"):
            found = []
            for model in (opaque, small):
                with gradcam.Probe(model) as probe:
                    found.append(probe.run(x, 3).map(method))
            torch.testing.assert_close(*found)
