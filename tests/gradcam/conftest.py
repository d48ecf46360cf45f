"""Networks and images that the Grad-CAM tests share."""

import pytest
import torch
from comparing import TARGETS
from gradcam_networks import random_network

from workbench import gradcam
from workbench.models import SmallResNet


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def resnet():
    """torchvision's ResNet18 with random weights, its ReLUs in place as ever."""
    return random_network("resnet18")


@pytest.fixture
def seen(resnet, images):
    with gradcam.Probe(resnet, ["layer1", "layer4"]) as probe:
        yield probe.run(images, TARGETS)


@pytest.fixture
def small():
    """A network like the shipped ones, of few channels, with random weights."""
    torch.manual_seed(0)
    return SmallResNet(widths=(4, 4, 6, 6, 8))
