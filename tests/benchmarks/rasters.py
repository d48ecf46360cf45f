"""Cropping against the floor (decoding each touched block once) and against GDAL and rasterio.

    python tests/benchmarks/rasters.py --folder /big/disk --size 40960
    python tests/benchmarks/rasters.py --folder /tmp/rasters --size 10240 --counts 1000 7500

The second is quick.
Makes its own rasters in `folder`, once. Each side runs in a process of its own; sides take turns
and the least time of each is shown, so that other programs disturb the ratios little. `cpu` is
processor time; `peak` is the resident memory above the interpreter's start, imports included.
What would take too long is measured on a part and marked `extrapolated`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from resident import resident_gib

SIDE = 64
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def main():
    options = arguments()
    folder = Path(options.folder)
    if options.side:
        return run_side(options, folder)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"# {options.size}² x 3 uint8, {CORES} cores, regions of {SIDE} px")
    for part in options.parts:
        PARTS[part](options, folder)
    return None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True, help="for the rasters (3 GB each at 40960)")
    parser.add_argument("--size", type=int, default=40960)
    parser.add_argument("--counts", type=int, nargs="+", default=[12_000, 120_000, 1_000_000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--subset", type=int, default=600, help="regions read one by one")
    parser.add_argument("--figure", help="draw the dense part's processor times to this file")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--raster", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_raster(folder, size, layout):
    """A smooth scene with noise, DEFLATE with predictor 2: compresses to about 60 %.

    Encoded once for 2048 rows, whose blocks are then written again and again: each is still read
    from its own place in the file and decoded for itself.
    """
    import rasterio
    import tifffile

    path = folder / f"{layout}-{size}.tif"
    if path.exists():
        return path
    strip, partial = folder / f"{layout}-{size}.strip.tif", path.with_suffix(".partial")
    make_strip(strip, size, min(size, 2048), layout)
    with tifffile.TiffFile(strip) as file, strip.open("rb") as encoded:
        page, blocks = file.pages[0], []
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            encoded.seek(offset)
            blocks.append(encoded.read(length))
        shape = {"tile": page.tile} if page.is_tiled else {"rowsperstrip": page.rowsperstrip}
    across = -(-size // 512) if layout == "tiled" else 1
    needed = -(-size // (512 if layout == "tiled" else 16)) * across
    tifffile.imwrite(
        partial, (blocks[i % len(blocks)] for i in range(needed)), shape=(size, size, 3),
        dtype="uint8", photometric="rgb", compression="zlib", predictor=True, metadata=None,
        bigtiff=True, **shape,
    )  # fmt: skip
    with rasterio.open(partial, "r+") as target:
        target.crs = "EPSG:32633"
        target.transform = rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6)
    strip.unlink()
    partial.rename(path)
    return path


def make_strip(path, width, height, layout):
    """The first rows of the scene, encoded by GDAL."""
    import rasterio
    from rasterio.windows import Window

    shape = {"tiled": True, "blockxsize": 512, "blockysize": 512} if layout == "tiled" else {
        "tiled": False, "blockysize": 16}  # fmt: skip
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8",
        "compress": "deflate", "predictor": 2, "zlevel": 1, "interleave": "pixel",
        "num_threads": CORES, **shape,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (3, 512, 2 * width)).astype("f4")
    x = np.arange(width, dtype="f4")
    with rasterio.open(path, "w", **profile) as target:
        for row in range(0, height, 512):
            y = np.arange(row, min(row + 512, height), dtype="f4")[:, None]
            scene = 128 + 40 * (np.sin(x / 97) + np.cos(y / 61) + np.sin((x + y) / 401))
            shift = int(rng.integers(width))
            pixels = scene + noise[:, : len(y), shift : shift + width]
            pixels += np.array([0, 10, 20], "f4")[:, None, None]
            window = Window(0, row, width, len(y))
            target.write(np.clip(pixels, 0, 255).astype(np.uint8), window=window)


def table(size, count):
    import pandas as pd

    rng = np.random.default_rng(count)
    col, row = rng.integers(0, size - SIDE, (2, count))
    return pd.DataFrame({"col": col, "row": row, "width": SIDE, "height": SIDE})


# One side of a comparison, in a process of its own ------------------------------------------


def run_side(options, folder):
    # none of the sides' times: libraries, and what imagecodecs loads at its first use
    import imagecodecs
    import rasterio  # noqa: F401
    import tifffile  # noqa: F401

    _ = imagecodecs.zlib_decode, imagecodecs.delta_decode

    regions, found = table(options.size, options.count), {}
    wall, cpu = time.perf_counter(), time.process_time()
    SIDES[options.side](options.raster, regions, options, found)
    found.setdefault("wall", time.perf_counter() - wall)
    found.setdefault("cpu", time.process_time() - cpu)
    found["peak"] = resident_gib() - BASE
    print(json.dumps(found))


def touched_blocks(source, regions):
    high, wide = source.block_shapes[0]
    blocks = set()
    col, row = regions["col"].to_numpy(), regions["row"].to_numpy()
    for down in range(-(-SIDE // high) + 1):
        for across in range(-(-SIDE // wide) + 1):
            r = np.minimum(row + min(down * high, SIDE - 1), row + SIDE - 1) // high
            c = np.minimum(col + min(across * wide, SIDE - 1), col + SIDE - 1) // wide
            blocks |= set((r * 100_000 + c).tolist())
    return [divmod(block, 100_000) for block in sorted(blocks)]


def floor_codec(path, regions, options, found):
    """imagecodecs, block by block, nothing kept."""
    import rasterio
    import tifffile

    with rasterio.open(path) as source:
        blocks = touched_blocks(source, regions)
        across = -(-source.width // source.block_shapes[0][1])
    page = tifffile.TiffFile(path).pages[0]
    offsets, counts, decode = page.dataoffsets, page.databytecounts, page.decode
    file = os.open(path, os.O_RDONLY)

    def one(block):
        at = block[0] * across + block[1]
        decode(os.pread(file, counts[at], offsets[at]), at)

    clocked(one, blocks, found)


def floor_gdal(path, regions, options, found):
    """rasterio, block by block, nothing kept."""
    import rasterio
    from rasterio.windows import Window

    local = threading.local()
    with rasterio.open(path) as source:
        blocks, (high, wide) = touched_blocks(source, regions), source.block_shapes[0]

    def one(block):
        if not hasattr(local, "source"):
            local.source = rasterio.open(path)
            local.out = np.empty((high, wide, 3), np.uint8).transpose(2, 0, 1)
        rows = min(high, options.size - block[0] * high)
        columns = min(wide, options.size - block[1] * wide)
        window = Window(block[1] * wide, block[0] * high, columns, rows)
        local.source.read(out=local.out[:, :rows, :columns], window=window)

    with rasterio.Env(GDAL_CACHEMAX=2**24):
        clocked(one, blocks, found)


def touch_result(_path, regions, _options, _found):
    """Touch each page of memory for the result, which nobody who returns the pixels can spare."""
    np.empty(len(regions) * SIDE * SIDE * 3, np.uint8)[::4096] = 0


def clocked(one, items, found):
    runs = [items[i : i + 16] for i in range(0, len(items), 16)]
    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(lambda run: [one(item) for item in run] and None, runs))
    found |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    found["blocks"] = len(items)


def ours_load(path, regions, options, found):
    from workbench import rasters

    plan = rasters.plan(path, regions, memory=options.memory)
    wall, cpu = time.perf_counter(), time.process_time()
    plan.load(progress=False)
    found |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def ours_write(path, regions, options, found):
    from workbench import rasters

    with tempfile.TemporaryDirectory(dir=Path(path).parent) as name:
        plan = rasters.plan(path, regions, memory=options.memory)
        found["threads"], found["groups"] = plan.threads(), plan.layout.groups
        wall, cpu = time.perf_counter(), time.process_time()
        plan.write(Path(name) / "chips.zarr", progress=False)
        found |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def ours_plan(path, regions, options, found):
    from workbench import rasters

    wall, cpu = time.perf_counter(), time.process_time()
    plan = rasters.plan(path, regions, memory=options.memory)
    plan.schedule()
    found |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    started = time.perf_counter()
    plan.stats()
    found["stats"] = time.perf_counter() - started


def in_table_order(path, regions, options, found):
    """rasterio, one window after another, over a part of the table."""
    import rasterio
    from rasterio.windows import Window

    part = regions.head(options.subset)
    with rasterio.open(path) as source:
        for region in part.itertuples():
            source.read(window=Window(region.col, region.row, SIDE, SIDE))
    found["share"] = len(part) / len(regions)


def by_translate(path, regions, options, found):
    """gdal.Translate, a call and a file a region; without GDAL's bindings, what it does."""
    import rasterio
    from rasterio.windows import Window

    try:
        from osgeo import gdal
    except ImportError:
        gdal = None
    part = regions.head(options.subset)
    with tempfile.TemporaryDirectory() as name, rasterio.open(path) as source:
        opened = gdal.Open(path) if gdal else None
        for i, region in enumerate(part.itertuples()):
            if gdal:
                box = [region.col, region.row, SIDE, SIDE]
                gdal.Translate(f"{name}/{i}.tif", opened, srcWin=box)
                continue
            window = Window(region.col, region.row, SIDE, SIDE)
            profile = {**source.profile, "width": SIDE, "height": SIDE, "tiled": False,
                       "transform": source.window_transform(window)}  # fmt: skip
            for key in ("blockxsize", "blockysize", "compress", "predictor"):
                profile.pop(key, None)
            with rasterio.open(f"{name}/{i}.tif", "w", **profile) as target:
                target.write(source.read(window=window))
    found |= {"share": len(part) / len(regions), "with_osgeo": gdal is not None}


def block_sorted(path, regions, options, found):
    """rasterio with two threads over regions sorted by block, at most 20,000 of them."""
    import rasterio
    from rasterio.windows import Window

    order = np.lexsort((regions["col"] // 512, regions["row"] // 512))
    part = regions.iloc[order[:20_000]]
    out = np.empty((len(part), 3, SIDE, SIDE), np.uint8)

    def half(rows):
        with rasterio.open(path) as source:
            for i in rows:
                region = part.iloc[i]
                source.read(out=out[i], window=Window(region.col, region.row, SIDE, SIDE))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(half, np.array_split(np.arange(len(part)), 2)))
    found["share"] = len(part) / len(regions)


def dask_slices(path, regions, options, found):
    """A lazy slice a region of an array whose chunks are the blocks: a part of the sorted table.

    That flatters it: the scheduler's own work grows with the number of slices.
    """
    import dask
    import dask.array as da
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(path) as source:
        high, wide = source.block_shapes[0]
        shape = source.height, source.width, source.count

    def read(block_info=None):
        (top, bottom), (left, right), _ = block_info[None]["array-location"]
        with rasterio.open(path) as own:
            return own.read(window=Window(left, top, right - left, bottom - top)).transpose(1, 2, 0)

    chunks = da.core.normalize_chunks((high, wide, shape[2]), shape, dtype="uint8")
    raster = da.map_blocks(read, chunks=chunks, dtype="uint8", meta=np.empty((0, 0, 0), "uint8"))
    order = np.lexsort((regions["col"] // wide, regions["row"] // high))
    part = regions.iloc[order[: options.subset]]
    dask.compute(*[raster[r.row : r.row + SIDE, r.col : r.col + SIDE] for r in part.itertuples()])
    found["share"] = len(part) / len(regions)


SIDES = {
    "floor, imagecodecs": floor_codec,
    "floor, rasterio": floor_gdal,
    "first touch of the result": touch_result,
    "ours, in memory": ours_load,
    "ours, to Zarr": ours_write,
    "ours, planning": ours_plan,
    "rasterio, table order": in_table_order,
    "gdal.Translate": by_translate,
    "rasterio, block-sorted, 2 threads": block_sorted,
    "dask, a slice a region": dask_slices,
}


# The parent's part ---------------------------------------------------------------------------


def measure(side, options, folder, raster, count):
    command = [
        sys.executable, __file__, "--side", side, "--folder", str(folder), "--raster", str(raster),
        "--count", str(count), "--size", str(options.size), "--memory", options.memory,
        "--subset", str(options.subset),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    if "share" in found:
        found["wall"], found["cpu"] = found["wall"] / found["share"], found["cpu"] / found["share"]
    return found


def best(sides, options, folder, raster, count):
    """Take turns; keep the least wall and processor time of each side."""
    kept = {}
    for _ in range(options.repeat):
        for side in sides:
            found = measure(side, options, folder, raster, count)
            old = kept.get(side, found)
            kept[side] = found | {key: min(found[key], old[key]) for key in ("wall", "cpu")}
    return kept


def show(kept, floor, count):
    for side, found in kept.items():
        print(
            f"{count:>9,} {side:<34} wall {found['wall']:8.2f} s  cpu {found['cpu']:8.2f} s"
            f"  / floor {found['wall'] / floor['wall']:7.2f}"
            f" (cpu {found['cpu'] / floor['cpu']:6.2f})"
            f"  peak {found['peak']:5.2f} GiB{'  extrapolated' if 'share' in found else ''}",
            flush=True,
        )


def lower(kept):
    return min((kept["floor, imagecodecs"], kept["floor, rasterio"]), key=lambda f: f["wall"])


def dense(options, folder):
    """All peers at the middle count."""
    raster = make_raster(folder, options.size, "tiled")
    count = sorted(options.counts)[len(options.counts) // 2]
    quick = list(SIDES)[:5]
    kept = best(quick, options, folder, raster, count)
    for side in list(SIDES)[6:]:
        kept[side] = measure(side, options, folder, raster, count)
    show(kept, lower(kept), count)
    if options.figure:
        draw(kept, count, options)
    for side in list(SIDES)[6:]:
        print(
            f"{side} / ours in memory: {kept[side]['wall'] / kept['ours, in memory']['wall']:.0f} x"
        )


def draw(kept, count, options):
    """Bars of processor time, which other programs disturb less than the clock's."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    kept = {side: found for side, found in kept.items() if side != "first touch of the result"}
    fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    hatch = ["////" if found.get("share", 1) < 1 else "" for found in kept.values()]
    seconds = [found["cpu"] for found in kept.values()]
    bars = ax.barh(list(kept), seconds, hatch=hatch, edgecolor="white")
    ax.bar_label(bars, [f"{value:.2g} s" for value in seconds], padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.set(xscale="log", xlabel="processor time in seconds (hatched: multiplied up from a part)")
    ax.set_title(f"{count:,} regions of {SIDE} pixels, raster of {options.size:,}² pixels, 3 bands")
    fig.savefig(options.figure, dpi=100)


def memory(options, folder):
    """Peak memory of writing, for each count."""
    raster = make_raster(folder, options.size, "tiled")
    for count in options.counts:
        found = measure("ours, to Zarr", options, folder, raster, count)
        print(f"{count:>9,} to Zarr, memory={options.memory}: peak {found['peak']:.3f} GiB above "
              f"the start, {found['wall']:.1f} s, {found['threads']} threads, "
              f"{found['groups']} groups", flush=True)  # fmt: skip


def planning(options, folder):
    """A plan and its schedule."""
    raster = make_raster(folder, options.size, "tiled")
    count = max(options.counts)
    found = best(["ours, planning"], options, folder, raster, count)["ours, planning"]
    print(f"{count:>9,} planning {found['wall']:.2f} s (cpu {found['cpu']:.2f} s), "
          f"stats {found['stats']:.2f} s", flush=True)  # fmt: skip


def striped(options, folder):
    """A sparse table on a striped file."""
    raster = make_raster(folder, options.size, "striped")
    count = min(options.counts)
    kept = best(list(SIDES)[:4], options, folder, raster, count)
    print("striped:")
    show(kept, lower(kept), count)


PARTS = {"dense": dense, "memory": memory, "planning": planning, "striped": striped}

if __name__ == "__main__":
    BASE = resident_gib("VmRSS") if Path("/proc/self/status").exists() else 0.0
    main()
