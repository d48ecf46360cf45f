"""Networks with random weights that behave like trained ones where it matters."""

import torch
from torch import nn
from torchvision import models


def random_network(name, **options):
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()
