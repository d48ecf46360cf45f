"""What many cores and a GPU change: neighbours, UMAP's threads, Grad-CAM, an epoch of training.

    WORKBENCH_DATA=... python tests/benchmarks/device.py --parts neighbors umap gradcam training

Each part says what ran where. Without a GPU, the parts that need one say so and the script ends
well. Times are the best of three after a first turn, in seconds.
"""

import argparse
import os
import time

import numpy as np
import xarray as xr

from workbench import datasets, embeddings
from workbench._machine import processors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--n", type=int, default=70_000, help="digits of MNIST")
    options = parser.parse_args()
    print(f"# {processors()} of {os.cpu_count()} cores, {gpu() or 'no GPU'}")
    for part in options.parts:
        PARTS[part](options)


def gpu():
    try:
        import torch
    except ModuleNotFoundError:
        return ""
    found = torch.cuda.is_available()
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}" if found else ""


def best(run, turns=3, sync=lambda: None):
    run()
    times = []
    for _ in range(turns):
        sync()
        started = time.perf_counter()
        result = run()
        sync()
        times.append(time.perf_counter() - started)
    return min(times), result


def digits(n):
    parts = [datasets.load("mnist", split=split, fallback=False) for split in ("train", "test")]
    images = np.concatenate([ds["image"].values.reshape(ds.sizes["sample"], -1) for ds in parts])
    values = (images[:n] / 255).astype(np.float32)
    return xr.DataArray(values, dims=("sample", "feature"))


def neighbors(options):
    features = digits(options.n)
    rows = f"{options.n} digits, k=15"
    seconds, graph = best(lambda: embeddings.neighbors(features, 15, device="cpu"), turns=1)
    print(
        f"neighbors  {rows}: {graph.attrs['method']}, recall {graph.attrs['recall']}, "
        f"on the processor {seconds:.2f}"
    )
    if not gpu():
        print("neighbors  no GPU here: the exact search on one did not run")
        return
    from importlib import import_module

    search = import_module("workbench.embeddings.neighbors")
    alone, _ = best(lambda: search.device_graph(features.values, 15, "euclidean", "cuda"))
    seconds, exact = best(lambda: embeddings.neighbors(features, 15, device="cuda"))
    print(f"neighbors  {rows}: exact on the GPU {alone:.2f}, with checks and recall {seconds:.2f}")
    truth = embeddings.neighbors(features, 15, exact=True, device="cpu")
    other = exact["index"].values != truth["index"].values
    tied = np.isclose(exact["distance"].values, truth["distance"].values, rtol=1e-5)
    print(
        f"neighbors  indices that differ from the processor's exact search: {other.sum()}, "
        f"of which ties {np.count_nonzero(other & tied)}"
    )


def umap(options):
    from workbench.embeddings import umap_descent

    features = digits(options.n)
    graph = embeddings.neighbors(features, 15)
    embeddings.project(features[:300], n_epochs=2)  # compiled and loaded
    maps = {}
    for threads in sorted({1, 2, 4, 8, 16, processors()}):
        if threads > processors():
            continue
        umap_descent.processors = lambda threads=threads: threads
        started = time.perf_counter()
        made = embeddings.project(features, neighbors=graph, seed=0)
        maps[threads] = time.perf_counter() - started, made.values.tobytes()
        print(f"umap       {options.n} digits, {threads} threads: {maps[threads][0]:.2f}")
    print(f"umap       the same bytes on all: {len({made for _, made in maps.values()}) == 1}")
    try:
        import umap as umap_learn
    except ModuleNotFoundError:
        print("umap       umap-learn is not installed here")
        return
    umap_learn.UMAP(n_epochs=2).fit_transform(features.values[:500])
    started = time.perf_counter()
    umap_learn.UMAP().fit_transform(features.values)
    print(
        f"umap       umap-learn, unseeded, neighbours included: {time.perf_counter() - started:.2f}"
    )


def gradcam(_):
    import torch
    import torchvision
    from gradcam import SIDES

    if not gpu():
        print("gradcam    no GPU here: nothing ran")
        return
    torch.manual_seed(0)
    model = torchvision.models.resnet34(weights=None).eval().cuda()
    for batch in (16, 64):
        x = torch.rand(batch, 3, 224, 224, device="cuda")
        targets = torch.arange(batch, device="cuda")
        times = {}
        for name in ("floor", "ours", "torch-cam"):
            try:
                run = SIDES[name]
                times[name] = best(lambda: run(model, x, targets), 10, torch.cuda.synchronize)[0]  # noqa: B023
            except ModuleNotFoundError:
                print(f"gradcam    {name} is not installed here")
        told = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in times.items())
        print(
            f"gradcam    ResNet34, four layers, batch {batch}: {told}; "
            f"ours / floor {times['ours'] / times['floor']:.2f}"
        )


def training(_):
    from workbench.models import Recipe, SmallResNet, train

    if not gpu():
        print("training   no GPU here: nothing ran")
        return
    ds = datasets.load("cifar10", split="train", fallback=False)
    model = SmallResNet(classes=10).cuda()
    times = []
    train(
        model,
        ds,
        Recipe(epochs=4),
        on_epoch=lambda *_: times.append(time.perf_counter()),
    )
    print(f"training   50,000 CIFAR-10 images, an epoch: {min(np.diff(times)):.2f}")


PARTS = {"neighbors": neighbors, "umap": umap, "gradcam": gradcam, "training": training}

if __name__ == "__main__":
    main()
