"""Grad-CAM of four layers, and Ablation-CAM, against captum, pytorch-grad-cam and torch-cam.

    python tests/benchmarks/gradcam.py --batch 16 --size 224

ResNet34 with random weights. Every side gets the same images and targets in the same process, they
take turns, the fastest turn of each counts. `floor` is one forward pass and one backward pass to
the first of the layers, which nobody can do without. Peak memory is each side's own, in a fresh
process. pytorch-grad-cam's Ablation-CAM replays the whole network for every channel: it is run for
one image and a few of the channels and its time is multiplied up, as the output says.

Beside the time stands the arithmetic: multiply-adds of convolutions and matrix products for one
image, counted and not timed. captum runs once for each layer; for four layers that is 20.1 of them
to our 6.5, in billions, so its time cannot be more than 3.1 times ours unless the same
convolutions run faster here. `gradcam_variants.py` tries what might make them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torchvision
from resident import resident_gib
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

LAYERS = ("layer1", "layer2", "layer3", "layer4")


def main():
    options = arguments()
    torch.manual_seed(0)
    model = torchvision.models.resnet34(weights=None).eval()
    if options.device != "cpu":
        print(on_device(options.device, options.batch, options.size, options.repeat))
        return
    x = torch.rand(options.batch, 3, options.size, options.size)
    targets = torch.arange(options.batch)
    if options.side:
        SIDES[options.side](model, x, targets)
        print(json.dumps(resident_gib()))
        return
    print(
        f"# ResNet34, {options.batch} images of {options.size}², {torch.get_num_threads()} threads "
        f"of {os.cpu_count()} cores, torch {torch.__version__}, {options.repeat} turns"
    )
    maps(model, x, targets, options)
    ablation(model, x[:1], targets[:1], options)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--channels", type=int, default=32, help="of the peer's Ablation-CAM")
    parser.add_argument("--device", default="cpu", help="cuda: the time there, and nothing else")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


# One side each: the Grad-CAM maps of four layers ---------------------------------------------


def floor(model, x, targets):
    kept = {}

    def keep(_, __, output):
        torch.set_grad_enabled(True)
        kept["a"] = output.detach().requires_grad_()
        return kept["a"]

    handle = model.layer1.register_forward_hook(keep)
    with torch.no_grad():
        score = model(x)[torch.arange(len(x)), targets].sum()
        torch.autograd.grad(score, kept["a"])
    handle.remove()


def ours(model, x, targets):
    from workbench import gradcam

    with gradcam.Probe(model, LAYERS) as probe:
        seen = probe.run(x, targets)
        return [seen.map("gradcam", layer) for layer in LAYERS]


def captum(model, x, targets):
    from captum.attr import LayerGradCam

    found = []
    for layer in LAYERS:
        peer = LayerGradCam(model, getattr(model, layer))
        found.append(peer.attribute(x, target=targets, relu_attributions=True)[:, 0].detach())
    return found


def pytorch_grad_cam(model, x, targets):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    found = []
    for layer in LAYERS:  # with a list of layers it returns their mean alone
        with GradCAM(model, [getattr(model, layer)]) as cam:
            found.append(cam(x, [ClassifierOutputTarget(int(t)) for t in targets]))
    model.zero_grad(set_to_none=True)
    return found


def torch_cam(model, x, targets):
    from torchcam.methods import GradCAM

    with GradCAM(model, list(LAYERS)) as cam:
        scores = model(x)
        return cam(targets.tolist(), scores)


SIDES = {
    "floor": floor, "ours": ours, "torch-cam": torch_cam, "captum": captum,
    "pytorch-grad-cam": pytorch_grad_cam,
}  # fmt: skip


def maps(model, x, targets, options):
    turns = {side: [] for side in SIDES}
    for _ in range(options.repeat):
        for side, run in SIDES.items():
            turns[side].append(clock(run, model, x, targets))
    best = {side: min(times) for side, times in turns.items()}
    both = zip(*(side(model, x[:2], targets[:2]) for side in (ours, captum)), strict=True)
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in both)
    print(f"\nGrad-CAM of {', '.join(LAYERS)}; ours and captum differ by {difference:.1e}")
    print(f"{'':<18}{'seconds':>9}{'/ ours':>8}{'G mult-adds':>13}{'/ ours':>8}{'peak GiB':>10}")
    sums = {side: arithmetic(run, model, x[:1], targets[:1]) for side, run in SIDES.items()}
    for side, seconds in best.items():
        row = (
            f"{side:<18}{seconds:>9.2f}{seconds / best['ours']:>7.1f}x"
            f"{sums[side]:>13.2f}{sums[side] / sums['ours']:>7.1f}x{peak(side, options):>10.2f}"
        )
        print(row, flush=True)


class Arithmetic(TorchDispatchMode):
    """Counts floating-point operations of convolutions and matrix products, backward passes too."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=output)
        return output


def arithmetic(run, model, x, targets):
    """Billions of multiply-adds."""
    with Arithmetic() as counter:
        run(model, x, targets)
    return counter.operations / 2e9


def ablation(model, x, targets, options):
    from workbench import gradcam

    with gradcam.Probe(model, "layer4") as probe:
        seen = probe.run(x, targets)
        mine = min(clock(seen.map, "ablationcam") for _ in range(options.repeat))
    channels = seen.activations["layer4"].shape[1]
    few = options.channels
    theirs, least = (clock(_peers_ablation, model, x, targets, n) for n in (few, 1))
    whole = least + (theirs - least) * (channels - 1) / (few - 1)
    print(f"\nAblation-CAM at layer4, one image, {channels} channels")
    print(f"{'ours':<18}{mine:>9.2f}")
    print(f"{'pytorch-grad-cam':<18}{whole:>9.2f}{whole / mine:>7.1f}x  "
          f"extrapolated from {few} channels ({theirs:.2f} s)")  # fmt: skip


def _peers_ablation(model, x, targets, channels):
    """Its Ablation-CAM, told to ablate the first so many channels."""
    import numpy as np
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def first(*_):
        cam.ablation_layer.indices = np.arange(channels)
        return cam.ablation_layer.indices

    with AblationCAM(model, [model.layer4]) as cam:
        cam.ablation_layer.activations_to_be_ablated = first
        cam(x, [ClassifierOutputTarget(int(t)) for t in targets])


def on_device(device="cuda", batch=16, size=224, repeat=20):
    """Milliseconds of the floor, ours and torch-cam there, and how far our maps are the CPU's."""
    torch.manual_seed(0)
    model = torchvision.models.resnet34(weights=None).eval()
    x = torch.rand(batch, 3, size, size)
    targets = torch.arange(batch)
    expected = ours(model, x[:2], targets[:2])
    model.to(device)
    maps = ours(model, x[:2].to(device), targets[:2].to(device))
    pairs = zip(maps, expected, strict=True)
    row = {"difference": max(float((a.cpu() - b).abs().max() / b.abs().max()) for a, b in pairs)}
    x, targets = x.to(device), targets.to(device)
    turns = {side: [] for side in ("floor", "ours", "torch-cam")}
    for turn in range(repeat + 3):
        for side, times in turns.items():
            seconds = clock(SIDES[side], model, x, targets)
            if turn >= 3:  # the first ones find their kernels
                times.append(1000 * seconds)
    return row | {side: round(min(times), 2) for side, times in turns.items()}


def clock(run, *args):
    started = time.perf_counter()
    run(*args)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak(side, options):
    """The most memory of a fresh process that does one side's work."""
    command = [sys.executable, __file__, "--side", side, "--batch", str(options.batch)]
    done = subprocess.run(
        [*command, "--size", str(options.size)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
