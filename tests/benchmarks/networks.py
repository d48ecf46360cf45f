"""Any network a person brings: a matrix of families and what the workbench makes of them.

    python tests/benchmarks/networks.py --library torchvision --out networks.csv
    python tests/benchmarks/networks.py resnet18 timm/vit_tiny_patch16_224

One row a network, with random weights. `gradcam` is the largest difference between our map of a
layer, by default that of `gradcam.narrowest`, and one made with a plain hook and autograd, as a
share of the largest value; `field` how many of up to four bounded layers, evenly spread over the
network, have the receptive field that equals the extent of a gradient, where one can be measured;
`vector` whether `activations` equals the mean over the plane; `load` and `predict` whether a saved
state dict comes back by the name alone and predicts the same. A cell is a number, "yes", or the
reason in words. Nothing is downloaded.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import nn

from workbench import gradcam, models
from workbench.models.architectures import find
from workbench.models.layers import layout_of

TORCHVISION = (
    *("resnet18", "resnext50_32x4d", "wide_resnet50_2", "vgg16", "alexnet", "densenet121"),
    *("squeezenet1_1", "googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small"),
    *("shufflenet_v2_x1_0", "mnasnet1_0", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf"),
    *("convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"),
)
TIMM = (
    *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"),
    *("swinv2_tiny_window8_256", "convnextv2_atto", "mixer_s16_224", "efficientformer_l1"),
    *("levit_128s", "tiny_vit_5m_224", "efficientvit_m0", "hiera_tiny_224", "nest_tiny"),
    *("pvt_v2_b0", "gcvit_xxtiny", "mambaout_femto", "poolformer_s12", "xcit_nano_12_p16_224"),
    *("cait_xxs24_224", "beit_base_patch16_224", "mobilevit_xxs", "edgenext_xx_small"),
    *("tf_efficientnet_lite0", "ghostnet_100", "repvgg_a0", "regnety_002", "fastvit_t8"),
    *(
        "coatnet_nano_rw_224",
        "davit_tiny",
        "focalnet_tiny_srf",
        "twins_svt_small",
        "visformer_tiny",
    ),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="by default those of --library")
    parser.add_argument("--library", choices=["torchvision", "timm", "both"], default="both")
    parser.add_argument("--out", type=Path, help="a CSV file")
    options = parser.parse_args()
    every = {"torchvision": TORCHVISION, "timm": [f"timm/{name}" for name in TIMM]}
    chosen = every if options.library == "both" else {options.library: every[options.library]}
    rows = []
    for name in options.names or [name for names in chosen.values() for name in names]:
        rows.append({"network": name, **row_of(name)})
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    table = pd.DataFrame(rows).set_index("network")
    if options.out:
        table.to_csv(options.out)
    print(table.to_string())


def row_of(name):
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    found = find(name)
    model = found.build().eval()
    for key, weights in model.named_parameters():  # heads that start at zero say nothing
        if any(part in key for part in ("head", "classifier", "fc")) and weights.ndim == 2:
            nn.init.normal_(weights, std=0.05)
    size = found.preset.size
    values = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), values)})
    x = torch.from_numpy(values).permute(0, 3, 1, 2).float() / 255
    row = {"layer": tried(lambda: gradcam.narrowest(gradcam.receptive_field(model, (3, *size))))}
    layer = row["layer"]
    row["gradcam"] = tried(lambda: difference(model, layer, x))
    row["field"] = tried(lambda: fields(model, size))
    row["vector"] = tried(lambda: vector(model, layer, ds, x))
    row["load, predict"] = tried(lambda: loaded(name, model, found.preset, ds))
    return row


def tried(make):
    """What comes out, or the error in words."""
    try:
        return make()
    except Exception as error:  # the row of a table, whatever it is
        return f"{type(error).__name__}: {str(error)[:90]}"


def reference(model, layer, x):
    """A layer's output and its gradient, by a plain hook and autograd."""
    kept = []

    def keep(_, __, output):
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    score = model(x)[:, 3].sum()
    handle.remove()
    return kept[-1].detach(), torch.autograd.grad(score, kept[-1])[0]


def difference(model, layer, x):
    a, g = reference(model, layer, x)
    layout = layout_of(model, layer, a, x.shape[2:], len(x))
    a, g = layout.to_maps(a), layout.to_maps(g)
    expected = (a * g.mean((2, 3), keepdim=True)).sum(1)
    with gradcam.Probe(model, layer) as probe:
        maps = probe.run(x, 3).map("gradcam", signed=True)
    return f"{float((maps - expected).abs().max() / expected.abs().max()):.0e}"


def fields(model, size):
    every = gradcam.receptive_field(model, (3, *size))
    bounded = [name for name, seen in every["size"].items() if np.isfinite(np.max(seen))]
    if not bounded:
        return "all layers see everything"
    some = [bounded[i] for i in sorted({*np.linspace(0, len(bounded) - 1, 4).astype(int)})]
    table = gradcam.receptive_field(model, (3, *size), some, confirm=True)
    known = table[table["measured"].notna()]
    equal = [a == b for a, b in zip(known["size"], known["measured"], strict=True)]
    return f"{sum(equal)} of {len(equal)}" if equal else "takes one size of image alone"


def vector(model, layer, ds, x):
    a, _ = reference(model, layer, x)
    if a.ndim == 3:
        expected = a.mean(1)
    else:
        expected = layout_of(model, layer, a, x.shape[2:], len(x)).to_maps(a).mean((2, 3))
    ours = models.activations(model, ds, layer, progress=False)
    near = 1e-4 * float(expected.abs().max())
    equal = ours.shape == expected.shape and np.allclose(ours, expected, atol=near)
    return "yes" if equal else f"{ours.shape}, not {tuple(expected.shape)}"


def loaded(name, model, preset, ds):
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "it.pt")
        again = models.load(Path(folder) / "it.pt", architecture=name)
    model.register_forward_pre_hook(preset)
    ours, expected = (models.predict(m, ds, progress=False) for m in (again, model))
    return "yes" if np.allclose(ours, expected, atol=1e-5) else "predicts something else"


if __name__ == "__main__":
    sys.exit(main())
