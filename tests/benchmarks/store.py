"""A store's stream against decoding alone, decoders beside one another, and opening many images.

.venv/bin/python tests/benchmarks/store.py
"""

import io
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pyarrow import parquet

from workbench import datasets, store
from workbench.datasets.images import decode

N = 600


def seconds(work, repeats=3):
    """The best of several."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def images(folder):
    """JPEGs of 256 x 256 pixels, quality 95, cut from bundled photographs."""
    from workbench import gradcam

    photos = gradcam.photographs(512)["image"].values
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(N):
        y, x = rng.integers(0, 256, 2)
        crop = photos[i % len(photos), y : y + 256, x : x + 256]
        Image.fromarray(crop).save(folder / f"{i:04d}.jpg", quality=95)


def decoders(encoded):
    """Images a second of each decoder that is installed, one core."""
    ways = {"Pillow": lambda e: np.asarray(Image.open(io.BytesIO(e)))}
    try:
        import cv2

        cv2.setNumThreads(1)
        ways["OpenCV"] = lambda e: cv2.imdecode(np.frombuffer(e, np.uint8), cv2.IMREAD_COLOR_RGB)
    except ImportError:
        pass
    try:
        import imagecodecs

        ways["imagecodecs"] = imagecodecs.jpeg_decode
    except ImportError:
        pass
    return {name: N / seconds(lambda w=way: [w(e) for e in encoded]) for name, way in ways.items()}


def main():
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        images(root / "photos")
        files = sorted((root / "photos").iterdir())
        encoded = [file.read_bytes() for file in files]
        ds = datasets.load(root / "photos", size=8)
        path = store.write(ds, root / "store", progress=False)
        alone = seconds(lambda: [decode(e, "") for e in encoded])
        shuffled = seconds(lambda: list(store.stream(path, 32, threads=1)))
        print(f"{N} JPEGs of 256 x 256, {sum(map(len, encoded)) / N / 1024:.0f} KiB each")
        print(f"decoding alone {alone:.2f} s; a shuffled stream on one thread {shuffled:.2f} s, "
              f"{shuffled / alone:.2f} times as long")  # fmt: skip
        print("images/s of one core:", pd.Series(decoders(encoded)).round().to_dict())
        table = parquet.read_table(path / "index.parquet")
        many = table.take(np.arange(100_000) % N)
        many = many.set_column(0, "sample", [np.arange(100_000).astype(str)])
        (root / "many").mkdir()
        parquet.write_table(many, root / "many" / "index.parquet")
        opened = seconds(lambda: store.open(root / "many", size=32))
        print(f"opening 100,000 images: {opened:.2f} s")


if __name__ == "__main__":
    main()
