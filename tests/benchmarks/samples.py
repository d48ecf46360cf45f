"""Which samples matter, each method beside its control, over many seeds.

    WORKBENCH_DATA=/path/to/data python tests/benchmarks/samples.py            # everything
    ... noise prune active curve --seeds 5 --jobs 2                            # some of it

noise    average precision of opinions on wrong labels of MNIST, 6,000 images, 10 % noise: the same
         small convolutional network recorded once, or asked out of fold
opinions the same with 3,000 images, and both together as find_issues takes them: AUM, and EL2N of
         the first five epochs. That pair was chosen among some thirty on the seeds 0 and 1; here
         the seeds begin at 100, which nothing was chosen on
prune    accuracy after training on a part of 6,000 MNIST images, labels clean and 10 % wrong
memory   share of the wrong labels that a network has learnt by heart, with mixup and smoothing
active   accuracy of logistic regression at 20 to 200 labels out of a pool of 3,000 of MNIST
curve    how often the interval of a learning curve holds a larger size, 100 trials a model
distil   accuracy of 1, 10 and 50 images a class: random, labels solved, all learnt; the linear
         one; and of another network that is trained on them
Tables are of means and 95 % intervals (t) over the seeds.
"""

import argparse
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.stats import t as student
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import average_precision_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from workbench import datasets, dynamics, labels
from workbench.models import predict
from workbench.models.training import Recipe, train

PLAIN = Recipe(
    epochs=15, batch_size=64, peak_rate=0.1, shift=0, flip=False, cutout=0,
    label_smoothing=0.0, bfloat16=False,
)  # fmt: skip


def network():
    """A small convolutional network for 28 x 28 images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 32, 5, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


@cache
def mnist(split, n, seed=0):
    return datasets.load("mnist", split=split, n=n, seed=seed, fallback=False)


def trained(ds, recipe=PLAIN, seed=0):
    torch.manual_seed(seed)
    model = network()
    train(model, ds, recipe, progress=False)
    return model


def accuracy(model, ds):
    return float((predict(model, ds, progress=False).argmax("class").values == ds.label).mean())


def noisy_labels(ds, kind, seed):
    clean = None
    if kind == "annotator":
        clean = labels.out_of_fold(ds, ds.label, seed=seed, progress=False)
    made = labels.inject_noise(ds.label, kind, 0.1, seed, probabilities=clean)
    return ds.assign(label=made.label), made.is_wrong.values


def noise(seed):
    yield from _judged(mnist("train", 6000), seed)


def opinions(seed):
    yield from _judged(mnist("train", 3000), 100 + seed)


def _judged(clean, seed):
    for kind in ("uniform", "pair", "annotator"):
        ds, wrong = noisy_labels(clean, kind, seed)
        logits = dynamics.record(network, ds, PLAIN, [seed], progress=False)
        p = labels.out_of_fold(ds, ds.label, network, recipe=PLAIN, seed=seed, progress=False)
        row = np.arange(len(wrong)), ds.label.values
        aum = -dynamics.aum(logits, ds.label)
        early = dynamics.el2n(logits.isel(epoch=slice(5)), ds.label)
        issues, both = (
            labels.find_issues(ds.label, p, opinions=more).score.reindex(ds.sample.values)
            for more in ([], [aum, early])
        )
        scores = {
            "AUM": aum.values,
            "EL2N": dynamics.el2n(logits, ds.label).values,
            "out of fold": 1 - p.values[row],
            "find_issues": issues.to_numpy(),
            "find_issues with AUM and early EL2N": both.to_numpy(),
        }
        for name, score in scores.items():
            yield {"noise": kind, "opinion": name}, average_precision_score(wrong, score)


def prune(seed):
    test = mnist("test", 5000)
    for kind in ("clean", "10 % wrong"):
        ds = mnist("train", 6000)
        if kind != "clean":
            ds, _ = noisy_labels(ds, "uniform", seed)
        early = dynamics.record(network, ds, PLAIN, [seed, seed + 100], progress=False)
        scores = dynamics.el2n(early.isel(epoch=slice(5)), ds.label)
        vectors = early.isel(seed=0, epoch=4).values.astype(float)
        for keep in (0.5, 0.1):
            for method in ("random", "hardest", "ccs", "moderate", "k-center", "herding"):
                drop = 0.1 if kind == "clean" else 0.2
                part = datasets.coreset(
                    ds, keep, method, scores=scores, features=vectors, drop=drop, seed=seed
                )
                longer = 1 if keep == 0.5 else 3
                recipe = Recipe(**{**vars(PLAIN), "epochs": PLAIN.epochs * longer})
                value = accuracy(trained(part, recipe, seed), test)
                yield {"labels": kind, "kept": keep, "method": method}, value


def memory(seed):
    ds, wrong = noisy_labels(mnist("train", 6000), "uniform", seed)
    ways = {"plain": {}, "smoothing .2": {"label_smoothing": 0.2}}
    if "mixup" in vars(PLAIN):
        ways |= {"mixup": {"mixup": 1.0}, "both": {"mixup": 1.0, "label_smoothing": 0.2}}
    for name, options in ways.items():
        recipe = Recipe(**{**vars(PLAIN), "epochs": 40, **options})
        model = trained(ds, recipe, seed)
        said = predict(model, ds, progress=False).argmax("class").values
        learnt = float((said == ds.label.values)[wrong].mean())
        yield {"training": name, "measure": "wrong labels learnt"}, learnt
        yield {"training": name, "measure": "test accuracy"}, accuracy(model, mnist("test", 5000))


def active(seed):
    pool, test = mnist("train", 3000), mnist("test", 5000)
    x, asked = (ds.image.values.reshape(ds.sizes["sample"], -1) / 255 for ds in (pool, test))
    vectors = PCA(50, random_state=0).fit_transform(x)
    for method in ("random", "typical", "margin", "coverage"):
        given, model = np.full(len(x), -1), None
        for n in (20, 40, 60, 100, 200):
            options, way = {}, method
            if method == "margin" and n == 20:
                way = "random"  # there is no model yet
            elif method == "margin":
                p = np.zeros((len(x), 10))
                p[:, model.classes_] = model.predict_proba(x)
                options = {"probabilities": p}
            more = n - int((given >= 0).sum())
            chosen = labels.next_batch(vectors, given, more, way, seed=seed, **options)
            given[chosen] = pool.label.values[chosen]
            model = LogisticRegression(max_iter=300).fit(x[given >= 0], given[given >= 0])
            if n != 40:
                yield {"method": method, "labels": n}, model.score(asked, test.label.values)


MODELS = {
    "ridge": lambda: Scored(1.0),
    "bayes": lambda: GaussianNB(var_smoothing=0.01),
    "neighbours": lambda: KNeighborsClassifier(3),
}


class Scored(RidgeClassifier):
    """Ridge, whose scores serve as probabilities."""

    def predict_proba(self, x):
        return np.eye(len(self.classes_))[np.searchsorted(self.classes_, self.predict(x))]


@cache
def principal():
    ds, test = mnist("train", 20000), mnist("test", 5000)
    x, asked = (d.image.values.reshape(d.sizes["sample"], -1) / 255 for d in (ds, test))
    reduce = PCA(30, random_state=0).fit(x)
    both = [xr.DataArray(reduce.transform(v), dims=("sample", "feature")) for v in (x, asked)]
    return both[0], ds.label.values, both[1], test.label.values


def curve(seed):
    """Five of the hundred trials: pools of 500, asked about 500, 1,000 and 2,000."""
    x, y, asked, truth = principal()
    for trial, (name, make) in ((i, m) for i in range(5) for m in MODELS.items()):
        order = np.random.default_rng(1000 * seed + trial).permutation(len(y))
        pool = order[:500]
        found = labels.learning_curve(make, x[pool], y[pool], progress=False)
        for size in (500, 1000, 2000):
            error = 1 - make().fit(x[order[:size]], y[order[:size]]).score(asked, truth)
            row = found.predict([size]).iloc[0]
            held, width = row["low"] <= error <= row["high"], row["high"] - row["low"]
            yield {"model": name, "size": size, "measure": "interval holds"}, float(held)
            yield {"model": name, "size": size, "measure": "width"}, float(width)


def learnt_by(made, test, soft, seed):
    """Accuracy of the small network when it is trained on a few images with their soft labels."""
    torch.manual_seed(seed)
    model = network()
    x = torch.from_numpy(made.image.values).permute(0, 3, 1, 2)
    y = torch.from_numpy(made.soft_label.values) if soft else torch.eye(10)[made.label.values] - 0.1
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(400):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return accuracy(model, test)


def distil(seed):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in ("mnist", "cifar10"):
        ds, test = (datasets.load(name, split=s, fallback=False) for s in ("train", "test"))

        def kernel(made, test=test):
            said = datasets.predict_distilled(made, test).argmax("class").values
            return float((said == test.label.values).mean())

        linear = datasets.distil(ds, 1, "linear", seed=seed)
        yield (
            {"data": name, "a class": 1, "images": "linear", "by": "least squares"},
            kernel(linear),
        )
        for per, steps in ((1, 2000), (10, 1000), (50, 600)):
            start = time.perf_counter()
            made = {
                "labels solved": datasets.distil(ds, per, "label-solve", seed=seed, device=device),
                "all learnt": datasets.distil(
                    ds, per, steps=steps, seed=seed, device=device, progress=False
                ),
            }
            seconds = time.perf_counter() - start
            given = np.eye(10, dtype=np.float32)[made["labels solved"].label.values] - 0.1
            solved = made["labels solved"]
            made["at random"] = solved.assign(soft_label=(("sample", "class"), given))
            for kind, images in made.items():
                key = {"data": name, "a class": per, "images": kind}
                yield {**key, "by": "kernel"}, kernel(images)
                if name == "mnist":
                    value = learnt_by(images, test, kind != "at random", seed)
                    yield {**key, "by": "network"}, value
            yield {"data": name, "a class": per, "images": "all learnt", "by": "seconds"}, seconds


SECTIONS = {f.__name__: f for f in (noise, opinions, prune, memory, active, curve, distil)}
SEEDS = {
    "noise": 10,
    "opinions": 5,
    "prune": 10,
    "memory": 10,
    "active": 20,
    "curve": 20,
    "distil": 3,
}


def run(task):
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    section, seed = task
    return [{**key, "value": value} for key, value in SECTIONS[section](seed)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", default=list(SECTIONS))
    parser.add_argument("--seeds", type=int, help="by default 3 to 20, as the section needs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    for section in options.sections:
        start = time.perf_counter()
        seeds = range(options.seeds or SEEDS[section])
        jobs = 1 if section == "distil" and torch.cuda.is_available() else options.jobs
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            rows = [row for part in pool.map(run, [(section, s) for s in seeds]) for row in part]
        table = pd.DataFrame(rows)
        groups = table.groupby([c for c in table if c != "value"], sort=False)["value"]
        half = groups.std() / np.sqrt(groups.count()) * student.ppf(0.975, groups.count() - 1)
        shown = pd.DataFrame({"mean": groups.mean(), "±": half, "n": groups.count()}).round(4)
        print(f"\n## {section}: {len(seeds)} seeds, {time.perf_counter() - start:.0f} s\n")
        print(shown.reset_index().to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
