"""find_issues against cleanlab's filter alone, and a million samples within 4 GiB.

    python tests/benchmarks/labels.py                 # 50,000 x 10 with a graph, ratios to cleanlab
    python tests/benchmarks/labels.py --parts stream  # 1,000,000 x 100 from disk, peak memory
    python tests/benchmarks/labels.py --parts features  # colour images: pixels or network

Sides take turns in one process; the minimum of each is shown, of processor time too, which counts
both threads of ours. cleanlab is timed as it is called by
default (it starts processes) and with one job. The copy of the table is the physical limit.
`features` is the average precision of the score on 300 colour images, 5 % of their labels made
wrong, by what the logistic regression of notebook 03 sees. `stream` runs in a process of its own
and shows that process's peak resident memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from resident import resident_gib

NEIGHBORS = 15


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=["speed", "stream", "features"], default=["speed"]
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        return read(Path(options.read))
    if "speed" in options.parts:
        speed(options.repeat, 50_000, 10)
        speed(options.repeat, 5_000, 1_000)
    if "features" in options.parts:
        by_features()
    if "stream" in options.parts:
        stream(options.rows, options.classes)
    return None


def simulated(n, k, rng):
    """Labels, a tenth of them wrong, and the probabilities of a model that is right nine in ten."""
    true = rng.integers(0, k, n)
    p = rng.normal(size=(n, k)).astype(np.float32)
    p[np.arange(n), true] += 3
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return np.where(rng.random(n) < 0.1, rng.integers(0, k, n), true), p


def by_features(seeds=3):
    """Average precision by pixels and by the shipped network's vectors."""
    from sklearn.metrics import average_precision_score

    from workbench import datasets, embeddings, labels

    for name in ("cifar10", "photos"):
        found = {"pixels": [], "network": []}
        for seed in range(seeds):
            split = {"split": "test", "fallback": False} if name == "cifar10" else {}
            ds = datasets.load(name, n=300, seed=seed, **split)
            noisy = labels.inject_noise(ds.label, "uniform", 0.05, seed)
            for kind, scores in found.items():
                model = {"model": "cifar10", "progress": False} if kind == "network" else {}
                x = embeddings.features(ds, kind, **model)
                p = labels.out_of_fold(x, noisy.label, seed=seed, progress=False)
                issues = labels.find_issues(noisy.label, p).sort_index()
                wrong = noisy.is_wrong.sel(sample=issues.index.to_numpy())
                scores.append(average_precision_score(wrong, issues.score))
        for kind, scores in found.items():
            mean, low, high = np.mean(scores), min(scores), max(scores)
            print(
                f"{name}, {seeds} seeds, {kind}: {mean:.3f} ({low:.3f} to {high:.3f})", flush=True
            )


def speed(repeat, n, k):
    warnings.filterwarnings("ignore", "May not flag all")
    import xarray as xr
    from cleanlab.filter import find_label_issues

    from workbench import labels

    rng = np.random.default_rng(0)
    given, p = simulated(n, k, rng)
    p = p.astype(np.float64)
    graph = xr.Dataset(
        {
            "index": (("sample", "neighbor"), rng.integers(0, n, (n, NEIGHBORS))),
            "distance": (("sample", "neighbor"), np.sort(rng.random((n, NEIGHBORS))) + 1),
        }
    )
    sides = {
        "copy of the table": lambda: p.copy(),
        "cleanlab find_label_issues": lambda: find_label_issues(given, p),
        "cleanlab, one job": lambda: find_label_issues(given, p, n_jobs=1),
        "ours": lambda: labels.find_issues(given, p),
        "ours, with a graph": lambda: labels.find_issues(given, p, graph),
    }
    times = {name: [] for name in sides}
    spent = {name: [] for name in sides}
    for _ in range(repeat):
        for name, side in sides.items():
            started, processor = time.perf_counter(), time.process_time()
            side()
            times[name].append(time.perf_counter() - started)
            spent[name].append(time.process_time() - processor)
    alone, one = min(times["cleanlab find_label_issues"]), min(spent["cleanlab, one job"])
    print(f"{n:,} x {k}, {NEIGHBORS} neighbours, {os.cpu_count()} cores, best of {repeat}")
    for name, taken in times.items():
        wall = f"{min(taken):7.3f} s  {min(taken) / alone:6.2f} x cleanlab"
        processor = f"processor {min(spent[name]):.3f} s, {min(spent[name]) / one:.2f} x one job"
        print(f"{name:<28} {wall}; {processor}", flush=True)


def stream(rows, classes):
    """Write the table in parts, then read it in a fresh process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        table = np.lib.format.open_memmap(
            folder / "p.npy", "w+", dtype=np.float32, shape=(rows, classes)
        )
        given = np.empty(rows, dtype=np.int64)
        for start in range(0, rows, 50_000):
            part = slice(start, min(start + 50_000, rows))
            given[part], table[part] = simulated(part.stop - part.start, classes, rng)
        table.flush()
        np.save(folder / "given.npy", given)
        subprocess.run([sys.executable, __file__, "--read", name], check=True)


def read(folder):
    from workbench import labels

    given = np.load(folder / "given.npy")
    started = time.perf_counter()
    issues = labels.find_issues(given, folder / "p.npy")
    taken = time.perf_counter() - started
    peak = resident_gib()
    size = (folder / "p.npy").stat().st_size / 2**30
    print(
        f"{len(issues):,} samples from a file of {size:.2f} GiB: {taken:.1f} s, "
        f"peak {peak:.2f} GiB, {issues.is_issue.sum():,} issues"
    )


if __name__ == "__main__":
    main()
