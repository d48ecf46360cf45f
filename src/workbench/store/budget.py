"""How fast each stage of training on a store is, and which one the others wait for."""

import os
import time
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench._extras import need
from workbench._samples import unit_range
from workbench.datasets.images import content, decode, located
from workbench.datasets.shards import listing
from workbench.store.stream import Stream, stream

MIB = 2**20


def rates(images_per_s: float, encoded: float, raw: float) -> tuple[float, float]:
    """MiB a second that go into and come out of a decoder, from bytes an image.

    Examples
    --------
    >>> [round(rate, 1) for rate in rates(1350, encoded=48 * 1024, raw=192 * 1024)]
    [63.3, 253.1]
    """
    return images_per_s * encoded / MIB, images_per_s * raw / MIB


def budget(
    path: str | os.PathLike[str], model: Any = None, *, n: int = 256, batch: int = 32, seed: int = 0
) -> pd.DataFrame:
    """Images a second of the disk, of decoding, of the stream and of a network, on this machine.

    The disk is asked for images in random order, after the system was told to forget what it
    holds of the shards; decoding is one core's; the stream uses all. The network predicts, and
    learns by plain gradient descent, on batches that lie ready.

    Parameters
    ----------
    path
        What :func:`workbench.store.write` made; its images of one size.
    model
        A torch module, of which a copy works where it lies; None leaves the network out.
    n
        Images that are measured on.
    batch
        Images a batch.
    seed
        Of which they are.

    Returns
    -------
    pandas.DataFrame
        A row a stage: ``images_per_s``, ``mib_in_per_s`` and ``mib_out_per_s``, the bytes of
        encoded and of raw images at that rate. ``attrs``: ``encoded_bytes`` and ``raw_bytes`` an
        image, and ``bottleneck``, the slowest of the disk, the stream and the network's learning.
    """
    known = listing(Path(path))
    n = min(n, len(known.items))
    chosen = np.random.default_rng(seed).permutation(len(known.items))[:n]
    items = [str(known.items[row]) for row in chosen]
    for shard in {located(item)[0] for item in items}:
        _forget(shard)
    encoded: list[bytes] = []
    found = {"disk": _rate(n, lambda: encoded.extend(content(item, item) for item in items))}
    found["decoding, one core"] = _rate(
        n, lambda: [decode(e, "", mode=known.mode) for e in encoded]
    )
    raw = decode(encoded[0], items[0], mode=known.mode).nbytes
    batches = stream(path, batch, seed=seed)
    passes = min(len(batches), -(-n // batch))
    seen = min(passes * batch, len(known.items))
    found["stream"] = _rate(seen, lambda: deque(islice(batches, passes), maxlen=0))
    if model is not None:
        found |= _network(model, batches)
    size = sum(map(len, encoded)) / n
    rows = {stage: (rate, *rates(rate, size, raw)) for stage, rate in found.items()}
    columns = ["images_per_s", "mib_in_per_s", "mib_out_per_s"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    stages = [stage for stage in ("disk", "stream", "network learns") if stage in found]
    slowest = min(stages, key=lambda stage: found[stage])
    table.attrs = {"encoded_bytes": size, "raw_bytes": raw, "bottleneck": slowest}
    return table


def _rate(images: int, work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return images / (time.perf_counter() - start)


def _forget(shard: str) -> None:
    """Have a file read from the disk again, where the system can be asked to."""
    if hasattr(os, "posix_fadvise"):
        with Path(shard).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _network(model: Any, batches: Stream) -> dict[str, float]:
    """Rates of predicting and of learning, the second time that each is done."""
    torch = need("torch", extra="networks")
    model = deepcopy(model)
    device = next(model.parameters()).device
    values = np.moveaxis(next(iter(batches))["image"].values, -1, 1)
    images = torch.from_numpy(unit_range(values)).to(device)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def predict() -> None:
        with torch.no_grad():
            model.eval()(images)
        wait()

    def learn() -> None:
        model.train()(images).float().square().mean().backward()
        wait()

    found = {}
    for name, work in (("network predicts", predict), ("network learns", learn)):
        work()
        found[name] = _rate(len(images), work)
    return found
