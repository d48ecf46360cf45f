"""State of a dataset: copies within and between splits, and images that stand out by their form."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._extras import need
from workbench._samples import same_samples, unit_range
from workbench.datasets.errors import BadDataError, BadImageError
from workbench.datasets.images import content, decode, header_size
from workbench.datasets.near_duplicates import groups, near_pairs, signature

#: The columns that say whether an image has a flaw, in the order of a summary.
FLAWS = (
    *("leak", "exact_copy", "near_copy", "unreadable", "dark", "bright", "blurry"),
    *("low_information", "odd_size", "odd_aspect"),
)
_LONGEST = 512
_BLOCK = 256


def check(
    ds: xr.Dataset, graph: xr.Dataset | None = None, *, progress: bool = True
) -> pd.DataFrame:
    """Find duplicates, within and between splits, and images that are likely not usable.

    Parameters
    ----------
    ds
        An image dataset: ``image`` (sample, y, x, channel); images that came from files are read
        from ``path``, at most 512 pixels a side; ``split`` (sample,) tells leaks.
    graph
        ``index`` (sample, neighbor) of features, as `workbench.embeddings.neighbors` makes it.
        With it only neighbours are compared for near-duplicates; without it all pairs are.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        One row a sample, by its id, with what was measured and whether it is a flaw. Booleans:

        - ``exact_copy``, ``near_copy``: another image has the same pixels, or is the same image
          recompressed, brightened, slightly cropped, turned or mirrored. ``exact_group`` and
          ``near_group`` number those that belong together, -1 for none; exact copies are near.
        - ``leak``: a copy, exact or near, is in another split.
        - ``unreadable``: the image cannot be read; everything else is then False or NaN.
        - ``dark``: 99 % of its pixels are below .32 of white; ``bright``: 95 % are above .95
          (``percentile_99``, ``percentile_5``, in 0 to 1, of grey by ITU-R 601).
        - ``blurry``: ``blur``, the measure of Crete et al. (2007), 0 to 1, is above .65; judged
          from 64 pixels a side on.
        - ``low_information``: the ``entropy`` of its grey levels is below 1 bit.
        - ``odd_size``: the root of its area is more than 3 times the median's, or less than a
          third. ``odd_aspect``: so is its width over its height.

        ``height`` and ``width`` are those of the upright image. ``attrs``: ``flaws``, how many
        images have each; ``near_within``, the distance that near-duplicates are within;
        ``skipped``, how many were unreadable and left out when the dataset was loaded.

    Raises
    ------
    BadDataError
        There is no ``image``, or no sample.

    Examples
    --------
    >>> pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    >>> pixels[4] = pixels[1, :, ::-1]
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), pixels)})
    >>> found = check(ds, progress=False)
    >>> found.index[found["near_copy"]].tolist()
    [1, 4]
    """
    if "image" not in ds or not ds.sizes["sample"]:
        raise BadDataError("there is nothing to check: the dataset holds no images")
    n = ds.sizes["sample"]
    found = pd.DataFrame(_measured(ds, progress))
    ids = ds["sample"].values if "sample" in ds.coords else np.arange(n)
    found.index = pd.Index(ids, name="sample")
    signatures = np.stack(found.pop("signature").tolist())
    candidates = None
    if graph is not None:
        graph = same_samples(graph, ds, ("the graph", "the dataset"))
        index = graph["index"].values
        pairs = np.stack([np.repeat(np.arange(n), index.shape[1]), index.ravel()], axis=1)
        candidates = np.unique(np.sort(pairs, axis=1), axis=0)
    pairs, within = near_pairs(signatures, candidates)
    digest = found.pop("digest")
    number = digest[digest.duplicated(keep=False) & (digest != "")].drop_duplicates()
    exact = digest.map({value: group for group, value in enumerate(number)}).fillna(-1).astype(int)
    first = {group: row for row, group in reversed(list(enumerate(exact))) if group >= 0}
    same = np.array([(first[g], r) for r, g in enumerate(exact) if g >= 0], np.intp).reshape(-1, 2)
    found["exact_group"] = exact
    found["near_group"] = groups(np.concatenate([pairs, same]), n)
    split = ds["split"].values if "split" in ds else np.zeros(n)
    splits = pd.Series(split, found.index).groupby(found["near_group"]).transform("nunique")
    found["leak"] = (found["near_group"] >= 0) & (splits > 1)
    _judge(found)
    flaws = {name: int(found[name].sum()) for name in FLAWS}
    skipped = int(ds.attrs.get("skipped", 0))
    found.attrs = {"flaws": flaws, "near_within": within, "skipped": skipped}
    return found[[*FLAWS, *(name for name in found if name not in FLAWS)]]


def _judge(found: pd.DataFrame) -> None:
    found["exact_copy"] = found["exact_group"] >= 0
    found["near_copy"] = found["near_group"] >= 0
    found["unreadable"] = found["entropy"].isna()
    found["dark"] = found["percentile_99"] < 0.32
    found["bright"] = found["percentile_5"] > 0.95
    found["blurry"] = found["blur"] > 0.65
    found["low_information"] = found["entropy"] < 1
    for name, value in (
        ("odd_size", np.sqrt(found["height"] * found["width"])),
        ("odd_aspect", found["width"] / found["height"]),
    ):
        ratio = value / np.nanmedian(value)
        found[name] = (ratio > 3) | (ratio < 1 / 3)


def _measured(ds: xr.Dataset, progress: bool) -> Iterator[dict[str, Any]]:
    from tqdm import tqdm

    n = ds.sizes["sample"]
    paths = ds["path"].values.tolist() if "path" in ds else [""] * n
    image = ds["image"].transpose("sample", "y", "x", "channel")
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=n, desc="Checking images", unit="image", disable=not progress) as bar,
    ):
        for start in range(0, n, _BLOCK):
            own = paths[start : start + _BLOCK]
            if all(own):
                yield from pool.map(_of_file, own)
            else:
                block = unit_range(image[start : start + _BLOCK].values)
                yield from pool.map(_measures, np.rint(np.clip(block, 0, 1) * 255).astype(np.uint8))
            bar.update(len(own))


def _of_file(path: str) -> dict[str, Any]:
    try:
        encoded = content(path, path)
        size = header_size(encoded) or (1, 1)
        scale = min(1, _LONGEST / max(size))
        small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        return _measures(decode(encoded, path, small, "stretch"), size)
    except BadImageError:
        nothing = dict.fromkeys(
            ("height", "width", "percentile_5", "percentile_99", "entropy", "blur"), np.nan
        )
        return {**nothing, "digest": "", "signature": signature(np.zeros((1, 1, 1), np.uint8))}


def _measures(pixels: NDArray[np.uint8], size: tuple[int, int] | None = None) -> dict[str, Any]:
    """What is measured of one image (y, x, channel) of the full size (height, width)."""
    measure = need("skimage.measure", "images")
    grey = pixels[..., 0].astype(np.float64)
    if pixels.shape[-1] >= 3:
        grey = pixels[..., :3] @ np.array([0.299, 0.587, 0.114])
    height, width = size or grey.shape
    blur = measure.blur_effect(grey) if min(grey.shape) >= 64 and np.ptp(grey) else np.nan
    digest = hashlib.sha256(repr((height, width, pixels.shape)).encode() + pixels.tobytes())
    low, high = np.percentile(grey / 255, [5, 99])
    return {
        "height": height,
        "width": width,
        "percentile_5": low,
        "percentile_99": high,
        "entropy": measure.shannon_entropy(np.rint(grey)),
        "blur": blur,
        "digest": digest.hexdigest(),
        "signature": signature(pixels[..., :3]),
    }
