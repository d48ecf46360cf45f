"""Maps and their quality against FiftyOne and umap-learn: one run, ratios, fresh processes.

    WORKBENCH_DATA=/path/to/data python tests/benchmarks/embeddings.py --sizes 10k 70k
    ... embeddings.py sets      # quality on small sets and MNIST, some seeds
    ... embeddings.py growth    # time and memory by the number of samples

Each side runs in its own process, which starts, imports, compiles and computes; `whole` is that
process's wall time, `call` the part that a user would write, `cpu` its processor time (which other
programs disturb less), `peak` its resident memory. Sides take turns; medians are shown. The first
turn starts with an empty numba cache and is shown as `cold`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from resident import resident_gib

STARTED = time.perf_counter()
SPLITS = {"10k": "test", "70k": "all"}


def main():
    options = arguments()
    if options.command:
        return COMMANDS[options.command](options)
    if options.side:
        return run_side(options.side, Path(options.folder), options.size)
    with tempfile.TemporaryDirectory() as name:
        for size in options.sizes:
            folder = Path(name) / size
            folder.mkdir()
            save_features(options.data, size, folder)
            for part in options.parts:
                PARTS[part](folder, size, options.repeat)
    return None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", nargs="?", choices=COMMANDS, help="instead of --parts")
    parser.add_argument("--seeds", type=int, default=3, help="of the command sets")
    parser.add_argument("--most", type=int, default=160_000, help="samples of the command growth")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--sizes", nargs="+", choices=SPLITS, default=["10k", "70k"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["maps", "second", "quality"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--size", help=argparse.SUPPRESS)
    return parser.parse_args()


def save_features(data, size, folder):
    from workbench import datasets, embeddings

    ds = datasets.load(data, split=SPLITS[size], fallback=False)
    np.save(folder / "features.npy", embeddings.features(ds).values)
    np.save(folder / "labels.npy", ds.label.values)
    print(f"\n# {data}, {ds.sizes['sample']} samples, {os.cpu_count()} cores")


def table(folder):
    import xarray as xr

    features = np.load(folder / "features.npy")
    labels = np.load(folder / "labels.npy")
    return xr.DataArray(features, dims=("sample", "feature")), xr.DataArray(labels, dims="sample")


# One side of a comparison, in a process of its own ------------------------------------------


def run_side(side, folder, size):
    features = np.load(folder / "features.npy")
    found = SIDES[side](features)
    times, xy = found if isinstance(found, tuple) else (found, None)
    if xy is not None:
        np.save(folder / f"{side}.npy", xy)
    used = resource.getrusage(resource.RUSAGE_SELF)
    times |= {"cpu": used.ru_utime + used.ru_stime, "peak": resident_gib()}
    (folder / f"{side}.json").write_text(json.dumps(times))


def clock(times, name, started):
    times[name] = time.perf_counter() - started
    return time.perf_counter()


def ours(features):
    import xarray as xr

    from workbench import embeddings

    times = {}
    call = clock(times, "import", STARTED)
    features = xr.DataArray(features, dims=("sample", "feature"))
    graph = embeddings.neighbors(features, k=15)
    started = clock(times, "neighbours", call)
    xy = embeddings.project(features, neighbors=graph, seed=51)
    clock(times, "map", started)
    clock(times, "call", call)
    return times, xy.values


def fiftyone(features):
    import fiftyone as fo
    import fiftyone.brain as fob

    times = {}
    started = clock(times, "import", STARTED)
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=f"/{i}.png") for i in range(len(features))])
    started = clock(times, "database", started)
    results = fob.compute_visualization(dataset, embeddings=features, method="umap", seed=51)
    clock(times, "call", started)
    dataset.delete()
    return times, results.points


def umap_learn(features):
    import umap

    times = {}
    started = clock(times, "import", STARTED)
    xy = umap.UMAP().fit_transform(features)
    clock(times, "call", started)
    return times, xy


def second_map(features):
    import xarray as xr

    from workbench import embeddings

    search = import_module("workbench.embeddings.neighbors")  # its name is the function's too
    times = {}
    features = xr.DataArray(features, dims=("sample", "feature"))
    started = time.perf_counter()
    graph = embeddings.neighbors(features, k=90)
    started = clock(times, "neighbours (k=90)", started)
    # A second search would now fail, not just take time.
    search.exact_rows.__code__ = search.clustered_graph.__code__ = (lambda *_: 1 / 0).__code__
    for method, options in MAPS:
        embeddings.project(features, method, graph, 51, **options)
        started = clock(times, f"{method} {options or ''}", started)
    return times


MAPS = (
    ("umap", {}),
    ("umap", {"min_dist": 0.5}),
    ("pacmap", {}),
    ("tsne", {"perplexity": 30}),
    ("tsne", {"perplexity": 7}),
)
SIDES = {"ours": ours, "fiftyone": fiftyone, "umap-learn": umap_learn, "second": second_map}


# The parent's part ---------------------------------------------------------------------------


def measure(side, folder, size):
    """Run a side in a fresh process and return its times, the whole process's included."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--size", size]
    here = {
        "NUMBA_CACHE_DIR": str(folder / "numba"),
        "FIFTYONE_DATABASE_DIR": str(folder / "mongo"),
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    }
    started = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **here}, capture_output=True, text=True)
    whole = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr}")
    return {"whole": whole, **json.loads((folder / f"{side}.json").read_text())}


def maps(folder, size, repeat):
    """Neighbours and UMAP: ours against FiftyOne (10k) and against umap-learn's own call."""
    import xarray as xr

    from workbench import embeddings

    sides = ["ours", "fiftyone", "umap-learn"] if size == "10k" else ["ours", "umap-learn"]
    turns = {side: [] for side in sides}
    for turn in range(repeat):
        for side in sides:
            turns[side].append(measure(side, folder, size))
            show(f"{size} {side} turn {turn + 1}", turns[side][-1])
    # Turn 1 compiled; where there are others they are the warm ones.
    warm = {side: median(turns[side][1:] or turns[side]) for side in sides}
    features, labels = table(folder)
    for side in sides:
        show(f"{size} {side} cold", turns[side][0])
        show(f"{size} {side} warm, median", warm[side])
        xy = xr.DataArray(np.load(folder / f"{side}.npy"), dims=("sample", "axis"))
        rows = len(xy) if size == "10k" else None
        print(embeddings.quality(features, xy, labels=labels, sample=rows).round(4).to_string())
    for side in sides[1:]:
        for state, one, other in (
            ("cold", turns["ours"][0], turns[side][0]),
            ("warm", warm["ours"], warm[side]),
        ):
            ratios = {key: other[key] / one[key] for key in ("whole", "call", "cpu", "peak")}
            show(f"{size} {side} / ours, {state}", ratios, unit="x")


def second(folder, size, repeat):
    """Further maps of the same features."""
    if size == "10k":
        show("10k one search, then five maps", measure("second", folder, size))


def quality(folder, size, repeat):
    """Quality, collisions and duplicates, given a map and a graph."""
    from workbench import embeddings

    features, labels = table(folder)
    graph = embeddings.neighbors(features)
    xy = embeddings.project(features, neighbors=graph)
    for _ in range(repeat):
        times = {}
        started = time.perf_counter()
        embeddings.quality(features, xy, graph, labels)
        started = clock(times, "quality", started)
        embeddings.collisions(features, xy)
        started = clock(times, "collisions", started)
        embeddings.duplicates(graph)
        clock(times, "duplicates", started)
        show(f"{size} {graph.attrs['method']}", times)


def search(folder, size, repeat):
    """Candidates for the neighbour search, one after another: seconds and recall at 15."""
    features, _ = table(folder)
    truth = None
    for name, find in SEARCHES.items():
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            index = find(features.values)
        except ImportError as error:
            print(f"{size} {name:<24} left out: {error}")
            continue
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        truth = index if truth is None else truth
        rows = np.random.default_rng(0).choice(len(index), 5000, replace=False)
        recall = (index[rows][:, :, None] == truth[rows][:, None, :]).any(axis=2).mean()
        print(
            f"{size} {name:<24} wall {wall:6.1f} s  cpu {cpu:6.1f} s  recall {recall:.4f}",
            flush=True,
        )


def by_workbench(exact):
    def find(values):
        import xarray as xr

        from workbench import embeddings

        table = xr.DataArray(values, dims=("sample", "feature"))
        return embeddings.neighbors(table, exact=exact).index.values

    return find


def by_hnsw(values):
    import faiss

    index = faiss.IndexHNSWFlat(values.shape[1], 16)
    index.hnsw.efConstruction, index.hnsw.efSearch = 60, 48
    index.add(values)
    return index.search(values, 16)[1][:, 1:]


def by_ivf(values):
    import faiss

    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(values.shape[1]), values.shape[1], 512)
    index.train(values)
    index.add(values)
    index.nprobe = 24
    return index.search(values, 16)[1][:, 1:]


def by_pynndescent(values):
    import pynndescent

    return pynndescent.NNDescent(values, n_neighbors=16, random_state=0).neighbor_graph[0][:, 1:]


def by_usearch(values):
    from usearch.index import Index

    index = Index(ndim=values.shape[1], metric="l2sq", dtype="f32")
    index.add(np.arange(len(values)), values)
    return np.asarray(index.search(values, 16).keys).astype(np.int64)[:, 1:]


SEARCHES = {
    "exact (faiss flat)": by_workbench(exact=True),
    "ours (pca + ivf + refine)": by_workbench(exact=False),
    "faiss hnsw": by_hnsw,
    "faiss ivf": by_ivf,
    "pynndescent": by_pynndescent,
    "usearch": by_usearch,
}


def sets(options):
    """Quality of UMAP on small sets and MNIST, ours beside umap-learn, over some seeds."""
    from sklearn import datasets as toys

    from workbench import datasets, embeddings

    ds = datasets.load("mnist", split="test", fallback=False)
    given = {
        "digits": toys.load_digits().data / 16,
        "wine": standardised(toys.load_wine().data),
        "breast cancer": standardised(toys.load_breast_cancer().data),
        "swiss roll": toys.make_swiss_roll(3000, random_state=0)[0],
        "mnist 10k": embeddings.features(ds).values,
    }
    print("# mammoth: its scan is not among the data here; mean (standard deviation) over seeds")
    columns = ("trustworthiness", "continuity", "neighbor_recall")
    print(f"{'data':<26} " + " ".join(f"{one:>15}" for one in (*columns, "triplets")))
    for name, values in given.items():
        table = dataarray(values)
        graph = embeddings.neighbors(table, k=15)
        for method in ("umap", "umap-learn"):
            rows = []
            for seed in range(options.seeds):
                xy = embeddings.project(table, method, graph, seed)
                found = embeddings.quality(table, xy, k=15).value
                rows.append([*found[list(columns)], triplets(table.values, xy.values)])
            cells = zip(np.mean(rows, axis=0), np.std(rows, axis=0), strict=True)
            text = " ".join(f"{mean:>7.4f} ({sd:.4f})"[-15:] for mean, sd in cells)
            print(f"{name:<14} {method:<11} {text}", flush=True)


def standardised(values):
    return (values - values.mean(axis=0)) / values.std(axis=0)


def dataarray(values):
    import xarray as xr

    return xr.DataArray(np.asarray(values, np.float32), dims=("sample", "feature"))


def triplets(values, points, count=200_000):
    """Share of random triplets whose nearer two are the nearer two on the map as well."""
    one, two, three = np.random.default_rng(0).integers(0, len(values), (3, count))
    nearer = [
        np.linalg.norm(space[one] - space[two], axis=1)
        < np.linalg.norm(space[one] - space[three], axis=1)
        for space in (values, points)
    ]
    return float((nearer[0] == nearer[1]).mean())


def growth(options):
    """Seconds and memory of neighbours and map from 10,000 samples on, each time doubled.

    The vectors are 50 principal components of MNIST, mixed at random within a class. Each size
    runs in a process of its own.
    """
    n, last = 10_000, None
    while n <= options.most:
        command = [sys.executable, __file__, "grown", "--most", str(n)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        times = json.loads(done.stdout)
        ratio = (
            {f"{key} x": times[key] / last[key] for key in ("neighbours", "map")} if last else {}
        )
        show(f"{n:>9,}", times)
        show(" " * 9, ratio, unit="") if ratio else None
        n, last = 2 * n, times


def grown(options):
    from workbench import datasets, embeddings

    ds = datasets.load("mnist", split="test", fallback=False)
    base = embeddings.features(ds, "pca", components=50).values
    rng = np.random.default_rng(0)
    order = np.argsort(ds.label.values, kind="stable")
    place = rng.integers(0, len(base), options.most)
    own = base[order[place]]
    other = base[order[np.clip(place + rng.integers(-300, 300, options.most), 0, len(base) - 1)]]
    values = dataarray(own + rng.uniform(0, 0.5, (options.most, 1)) * (other - own))
    embeddings.project(values[:500], n_epochs=2)  # compiles
    times, started, cpu = {}, time.perf_counter(), time.process_time()
    graph = embeddings.neighbors(values)
    started = clock(times, "neighbours", started)
    embeddings.project(values, neighbors=graph)
    clock(times, "map", started)
    times |= {"cpu": time.process_time() - cpu, "recall": graph.attrs["recall"]}
    print(json.dumps({**times, "peak": resident_gib()}))


COMMANDS = {"sets": sets, "growth": growth, "grown": grown}
PARTS = {"maps": maps, "second": second, "quality": quality, "search": search}


def median(turns):
    return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}


def show(title, times, unit="s"):
    units = {"peak": "GiB", "recall": ""} if unit == "s" else {}
    parts = (f"{key} {value:.2f} {units.get(key, unit)}" for key, value in times.items())
    print(f"{title}: " + ", ".join(parts), flush=True)


if __name__ == "__main__":
    main()
