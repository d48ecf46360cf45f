"""Networks with random weights that behave like trained ones where it matters."""

import torch
import torchvision_import  # noqa: F401
from torch import nn


def random_network(name, **options):
    from torchvision import models

    torch.manual_seed(0)
    model = models.get_model(name, weights=None, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()
