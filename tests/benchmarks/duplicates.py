"""Near-duplicates: precision and recall of pairs, ours against imagehash's pHash and CleanVision.

    WORKBENCH_DATA=/path/to/data python tests/benchmarks/duplicates.py

Two in five images get one copy: recompressed (JPEG 25 to 60), brightened (0.7 to 1.4), cropped (up
to 6 % a side), turned, mirrored, or all of it. Pairs of different originals count as wrong, also
where the data themselves hold a duplicate, as CIFAR-10 does. All sides see the same PNG files.
"""

import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from workbench import datasets
from workbench.datasets.near_duplicates import near_pairs, signature

KINDS = ("recompressed", "brightened", "cropped", "turned", "mirrored", "all")


def main(seed=0):
    print(f"seed {seed}; 40 % of the originals have a copy")
    for name, originals in data().items():
        images, group, kind = with_copies(originals, seed)
        truth = np.equal.outer(group, group)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{i:06}.png" for i in range(len(images))]
            for path, image in zip(paths, images, strict=True):
                image.save(path)
            for side, find in (("ours", ours), ("pHash <= 8", phash), ("CleanVision", cleanvision)):
                started = time.process_time()
                found = np.zeros_like(truth)
                for i, j in find(paths):
                    found[i, j] = found[j, i] = True
                report(name, side, found, truth, group, kind, time.process_time() - started)


def data():
    root = Path(os.environ["WORKBENCH_DATA"])
    smears = [Image.open(path) for path in sorted((root / "bccd/JPEGImages").glob("*.jpg"))]
    return {
        "blood smears, 96 px": [s.crop((200, 100, 392, 292)).resize((96, 96)) for s in smears],
        "photographs' patches, 96 px": patches(),
        "CIFAR-10, 32 px": named("cifar10", 3000),
        "MNIST, 28 px": named("mnist", 2000),
    }


def patches(side=96):
    """Patches on a grid of the photographs that come with scikit-image, each with some contrast."""
    import skimage

    photos = []
    for file in ("brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png", "ihc.png"):
        image = Image.open(Path(skimage.__file__).parent / "data" / file).convert("RGB")
        corners = [
            (x, y)
            for y in range(0, image.height - side + 1, side)
            for x in range(0, image.width - side + 1, side)
        ]
        photos += [image.crop((x, y, x + side, y + side)) for x, y in corners]
    return [photo for photo in photos if np.asarray(photo.convert("L")).std() > 12]


def named(name, n):
    ds = datasets.load(name, split="test", n=n, fallback=False)
    return [Image.fromarray(image.squeeze()).convert("RGB") for image in ds.image.values]


def with_copies(originals, seed):
    rng = np.random.default_rng(seed)
    images, group, kind = list(originals), list(range(len(originals))), [""] * len(originals)
    for i, image in enumerate(originals):
        if rng.random() < 0.4:
            kind.append(KINDS[rng.integers(len(KINDS))])
            images.append(copy(image, kind[-1], rng))
            group.append(i)
    return images, np.array(group), np.array(kind)


def copy(image, kind, rng):
    if kind in ("mirrored", "all"):
        image = ImageOps.mirror(image)
    if kind in ("turned", "all"):
        image = image.transpose(Image.Transpose(int(rng.integers(2, 5))))
    if kind in ("cropped", "all"):
        left, top, right, bottom = rng.uniform(0, 0.06, 4) * image.width
        box = (left, top, image.width - right, image.height - bottom)
        image = image.resize(image.size, Image.Resampling.BICUBIC, box=box)
    if kind in ("brightened", "all"):
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.4))
    if kind in ("recompressed", "all"):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(25, 61)))
        image = Image.open(buffer).convert("RGB")
    return image


def ours(paths):
    return near_pairs(np.stack([signature(np.asarray(Image.open(path))) for path in paths]))[0]


def phash(paths, most=8):
    bits = np.stack([imagehash.phash(Image.open(path)).hash.ravel() for path in paths])
    signs = bits.astype(np.float32) * 2 - 1
    return np.argwhere(np.triu(signs @ signs.T >= signs.shape[1] - 2 * most, 1))


def cleanvision(paths):
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab = Imagelab(filepaths=[str(path) for path in paths])
        lab.find_issues({"near_duplicates": {}, "exact_duplicates": {}}, n_jobs=1, verbose=False)
    index = {str(path): i for i, path in enumerate(paths)}
    for issue in ("near_duplicates", "exact_duplicates"):
        for together in lab.info[issue]["sets"]:
            rows = [index[str(path)] for path in together]
            yield from ((i, j) for i in rows for j in rows if i < j)


def report(name, side, found, truth, group, kind, seconds):
    upper = np.triu_indices(len(truth), 1)
    hit = (found & truth)[upper].sum()
    shares = {
        each: f"{np.mean([found[i, group[i]] for i in np.flatnonzero(kind == each)]):.2f}"
        for each in KINDS
    }
    print(
        f"{name} (n = {len(truth):,}), {side}: precision {hit / max(1, found[upper].sum()):.3f}, "
        f"recall {hit / truth[upper].sum():.3f}, {seconds:.1f} s of processor; {shares}"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
