"""The usual ways to crop a raster, timed side by side with ours on the same regions."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.plan import plan
from workbench.rasters.regions import BOX

Boxes = NDArray[np.int64]
Pixels = NDArray[Any]


def random_regions(path: str | os.PathLike[str], n: int, size: int, seed: int = 0) -> pd.DataFrame:
    """Draw `n` square regions of `size` pixels that lie in a raster, anywhere.

    Raises
    ------
    ValueError
        The raster is smaller than a region.
    """
    with need("rasterio", extra="rasters").open(path) as source:
        room = np.array([source.width, source.height]) - size
    if (room < 0).any():
        raise ValueError(f"regions of {size} pixels do not fit into {path}")
    corner = np.random.default_rng(seed).integers(0, room + 1, (n, 2))
    table = pd.DataFrame(corner, columns=BOX[:2]).rename_axis("sample")
    return table.assign(width=size, height=size)


def region_by_region(path: str, boxes: Boxes, folder: Path | None = None) -> Pixels:
    """Read each region for itself, in the order given; into `folder`, write each as a GeoTIFF."""
    rasterio = need("rasterio", extra="rasters")
    chips = []
    with rasterio.open(path) as source:
        for number, box in enumerate(boxes.tolist()):
            window = rasterio.windows.Window(*box)
            pixels = source.read(window=window)
            chips.append(pixels.transpose(1, 2, 0))
            if folder is not None:
                profile = {"driver": "GTiff", "width": box[2], "height": box[3],
                           "count": source.count, "dtype": source.dtypes[0], "crs": source.crs,
                           "transform": source.window_transform(window)}  # fmt: skip
                with rasterio.open(folder / f"{number}.tif", "w", **profile) as sink:
                    sink.write(pixels)
    return np.stack(chips)


def sorted_by_block(path: str, boxes: Boxes) -> Pixels:
    """Read each region for itself, neighbours after one another, so that GDAL's cache helps."""
    order = block_order(path, boxes)
    return region_by_region(path, boxes[order])[np.argsort(order)]


def block_order(path: str, boxes: Boxes) -> NDArray[np.intp]:
    """Positions of regions by the block that their first pixel lies in, row by row."""
    with need("rasterio", extra="rasters").open(path) as source:
        high, wide = source.block_shapes[0]
    return np.lexsort((boxes[:, 0] // wide, boxes[:, 1] // high))


def dask_slices(path: str, boxes: Boxes) -> Pixels:
    """Slice a dask array, whose chunks are the raster's blocks, once for each region."""
    dask_array, dask = need("dask.array", extra="rasters"), need("dask", extra="rasters")
    rasterio = need("rasterio", extra="rasters")
    with rasterio.open(path) as source:
        (high, wide), shape = source.block_shapes[0], (source.height, source.width, source.count)
        dtype = source.dtypes[0]

    def read(block_info: Any = None) -> Pixels:
        (top, bottom), (left, right), _ = block_info[None]["array-location"]
        with rasterio.open(path) as own:
            window = rasterio.windows.Window(left, top, right - left, bottom - top)
            return np.asarray(own.read(window=window).transpose(1, 2, 0))

    chunks = dask_array.core.normalize_chunks((high, wide, shape[2]), shape, dtype=dtype)
    raster = dask_array.map_blocks(
        read, chunks=chunks, dtype=dtype, meta=np.empty((0, 0, 0), dtype)
    )
    slices = [raster[y : y + h, x : x + w] for x, y, w, h in boxes.tolist()]
    return np.stack(dask.compute(*slices))


def planned(path: str, boxes: Boxes) -> Pixels:
    """Cut all regions by a plan."""
    table = pd.DataFrame(boxes, columns=BOX)
    return np.asarray(plan(path, table).load(progress=False)["image"].values)


def planned_to_zarr(path: str, boxes: Boxes, folder: Path) -> None:
    """Write all regions by a plan."""
    plan(path, pd.DataFrame(boxes, columns=BOX)).write(folder / "chips.zarr", progress=False)


def compare(
    path: str | os.PathLike[str],
    counts: Sequence[int],
    size: int,
    *,
    most: int = 2000,
    most_dask: int = 300,
    cache: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Seconds that each way takes for random regions.

    The usual ways are measured on some of the regions and multiplied up; ours is always measured
    whole. Where regions share blocks, sorted and through dask, the part are the first of the sorted
    ones, which lie as close as all.

    Parameters
    ----------
    path
        A raster.
    counts
        How many regions, one after the other.
    size
        Side of the regions in pixels.
    most, most_dask
        Measure the usual ways, and dask, on at most so many.
    cache
        Bytes for GDAL's cache of decoded blocks; by default its own choice, 5 % of the machine's
        memory, which holds a small raster whole and a large one not.
    seed
        Fixes the regions.

    Returns
    -------
    pandas.DataFrame
        ``way``, ``regions``, ``measured`` (on how many), ``seconds`` (for all) and ``written``.
    """
    name, rows = os.fspath(path), []
    options = {} if cache is None else {"GDAL_CACHEMAX": cache}
    for count in counts:
        boxes = random_regions(name, count, size, seed)[BOX].to_numpy()
        by_block = boxes[block_order(name, boxes)]
        reading: list[tuple[str, Callable[[str, Boxes], Any], Boxes]] = [
            ("GDAL, region by region", region_by_region, boxes[:most]),
            ("GDAL, sorted by block", region_by_region, by_block[: 5 * most]),
            ("dask, a slice a region", dask_slices, by_block[:most_dask]),
            ("one plan", planned, boxes),
        ]
        for way, cut, some in reading:
            with need("rasterio", extra="rasters").Env(**options):
                rows.append((way, count, len(some), _seconds(cut, name, some), False))
        for way, write, some in (
            ("GDAL, a GeoTIFF a region", region_by_region, boxes[: most // 2]),
            ("one plan, to Zarr", planned_to_zarr, boxes),
        ):
            with tempfile.TemporaryDirectory(dir=Path(name).parent) as folder:
                taken = _seconds(write, name, some, Path(folder))
            rows.append((way, count, len(some), taken, True))
    table = pd.DataFrame(rows, columns=["way", "regions", "measured", "seconds", "written"])
    return table.assign(seconds=table["seconds"] * table["regions"] / table["measured"])


def _seconds(cut: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    cut(*arguments)
    return time.perf_counter() - started


def forget(path: str | os.PathLike[str]) -> bool:
    """Ask the system to drop a file from its cache, so that the next read is cold.

    False where the system knows no such request. Storage may have a cache of its own.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def cold_and_warm(path: str | os.PathLike[str], n: int, size: int, seed: int = 0) -> pd.DataFrame:
    """Seconds for the same `n` regions from a file out of the system's cache, and in it.

    Returns
    -------
    pandas.DataFrame
        ``cold`` and ``warm`` of each way; ``cold`` is missing where `forget` cannot be asked.
    """
    name = os.fspath(path)
    boxes = random_regions(name, n, size, seed)[BOX].to_numpy()
    rows = {}
    for way, cut in (("GDAL, region by region", region_by_region), ("one plan", planned)):
        cold = _seconds(cut, name, boxes) if forget(name) else np.nan
        rows[way] = {"cold": cold, "warm": _seconds(cut, name, boxes)}
    return pd.DataFrame(rows).T


def differing(path: str | os.PathLike[str], image: Pixels, boxes: pd.DataFrame) -> int:
    """How many chips differ from rasterio's boundless read of the same window, in any pixel."""
    rasterio = need("rasterio", extra="rasters")
    wrong = 0
    with rasterio.open(path) as source:
        fill = 0 if source.nodata is None else source.nodata
        for chip, box in zip(image, boxes[BOX].to_numpy().tolist(), strict=True):
            window = rasterio.windows.Window(*box)
            truth = source.read(window=window, boundless=True, fill_value=fill)
            high, wide = truth.shape[1:]
            wrong += not np.array_equal(chip[:high, :wide], truth.transpose(1, 2, 0))
    return wrong
