"""`pairs_within` against brute force, shapely's STRtree and scipy's cKDTree: one run, ratios.

    python tests/benchmarks/spatial.py --points 10000 30000 100000

Points are even in a square of 5000, the distance is 50. Times are the shortest of `--repeat` runs
in one process. Brute force compares 10,000 of the points with all after them, multiplied up to
all pairs where that is not all (marked ~). `peak` is the resident memory above the interpreter's
with its libraries and the points, of a process that does nothing else.
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import shapely
from resident import resident_gib
from scipy.spatial import cKDTree

from workbench.rasters import pairs_within

#: Rows that brute force compares with all points at once.
ROWS = 16


def brute_force(points, distance, rows=None):
    """Compare each of the first `rows` points with all after it, and count the near pairs."""
    found, last = 0, len(points) if rows is None else rows
    for start in range(0, last, ROWS):
        block, rest = points[start : min(start + ROWS, last)], points[start:]
        across = block[:, :1] - rest[:, 0]
        down = block[:, 1:] - rest[:, 1]
        near = across * across + down * down <= distance * distance
        found += int(np.triu(near, 1).sum())
    return found


def strtree_dwithin(points, distance):
    shapes = shapely.points(points)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=distance)
    return int((first < second).sum())


def strtree_box(points, distance):
    """The points in the box around each, which are then measured."""
    boxes = shapely.box(*(points - distance).T, *(points + distance).T)
    first, second = shapely.STRtree(shapely.points(points)).query(boxes)
    first, second = first[first < second], second[first < second]
    apart = points[first] - points[second]
    return int(((apart**2).sum(axis=1) <= distance**2).sum())


WAYS = {
    "STRtree, dwithin": strtree_dwithin,
    "STRtree, box then distance": strtree_box,
    "k-d tree, query_pairs": lambda points, distance: len(
        cKDTree(points).query_pairs(distance, output_type="ndarray")
    ),
    "pairs_within": lambda points, distance: len(pairs_within(points, distance)),
}


def compare_pairs(counts, distance, side, most_brute, repeat):
    """Seconds that each way takes for points drawn evenly in a square."""
    rows = []
    for n in counts:
        points = np.random.default_rng(0).uniform(0, side, (n, 2))
        compared = min(n, most_brute)
        taken, found = timed(brute_force, points, distance, compared)
        # pairs compared, of all pairs
        share = (compared * n - compared * (compared + 1) / 2) / (n * (n - 1) / 2)
        partly = compared < n
        rows.append(("brute force", n, taken / share, -1 if partly else found, partly))
        for way, find in WAYS.items():
            taken, found = min(timed(find, points, distance) for _ in range(repeat))
            rows.append((way, n, taken, found, False))
    return pd.DataFrame(rows, columns=["way", "points", "seconds", "pairs", "extrapolated"])


def timed(find, *arguments):
    started = time.perf_counter()
    found = find(*arguments)
    return time.perf_counter() - started, found


def main():
    options = arguments()
    if options.way:
        return print(peak(options.way, options.points[0], options.distance, options.side))
    table = compare_pairs(
        options.points, options.distance, options.side, options.most_brute, options.repeat
    )
    table["peak MiB"] = [
        in_a_process(row.way, row.points) if row.way in WAYS else np.nan
        for row in table.itertuples()
    ]
    print(f"# {options.distance:g} in {options.side:g} x {options.side:g}, {os.cpu_count()} cores")
    for n, rows in table.groupby("points"):
        report(n, rows.set_index("way"))
    return None


def report(n, rows):
    ours = rows.loc["pairs_within", "seconds"]
    found = rows["pairs"].max()
    print(f"\n## {n:,} points, {found:,} pairs")
    shown = pd.DataFrame(
        {
            "seconds": [
                f"{'~' if partly else ''}{seconds:.3f}"
                for seconds, partly in zip(rows["seconds"], rows["extrapolated"], strict=True)
            ],
            "of pairs_within": [f"{value:.2f}" for value in rows["seconds"] / ours],
            "peak MiB": [f"{value:.0f}" if value == value else "" for value in rows["peak MiB"]],
        },
        index=rows.index,
    )
    print(shown.to_string())
    library = rows.drop(index=["brute force", "pairs_within"])["seconds"]
    print(f"pairs_within / fastest library call ({library.idxmin()}): {ours / library.min():.2f}")
    print(f"brute force / pairs_within: {rows.loc['brute force', 'seconds'] / ours:,.0f}")


def in_a_process(way, n):
    command = [sys.executable, __file__, "--way", way, "--points", str(n)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak(way, n, distance, side):
    points = np.random.default_rng(0).uniform(0, side, (n, 2))
    WAYS[way](points[:100], distance)  # imports what it needs
    brute_force(points[:10], distance)
    before = resident_gib()
    WAYS[way](points, distance)
    return (resident_gib() - before) * 1024


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", nargs="+", type=int, default=[10_000, 30_000, 100_000])
    parser.add_argument("--distance", type=float, default=50)
    parser.add_argument("--side", type=float, default=5000)
    parser.add_argument("--most-brute", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
