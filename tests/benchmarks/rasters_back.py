"""The way back, zonal statistics and inference over a raster, each against its peer or its floor.

    python tests/benchmarks/rasters_back.py --folder /tmp/rasters --size 10240

Sides run one after another, each in a process of its own; `cpu` is processor time, `peak` the
resident memory above the start of the interpreter, imports included.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from resident import resident_gib

NAMES = ["count", "mean", "min", "max", "sum"]


def polygons(raster, count):
    """Discs of 5 to 60 pixels, anywhere."""
    import geopandas
    import rasterio
    import shapely

    rng = np.random.default_rng(0)
    with rasterio.open(raster) as source:
        x, y = source.transform @ (rng.uniform(0, [[source.width], [source.height]], (2, count)))
        radius = rng.uniform(2.5, 30, count) * source.transform.a
        discs = shapely.buffer(shapely.points(x, y), radius)
        return geopandas.GeoDataFrame(geometry=discs, crs=source.crs)


def ours_zonal(raster, options):
    from workbench import rasters

    table = rasters.regions(polygons(raster, options.count), raster, polygon_mask=True)
    plan = rasters.plan(raster, table, bands=[1], edge="clip")
    return plan.zonal(NAMES, progress=False)


def exactextract(raster, options):
    import rasterio
    from exactextract import exact_extract
    from exactextract.raster import RasterioRasterSource

    shapes = polygons(raster, options.count)
    with rasterio.open(raster) as source:
        return exact_extract(RasterioRasterSource(source, 1), shapes, NAMES, output="pandas")


def rasterstats(raster, options):
    import pandas as pd
    from rasterstats import zonal_stats

    return pd.DataFrame(zonal_stats(polygons(raster, options.count), str(raster), stats=NAMES))


def decode(raster, options):
    """Decode the raster once, by rasterio, a row of blocks at a time."""
    import rasterio

    with rasterio.open(raster) as source:
        for _, window in source.block_windows(1):
            source.read(window=window)


def write_back(raster, options):
    """Scores (float32, three classes) of `count` chips of 64 pixels."""
    from workbench import rasters

    side = 64
    table = rasters.grid(raster, side)
    rng = np.random.default_rng(0)
    table = table.iloc[np.sort(rng.permutation(len(table))[: options.count])]
    ds = rasters.plan(raster, table).to_xarray().drop_vars(["image", "valid", "geotransform"])
    scores = np.broadcast_to(
        rng.random((1, side, side, 3), np.float32), (len(table), side, side, 3)
    )
    out = Path(options.folder) / "back.tif"
    rasters.to_raster(out, ds, scores, raster, progress=False)
    out.unlink()


def network():
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(2)
    return nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1))


def inference_alone(raster, options):
    """The network on as many pixels, in the same tiles, that are in memory already."""
    import rasterio
    import torch

    net = network()
    with rasterio.open(raster) as source, torch.inference_mode():
        tiles = -(-source.width // 512) * -(-source.height // 512)
        one = torch.zeros(1, 3, 512, 512)
        for _ in range(tiles):
            net(one).argmax(1)


def ours_map(raster, options):
    import shutil

    from workbench import rasters

    plan = rasters.plan(raster, rasters.grid(raster, 512))
    out = Path(options.folder) / "map.tif"
    plan.map(network(), out, context=3, classes=True, progress=False)
    out.unlink()
    shutil.rmtree(f"{out}.parts")


SIDES = {
    "zonal, ours": ours_zonal,
    "zonal, exactextract": exactextract,
    "zonal, rasterstats": rasterstats,
    "to_raster": write_back,
    "decode": decode,
    "inference alone": inference_alone,
    "map": ours_map,
}


def measure(side, options):
    done = subprocess.run(
        [
            sys.executable,
            __file__,
            "--side",
            side,
            "--folder",
            options.folder,
            "--size",
            str(options.size),
            "--count",
            str(options.count),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--size", type=int, default=10240)
    parser.add_argument("--count", type=int, default=10_000, help="polygons, and chips")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    raster = Path(options.folder) / f"tiled-{options.size}.tif"
    values = Path(options.folder) / "{}.parquet"
    if options.side:
        base, start, cpu = resident_gib("VmRSS"), time.perf_counter(), time.process_time()
        found = SIDES[options.side](raster, options)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        if found is not None:
            found.to_parquet(str(values).format(options.side))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - base
        return print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak}))
    import rasters

    Path(options.folder).mkdir(parents=True, exist_ok=True)
    rasters.make_raster(Path(options.folder), options.size, "tiled")
    for side in options.sides:
        found = measure(side, options)
        print(f"{side:22}" + "".join(f"{key} {value:8.2f}  " for key, value in found.items()))
    compare(values)
    return None


def compare(values):
    """The greatest difference of each statistic from exactextract's, as a share of its spread."""
    import pandas as pd

    if not Path(str(values).format("zonal, exactextract")).exists():
        return
    truth = pd.read_parquet(str(values).format("zonal, exactextract"))
    for side in ("zonal, ours", "zonal, rasterstats"):
        other = pd.read_parquet(str(values).format(side))
        apart = {name: abs(other[name].to_numpy(float) - truth[name]).max() for name in NAMES}
        worst = {name: f"{apart[name] / truth[name].std():.1e}" for name in NAMES}
        print(f"{side} against exactextract, in standard deviations: {worst}")


if __name__ == "__main__":
    main()
