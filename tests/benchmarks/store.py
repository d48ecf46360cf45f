"""A store's stream against decoding alone, decoders beside one another, and opening many images.

    .venv/bin/python tests/benchmarks/store.py

Processor time, all threads of the process together, so that other programs disturb little; the
least of several, of decoding and streaming by turns.
"""

import io
import tempfile
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from pyarrow import parquet

from workbench import datasets, store
from workbench.datasets.images import decode

N = 600


def seconds(*works, repeats=7, clock=time.process_time):
    """The least of several times of each work, one after the other in turn."""
    found = [[] for _ in works]
    for _ in range(repeats):
        for work, times in zip(works, found, strict=True):
            start = clock()
            deque(work(), maxlen=0)
            times.append(clock() - start)
    return [min(times) for times in found]


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
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
        ways["OpenCV"] = lambda e: cv2.imdecode(np.frombuffer(e, np.uint8), cv2.IMREAD_COLOR_RGB)
    with suppress(ImportError):
        import imagecodecs

        ways["imagecodecs"] = imagecodecs.jpeg_decode
    with suppress(ImportError):
        import simplejpeg

        ways["simplejpeg"] = simplejpeg.decode_jpeg
    times = seconds(*(lambda way=way: map(way, encoded) for way in ways.values()))
    return {name: round(N / each) for name, each in zip(ways, times, strict=True)}


def main():
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        images(root / "photos")
        files = sorted((root / "photos").iterdir())
        encoded = [file.read_bytes() for file in files]
        ds = datasets.load(root / "photos", size=8)
        path = store.write(ds, root / "store", progress=False)
        print(f"{N} JPEGs of 256 x 256, {sum(map(len, encoded)) / N / 1024:.0f} KiB each")
        for batch in (32, 128):
            batches = store.stream(path, batch, threads=1)
            for name, clock in (("processor", time.process_time), ("elapsed", time.perf_counter)):
                alone, streamed = seconds(
                    lambda: (decode(e, "") for e in encoded), lambda s=batches: s, clock=clock
                )
                print(f"{name} time: decoding alone {alone:.2f} s; a shuffled stream on one")
                print(f"  thread, {batch} a batch, {streamed:.2f} s, {streamed / alone:.2f} times")
        print("images/s of one core:", decoders(encoded))
        table = parquet.read_table(path / "index.parquet")
        many = table.take(np.arange(100_000) % N)
        many = many.set_column(0, "sample", [np.arange(100_000).astype(str)])
        (root / "many").mkdir()
        parquet.write_table(many, root / "many" / "index.parquet")
        (opened,) = seconds(lambda: store.open(root / "many", size=32), clock=time.perf_counter)
        print(f"opening 100,000 images: {opened:.2f} s")


if __name__ == "__main__":
    main()
