"""Stream a store in batches for training: folds, exact shuffles, perturbation, threads."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from workbench._extras import need
from workbench._machine import processors
from workbench._samples import unit_range
from workbench.datasets.boxes import CORNERS, boxes_of, with_boxes
from workbench.datasets.dataset import build
from workbench.datasets.images import Mode, content, decode
from workbench.datasets.listing import Listing, Options
from workbench.datasets.shards import listing, read_boxes, read_index
from workbench.store.perturb import Matrix, Perturb, affine, clipped_boxes, moved_boxes, warped


def folds(strata: NDArray[Any], k: int) -> NDArray[np.int64]:
    """The fold of each sample: every stratum, and the whole, divided evenly to within one.

    They depend on the strata alone, not on a stream's seed, so that what one stream leaves out is
    what another one validates on.

    Examples
    --------
    >>> np.bincount(folds(np.array(["a"] * 7 + ["b"] * 4), 3))
    array([4, 4, 3])
    """
    lots = np.random.default_rng(0).random(len(strata))
    order = np.lexsort((lots, pd.factorize(strata)[0]))
    fold = np.empty(len(strata), np.int64)
    fold[order] = np.arange(len(strata)) % k
    return fold


class Drawn(NamedTuple):
    """One sample of a batch."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    boxes: pd.DataFrame


@dataclass(frozen=True)
class Stream:
    """Batches of a store, each an image dataset; :func:`stream` makes one and tells the options."""

    listing: Listing
    boxes: pd.DataFrame
    rows: NDArray[np.intp]
    batch: int
    shuffle: bool
    loop: bool
    perturb: Perturb | None
    size: tuple[int, int] | None
    mode: Mode
    masks: bool
    threads: int | None
    seed: int

    @cached_property
    def _by_sample(self) -> dict[Any, pd.DataFrame]:
        groups = self.boxes.groupby("sample", sort=False).indices
        return {sample: self.boxes.iloc[at] for sample, at in groups.items()}

    @cached_property
    def _no_boxes(self) -> pd.DataFrame:
        return self.boxes.iloc[:0]

    def __len__(self) -> int:
        """Batches in one pass."""
        return -(-len(self.rows) // self.batch)

    def __iter__(self) -> Iterator[xr.Dataset]:
        """One pass, or with ``loop`` one after the other for ever."""
        for number in count() if self.loop else range(1):
            yield from self.epoch(number)

    def epoch(self, number: int) -> Iterator[xr.Dataset]:
        """Pass `number`: its order and its perturbation are drawn from the seed and the number."""
        rows = self.rows
        if self.shuffle:
            rows = np.random.default_rng([self.seed, number]).permutation(rows)
        pool = ThreadPoolExecutor(self.threads or processors())
        waiting: deque[tuple[NDArray[np.intp], list[Any]]] = deque()
        try:
            for chosen in np.split(rows, range(self.batch, len(rows), self.batch)):
                waiting.append((chosen, [pool.submit(self.draw, row, number) for row in chosen]))
                if len(waiting) > 2:
                    yield self._joined(*waiting.popleft())
            while waiting:
                yield self._joined(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def torch(self) -> Any:
        """The same batches as a torch ``IterableDataset``, divided between a loader's workers.

        Each is a dict: ``image`` float32 (sample, channel, y, x) from 0 to 1; ``valid``; ``label``
        or ``labels`` and ``mask`` where there are; ``boxes``, a list of tables. Give the loader
        ``batch_size=None``.
        """
        torch = need("torch", extra="networks")
        base: Any = torch.utils.data.IterableDataset
        return type("StreamDataset", (base,), {"__iter__": lambda _: _tensors(self, torch)})()

    @property
    def sha256(self) -> str:
        """What tells this stream's data from other data: the samples, labels, boxes and bytes."""
        known = self.listing
        facts = [known.items, known.sample.tolist(), known.classes, self.rows.tolist()]
        labels = [None if x is None else x.tolist() for x in (known.label, known.labels)]
        text = json.dumps([*facts, *labels, self.boxes.to_csv()])
        return hashlib.sha256(text.encode()).hexdigest()

    def boxes_at(self, row: int) -> pd.DataFrame:
        """The boxes of one sample, by its position in the store."""
        return self._by_sample.get(self.listing.sample[row], self._no_boxes)

    def draw(self, row: int, epoch: int) -> Drawn:
        """Decode one image; perturb it as in that pass, and its boxes with it."""
        item, name = self.listing.items[row], self.listing.names[row]
        image = decode(content(item, name), name, mode=self.mode)
        boxes = self.boxes_at(row)
        shape, perturb = image.shape[:2], self.perturb
        height, width = self.size or shape
        if perturb is None and (height, width) == shape:
            return Drawn(image, np.broadcast_to(np.True_, shape), boxes)
        matrix = _fitted(shape, (height, width))
        if perturb is not None:
            rng = np.random.default_rng([self.seed, epoch, row])
            matrix = matrix @ perturb.matrix(shape[0], shape[1], rng)
        image, valid = warped(image, matrix, height, width)
        if perturb is not None:
            image = perturb.colored(image, rng) * valid[..., None]
        return Drawn(image, valid, clipped_boxes(moved_boxes(boxes, matrix), height, width))

    def _joined(self, rows: NDArray[np.intp], futures: list[Any]) -> xr.Dataset:
        """Pad the images of a batch, right and below, to one size, and make a dataset of them."""
        drawn = [future.result() for future in futures]
        height, width = np.max([one.valid.shape for one in drawn], axis=0)
        image = np.empty((len(drawn), height, width, drawn[0].image.shape[2]), np.uint8)
        valid = np.empty(image.shape[:3], np.bool_)
        for i, one in enumerate(drawn):
            h, w = one.valid.shape
            if (h, w) != (height, width):
                image[i], valid[i] = 0, False
            image[i, :h, :w], valid[i, :h, :w] = one.image, one.valid
        known, keep = self.listing, ("label", "labels", "split")
        there = {name: getattr(known, name) for name in keep if getattr(known, name) is not None}
        ds = build(
            image,
            sample=known.sample[rows],
            classes=known.classes,
            attrs=known.attrs,
            **{name: values[rows] for name, values in there.items()},
        )
        dims = ("sample", "y", "x")
        more = {"valid": (dims, valid)}
        if self.masks:
            masks = [_mask(one.boxes, known.classes, height, width) for one in drawn]
            more["mask"] = dims, np.stack(masks)
        tables = [one.boxes for one in drawn if len(one.boxes)] or [self._no_boxes]
        ds = ds.assign(more)
        return with_boxes(ds, pd.concat(tables, ignore_index=True)) if len(self.boxes) else ds


def stream(
    path: str | os.PathLike[str],
    batch: int,
    *,
    split: int | None = None,
    split_fold: int = 0,
    negate: bool = False,
    validation: bool = False,
    stratify: str | None = "label",
    shuffle: bool = True,
    loop: bool = False,
    perturb: Perturb | None = None,
    size: int | tuple[int, int] | None = None,
    mode: Mode | None = None,
    masks: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> Stream:
    """Read a store in batches, for training.

    Parameters
    ----------
    path
        What :func:`workbench.store.write` made.
    batch
        Images a batch; the last of a pass may have fewer.
    split, split_fold
        Divide the store into `split` folds and leave number `split_fold` out.
    negate
        Stream the fold that would be left out, and leave the others out.
    validation
        The same fold as `negate`, in the store's order and unperturbed.
    stratify
        The folds hold equal shares of each value of this column of the index; a store without
        that column, and None, divide at random.
    shuffle
        A new order each pass, drawn over the whole store.
    loop
        Begin again at the end, for ever.
    perturb
        How images and boxes are changed at random; None leaves them.
    size
        Pixels a side, or (height, width): images are shrunk or enlarged, whole, to fit into it,
        and padded. By default as they are, and padded to the largest of each batch.
    mode
        ``"RGB"`` or ``"L"``, grey; by default as the store was written.
    masks
        Draw each batch's polygons, or boxes where they have no points, as ``mask`` (sample, y, x)
        int16: -1 for background, else the class; later annotations lie over earlier ones.
    threads
        That decode; by default one a core. They change nothing in what comes out.
    seed
        Of the order and the perturbation.

    Returns
    -------
    Stream
        To iterate over. Each batch is an image dataset with ``valid`` (sample, y, x), false where
        a pixel is padding, and, of a store with boxes, these in pixels of the batch's images along
        ``box``, which :func:`boxes_of` gives as a table. Boxes are cut to the image; those that a
        perturbation has moved out of it are not in the batch. ``len`` is the batches of a pass,
        ``.epoch(k)`` pass k, ``.torch()`` an ``IterableDataset``.

    Raises
    ------
    ValueError
        A number out of its range, or a fold that no sample falls into.

    Examples
    --------
    >>> import tempfile
    >>> from workbench import datasets, store
    >>> path = store.write(datasets.load("digits", n=50), tempfile.mkdtemp() + "/digits")
    >>> [b.sizes["sample"] for b in stream(path, batch=16, split=5, split_fold=1)]
    [16, 16, 8]
    """
    folder = Path(path)
    if batch < 1:
        raise ValueError(f"batch={batch} must be 1 or more images")
    table = read_index(folder)[0]
    rows = np.arange(len(table))
    held_out = validation or negate
    if split is not None:
        if not 0 <= split_fold < split <= len(table):
            raise ValueError(
                f"{split_fold=} must be 0 to {split=} less one, of at most {len(table)} folds"
            )
        if stratify not in (None, "label", *table):
            raise ValueError(f"stratify={stratify!r} is no column of {', '.join(table)}")
        strata = table[stratify] if stratify in table else np.zeros(len(table))
        rows = rows[(folds(np.asarray(strata), split) == split_fold) == held_out]
    elif held_out:
        raise ValueError("negate and validation ask for a fold: give split, as in split=5")
    known = listing(folder)
    return Stream(
        known,
        read_boxes(folder),
        rows,
        batch,
        shuffle and not validation,
        loop,
        None if validation else perturb,
        Options(size=size, mode=mode).pair,
        mode or known.mode,
        masks,
        threads,
        seed,
    )


def _fitted(shape: tuple[int, int], size: tuple[int, int]) -> Matrix:
    """The map that brings an image (height, width) whole into a size, at its upper left."""
    scale = min(new / old for new, old in zip(size, shape, strict=True))
    return affine(np.eye(2) * scale, 0)


def _mask(boxes: pd.DataFrame, classes: list[str], height: int, width: int) -> NDArray[np.int16]:
    """Draw annotations as class numbers on -1."""
    mask = Image.new("I", (width, height), -1)
    pen = ImageDraw.Draw(mask)
    for row in boxes.to_dict("records"):
        points = row["points"]
        number = classes.index(row["label"])
        if points is not None and len(points) > 2:
            pen.polygon([tuple(xy) for xy in points], fill=number)
            continue
        x_min, y_min, x_max, y_max = (round(row[name]) for name in CORNERS)
        if x_min < x_max and y_min < y_max:
            pen.rectangle((x_min, y_min, x_max - 1, y_max - 1), fill=number)
    return np.asarray(mask).astype(np.int16)


def _tensors(batches: Stream, torch: Any) -> Iterator[dict[str, Any]]:
    """A stream's batches as tensors, every n-th one for each of n workers."""
    worker = torch.utils.data.get_worker_info()
    first, step = (worker.id, worker.num_workers) if worker else (0, 1)
    for ds in islice(batches, first, None, step):
        image = np.moveaxis(ds["image"].values, -1, 1)
        given = {
            name: torch.from_numpy(ds[name].values)
            for name in ("valid", "label", "labels", "mask")
            if name in ds
        }
        table = boxes_of(ds)
        yield {
            "image": torch.from_numpy(unit_range(image)),
            "boxes": [table[table["sample"] == sample] for sample in ds["sample"].values],
            **given,
        }
