"""The cut on data, noise and models that no constant of it was chosen on.

    python tests/benchmarks/label_noise_unseen.py --datasets wine cancer   # --each: every cell

Data: wine, breast cancer and the photographs that come with scikit-learn and scikit-image, and
`blobs` that overlap by different amounts. Noise: one class alone mistaken for another
(`asymmetric`), a few clusters of the features whose labels are wrong half the time (`cluster`), and
the four kinds of `inject_noise`, whose annotator is a random forest here. Models: a random forest,
naive Bayes (far too sure of itself), logistic regression and ten nearest neighbours. Columns as in
`label_noise.py`; `inside` is whether the number of errors lies between `n_errors_low` and
`n_errors_high`.

`one model` is our cut without the models of absorbed noise, `cut at half` that with the threshold
one half. `--audited 60 120` adds the mean F1 of `labels.recut` with so many labels looked at over
`--draws` draws for each seed of the noise. Labels and probabilities are kept in a temporary folder
(--cache), since training takes most of the time.
"""

import argparse
import tempfile
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from label_noise import measured, scaled
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_wine, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from workbench import datasets, embeddings, labels
from workbench.labels import noise_models
from workbench.labels.known_errors import KINDS

RATES = (0.05, 0.1, 0.2, 0.4)


def forest():
    return RandomForestClassifier(50, min_samples_leaf=2, random_state=0)


MODELS = {
    "forest": forest,
    "bayes": lambda: scaled(GaussianNB(var_smoothing=1e-2)),
    "logistic": lambda: scaled(LogisticRegression(C=0.1)),
    "neighbors": lambda: scaled(KNeighborsClassifier(10)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=DATA, default=[*DATA])
    parser.add_argument("--each", action="store_true", help="print every cell, not the short ones")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--audited", nargs="*", type=int, default=[])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "label-unseen")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    rows = []
    for name in options.datasets:
        x, true = DATA[name]()
        x = StandardScaler().fit_transform(x)
        for kind, rate, seed in product((*KINDS, "asymmetric", "cluster"), RATES, options.seeds):
            file = options.cache / f"{name}-{kind}-{rate}-{seed}.npz"
            kept = (
                dict(np.load(file))
                if file.exists()
                else {"given": spoilt(x, true, kind, rate, seed)}
            )
            given = kept["given"]
            missing = [model for model in options.models if model not in kept]
            for model in missing:
                kept[model] = folds(x, given, MODELS[model], seed, true.max() + 1)
            if missing:
                np.savez(file, **kept)
            for model in options.models:
                where = {"data": name, "seed": seed, "model": model, "kind": kind, "rate": rate}
                p = kept[model]
                after = {str(n): audited(true, given, p, n, options.draws) for n in options.audited}
                less = simpler(true, given, p)
                rows.append({**where, **measured(true, given, p), **less, **after})
        print(summary(pd.DataFrame(rows).query("data == @name"), name), flush=True)
    table = pd.DataFrame(rows)
    more = [str(n) for n in options.audited]
    for group in ("data", "kind", "rate", "model"):
        columns = [
            "ours",
            "one model",
            "cut at half",
            *more,
            "cleanlab",
            "differs",
            "better",
            "inside",
        ]
        print(table.groupby(group)[columns].mean().round(3), "\n")
    print(summary(table, "all"))
    for n in more:
        cells = table.groupby(["data", "model", "kind", "rate"])[[n, "ours", "better"]].mean()
        worse = (cells[n] - cells["better"]).sort_values()
        print(
            f"{n} audited: mean {table[n].mean():.3f} (ours without {table.ours.mean():.3f}, the "
            f"better peer {table.better.mean():.3f}); below that peer in {(worse < -0.0005).sum()} "
            f"of {len(worse)} cells, by more than .02 in {(worse < -0.02).sum()}"
        )
        print(worse.head(12).round(3).to_string(), "\n")
    shown = table if options.each else table[table.short < -0.05]
    print(shown.sort_values("short").round(3).to_string(index=False))


def simpler(true, given, p):
    """F1 of the guess without the models of absorbed noise, and with the cut at one half too."""
    p = noise_models.smoothed(p)
    parts = noise_models.weighed(p, given)
    cut = noise_models.fit_noise(p, given)
    by_class = cut.class_model.wrong(parts, given)
    score = cut.evidence * by_class
    score += (1 - cut.evidence) * noise_models.against_best_other(*parts[1:])
    best = (noise_models.best_f1_cut(by_class) + 0.5) / 2
    threshold = cut.evidence * best + (1 - cut.evidence) * 0.5
    return {
        "one model": f1_score(true != given, score > threshold),
        "cut at half": f1_score(true != given, score > 0.5),
    }


def audited(true, given, p, n, draws):
    """Mean F1 of the cut after `n` labels were looked at."""
    issues = labels.find_issues(given, p)
    wrong = pd.Series(true != given)
    found = []
    for seed in range(draws):
        drawn = labels.audit_sample(issues, n=min(n, len(given) // 2), seed=seed)
        cut = labels.recut(issues, wrong.loc[list(drawn)])
        found.append(f1_score(wrong, cut.is_issue.sort_index()))
    return float(np.mean(found))


def summary(table, title):
    means = " ".join(f"{n} {table[n].mean():.3f}" for n in ("ours", "cleanlab", "differs"))
    return (
        f"{title}: {means}, short in {(table.short < -0.0005).sum()} of {len(table)}, by more than "
        f".05 in {(table.short < -0.05).sum()}, worst {table.short.min():.3f}"
    )


def folds(x, given, make, seed, classes):
    rows = xr.DataArray(x, dims=("sample", "feature"))
    return labels.out_of_fold(rows, given, make, seed=seed, classes=classes, progress=False).values


def spoilt(x, true, kind, rate, seed):
    """Noisy labels."""
    rng = np.random.default_rng([seed, 17])
    if kind == "asymmetric":
        # The commonest class alone, so that the rate is of that class's labels.
        of = np.bincount(true).argmax()
        hit = (true == of) & (rng.random(len(true)) < rate)
        return np.where(hit, (of + 1) % (true.max() + 1), true)
    if kind == "cluster":
        parts = KMeans(20, n_init=1, random_state=seed).fit_predict(x)
        sizes = np.bincount(parts)
        order = rng.permutation(20)
        count = 1 + np.searchsorted(sizes[order].cumsum(), 2 * rate * len(true))
        hit = np.isin(parts, order[:count]) & (rng.random(len(true)) < 0.5)
        return np.where(hit, (true + rng.integers(1, true.max() + 1, len(true))) % (true.max() + 1),
                        true)  # fmt: skip
    reference = folds(x, true, forest, 5, true.max() + 1)
    reference = (reference + 0.01) / (reference + 0.01).sum(axis=1, keepdims=True)
    return labels.inject_noise(true, kind, rate, seed, probabilities=reference).label.values


def bundled(load):
    found = load()
    return found.data, found.target


def photographs():
    ds = datasets.load("photos", n=800, seed=3)
    return embeddings.features(ds, "pca", components=25).values, ds.label.values


def blobs():
    return make_classification(
        1500, 20, n_informative=8, n_classes=6, n_clusters_per_class=2, class_sep=1.6,
        random_state=4,
    )  # fmt: skip


DATA = {
    "wine": lambda: bundled(load_wine),
    "cancer": lambda: bundled(load_breast_cancer),
    "photos": photographs,
    "blobs": blobs,
}

if __name__ == "__main__":
    main()
