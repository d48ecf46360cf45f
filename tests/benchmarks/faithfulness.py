"""Whether the tests of maps can be believed: random maps, maps made worse step by step, the time.

    python tests/benchmarks/faithfulness.py --parts random order time

`random`: of maps that know nothing, one for each seed, how many are called better than chance
(2.5 % would be by the interval alone), the noise being 4, 8 or as many pixels a side as the image.
`order`: maps that are blended with noise in ten steps; of the 45 pairs of each seed, how many have
the scores in the right order. Both on a network of which it is known what it looks at, a patch at
another place in each image, and on the shipped CIFAR-10 network with test images, where the best
map is that of Grad-CAM. `time`: images of 224² and one map, torchvision's ResNet-18 and timm's
ViT-Tiny with random weights; the processor time divided by the threads is what a quiet machine
would take.
"""

import argparse
import time

import numpy as np
import timm
import torch
import torchvision
from torch import nn

from workbench import datasets, gradcam, models

STEPS = 10


class Patch(nn.Module):
    """Says class 1 as far as the patch of each image is bright, and looks at nothing else."""

    def __init__(self, n, side, seed):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.where = torch.zeros(n, side, side)
        for mask, (y, x) in zip(self.where, rng.integers(0, side - side // 3, (n, 2)), strict=True):
            mask[y : y + side // 3, x : x + side // 3] = 1

    def forward(self, x):
        light = (x.mean(1) * self.where).sum((1, 2)) / self.where.sum((1, 2))
        return torch.stack([torch.zeros_like(light), 8 * light - 4], 1)


def cases(n, seed):
    """Network, images, target and the best map, by name."""
    rng = torch.Generator().manual_seed(seed)
    patch = Patch(n, 24, seed)
    x = 0.2 * torch.rand(n, 3, 24, 24, generator=rng) + 0.8 * patch.where[:, None]
    yield "patch", patch, x, 1, patch.where
    network = models.load("cifar10")
    ds = datasets.subset(datasets.load("cifar10", split="test"), n, seed=seed)
    with gradcam.Probe(network, "layer4") as probe:
        result = probe.run(ds)
        best = gradcam.resize(result.map(signed=True).relu(), 32)
    yield "CIFAR-10", network, result.x, result.target, best / best.amax((1, 2), keepdim=True)


def random(options):
    for name, network, x, target, _ in cases(options.images, 0):
        found = []
        for seed in range(options.seeds):
            grid = (4, 8, x.shape[-1])[seed % 3]
            maps = {"it": gradcam.random_maps(len(x), x.shape[2:], (grid, grid), seed)}
            table = gradcam.faithfulness(
                network, x, maps, target=target, seed=seed,
                batch_size=options.images, progress=False,
            ).table  # fmt: skip
            found.append(table.loc["it", "verdict"])
        better, worse = (sum(v.startswith(w) for v in found) for w in ("better", "worse"))
        print(f"{name}: of {len(found)} random maps {better} are called better than chance, "
              f"{worse} worse", flush=True)  # fmt: skip


def order(options):
    shares = {}
    for seed in range(options.order_seeds):
        for name, network, x, target, best in cases(options.images, seed):
            noise = gradcam.random_maps(len(x), x.shape[2:], (8, 8), seed)
            worse = {
                f"{i}": best * (1 - i / (STEPS - 1)) + noise * i / (STEPS - 1) for i in range(STEPS)
            }
            table = gradcam.faithfulness(
                network, x, worse, target=target, steps=16, seed=seed,
                batch_size=options.images, progress=False,
            ).table  # fmt: skip
            score = table.loc[list(worse), "score"].to_numpy()
            first, second = np.triu_indices(STEPS, 1)
            shares.setdefault(name, []).append((score[first] > score[second]).mean())
    for name, of in shares.items():
        print(f"{name}: {np.mean(of):.1%} of {len(of)}×45 pairs in the right order, worst seed "
              f"{min(of):.0%}", flush=True)  # fmt: skip


def timed(options):
    x = torch.rand(options.timed, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for name, model, layer in (
        ("ResNet-18", torchvision.models.resnet18(), "layer4"),
        ("ViT-Tiny", timm.create_model("vit_tiny_patch16_224"), "blocks.11.norm1"),
    ):
        nn.init.normal_(list(model.parameters())[-2], std=0.05)  # a head of zeros has no maps
        start, used = time.perf_counter(), time.process_time()
        with gradcam.Probe(model, layer) as probe:
            maps = {"gradcam": probe.run(x, 3).map(signed=True)}
        gradcam.faithfulness(model, x, maps, target=3, progress=False)
        wall, used = time.perf_counter() - start, time.process_time() - used
        threads = torch.get_num_threads()
        quiet = f"{used / threads:.0f} s of {threads} processors"
        print(f"{name}: {len(x)} images in {wall:.0f} s, {quiet}", flush=True)


PARTS = {"random": random, "order": order, "time": timed}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--timed", type=int, default=64)
    parser.add_argument("--order-seeds", type=int, default=10)
    options = parser.parse_args()
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
