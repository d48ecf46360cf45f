"""Networks and images that the Grad-CAM tests share."""

import pytest
import torch
from gradcam_networks import random_network


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def resnet():
    """torchvision's ResNet18 with random weights, its ReLUs in place as ever."""
    return random_network("resnet18")
