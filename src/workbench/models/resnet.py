"""A small residual network for small images (He et al. 2016, arXiv:1512.03385).

The blocks are those of ResNet-18, one a stage, behind a stem that halves the image at once: on
32×32 images a seventh of ResNet-18's arithmetic, which two CPU cores can train.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3×3 convolutions and a way around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (sample, before, y, x) to (sample, after, y / stride, x / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """A residual network with stages ``layer1`` to ``layer4``.

    It takes float images (sample, channel, y, x) in [0, 1] and normalises them itself, so that
    nobody has to know its training set's mean. The first stage works at half the image's size, the
    others at a quarter.

    Parameters
    ----------
    channels
        Of the images.
    classes
        How many logits come out.
    widths
        Channels of the stem and of the four stages.
    mean, std
        Of each image channel in the training set.

    Examples
    --------
    >>> SmallResNet(classes=10)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        widths: Sequence[int] = (32, 64, 128, 128, 192),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean or [0.5] * channels).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std or [0.25] * channels).view(1, -1, 1, 1))
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.layer1 = Block(widths[0], widths[1], stride=1)
        self.layer2 = Block(widths[1], widths[2], stride=2)
        self.layer3 = Block(widths[2], widths[3], stride=1)
        self.layer4 = Block(widths[3], widths[4], stride=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[4], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (sample, class)."""
        x = self.stem((x - self.mean) / self.std)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits
