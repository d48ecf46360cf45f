"""The usual ways to crop a raster, timed side by side with ours on the same regions.

Ways to find the pairs of near points, timed side by side on the same points.

Write a plan's chips in a process of its own: watch its memory, or kill it half-way.
"""

import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters.neighbors import pairs_within
from workbench.rasters.plan import Plan, plan
from workbench.rasters.regions import BOX
from workbench.rasters.write import MANIFEST, PARTS

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


Points = NDArray[np.float64]
#: Rows that are compared with all points at once.
_ROWS = 16


def brute_force(points: Points, distance: float, rows: int | None = None) -> int:
    """Compare each of the first `rows` points with all after it, and count the near pairs."""
    found, last = 0, len(points) if rows is None else rows
    for start in range(0, last, _ROWS):
        block, rest = points[start : min(start + _ROWS, last)], points[start:]
        across = block[:, :1] - rest[:, 0]
        down = block[:, 1:] - rest[:, 1]
        near = across * across + down * down <= distance * distance
        found += int(np.triu(near, 1).sum())
    return found


def strtree_dwithin(points: Points, distance: float) -> int:
    """Ask shapely's STRtree which points are within a distance."""
    shapely = need("shapely", extra="rasters")
    shapes = shapely.points(points)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=distance)
    return int((first < second).sum())


def strtree_box(points: Points, distance: float) -> int:
    """Ask shapely's STRtree for the points in the box around each, and measure those."""
    shapely = need("shapely", extra="rasters")
    boxes = shapely.box(*(points - distance).T, *(points + distance).T)
    first, second = shapely.STRtree(shapely.points(points)).query(boxes)
    first, second = first[first < second], second[first < second]
    apart = points[first] - points[second]
    return int(((apart**2).sum(axis=1) <= distance**2).sum())


def kdtree(points: Points, distance: float) -> int:
    """Ask scipy's k-d tree for the pairs, without their distances."""
    tree = need("scipy.spatial", extra="rasters").cKDTree(points)
    return len(tree.query_pairs(distance, output_type="ndarray"))


def ours(points: Points, distance: float) -> int:
    """Pairs with their distances, by :func:`workbench.rasters.pairs_within`."""
    return len(pairs_within(points, distance))


WAYS: dict[str, Callable[[Points, float], int]] = {
    "STRtree, dwithin": strtree_dwithin,
    "STRtree, box then distance": strtree_box,
    "k-d tree, query_pairs": kdtree,
    "pairs_within": ours,
}


def compare_pairs(
    counts: Sequence[int],
    distance: float = 50.0,
    side: float = 5000.0,
    *,
    most_brute: int = 10_000,
    repeat: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Seconds that each way takes for points drawn evenly in a square.

    Parameters
    ----------
    counts
        How many points, one after the other.
    distance, side
        What counts as near, and the side of the square.
    most_brute
        With more points, brute force compares only so many of them with all after them, and its
        time is multiplied up to all pairs.
    repeat
        The shortest of so many runs counts; brute force runs once.
    seed
        Fixes the points.

    Returns
    -------
    pandas.DataFrame
        ``way``, ``points``, ``seconds``, ``pairs`` (-1 where extrapolated), ``extrapolated``.

    Examples
    --------
    >>> compare_pairs([100], distance=500.0)["pairs"].nunique()
    1
    """
    rows = []
    for n in counts:
        points = np.random.default_rng(seed).uniform(0, side, (n, 2))
        compared = min(n, most_brute)
        taken, found = _timed(brute_force, points, distance, compared)
        # pairs compared, of all pairs
        share = (compared * n - compared * (compared + 1) / 2) / (n * (n - 1) / 2)
        partly = compared < n
        rows.append(("brute force", n, taken / share, -1 if partly else found, partly))
        for way, find in WAYS.items():
            taken, found = min(_timed(find, points, distance) for _ in range(repeat))
            rows.append((way, n, taken, found, False))
    return pd.DataFrame(rows, columns=["way", "points", "seconds", "pairs", "extrapolated"])


def _timed(find: Callable[..., int], *arguments: object) -> tuple[float, int]:
    started = time.perf_counter()
    found = find(*arguments)
    return time.perf_counter() - started, found


_CHILD = """
import pickle, sys
from pathlib import Path
import imagecodecs, pyarrow.parquet, rasterio, zarr
plan = pickle.loads(Path(sys.argv[1]).read_bytes())
print("ready", flush=True)
plan.write(sys.argv[2], progress=False)
"""
_PAUSE = 0.005


class Trial(NamedTuple):
    """How a process that wrote a plan's chips went.

    Attributes
    ----------
    memory
        ``seconds`` since the interpreter and its libraries were ready, and ``bytes`` of resident
        memory above what it had then.
    exit
        Its exit code; minus the number of the signal that killed it.
    groups
        How many of the plan's groups were written when it ended.
    """

    memory: pd.DataFrame
    exit: int
    groups: int


def write_apart(plan: Plan, path: str | os.PathLike[str], *, kill_at: float | None = None) -> Trial:
    """Write a plan's chips to Zarr in a new process.

    Parameters
    ----------
    plan
        What to write.
    path
        As in `Plan.write`.
    kill_at
        Kill the process (SIGKILL, which it cannot see coming) once this share of the groups is
        written; None lets it end.

    Raises
    ------
    RuntimeError
        The process failed of itself; the text is what it said.
    """
    goal = np.inf if kill_at is None else max(1, round(kill_at * plan.layout.groups))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.pickle"
        file.write_bytes(pickle.dumps(plan))
        command = [sys.executable, "-c", _CHILD, str(file), os.fspath(path)]
        with (
            (Path(folder) / "errors").open("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as child,
        ):
            assert child.stdout is not None  # noqa: S101 - for the type checker
            child.stdout.readline()
            memory, killed = _watched(child, Path(path), goal)
            errors.seek(0)
            if child.returncode and not killed:
                raise RuntimeError(f"the process failed:\n{errors.read()}")
    return Trial(memory, int(child.returncode), groups_written(plan, path))


def _watched(
    child: "subprocess.Popen[bytes]", path: Path, goal: float
) -> tuple[pd.DataFrame, bool]:
    process, started, killed = psutil.Process(child.pid), time.perf_counter(), False
    rows: list[tuple[float, int]] = []
    while child.poll() is None:
        try:
            rows.append((time.perf_counter() - started, process.memory_info().rss))
        except psutil.NoSuchProcess:
            break
        if not killed and len(list((path / PARTS).glob("[0-9]*.parquet"))) >= goal:
            child.kill()
            killed = True
        time.sleep(_PAUSE)
    child.wait()
    table = pd.DataFrame(rows, columns=["seconds", "bytes"])
    table = table[table["bytes"] > 0]  # a process that has ended, and was not waited for, has none
    return table.assign(bytes=table["bytes"] - table["bytes"].iloc[:1].sum()), killed


def groups_written(plan: Plan, path: str | os.PathLike[str]) -> int:
    """How many of a plan's groups are written to a folder."""
    folder = Path(path)
    if (folder / MANIFEST).is_file():
        return plan.layout.groups
    return len(list((folder / PARTS).glob("[0-9]*.parquet")))


def digests(folder: str | os.PathLike[str]) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its relative path.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    """
    top = Path(folder)
    if not top.is_dir():
        raise FileNotFoundError(f"there is no folder {top}")
    return {
        file.relative_to(top).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(top.rglob("*"))
        if file.is_file()
    }
