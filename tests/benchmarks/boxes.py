"""Average precision of find_box_issues on injected errors, against cleanlab's detection scores.

    python tests/benchmarks/boxes.py                                   # composed scenes of digits
    WORKBENCH_DATA=/path/to/data python tests/benchmarks/boxes.py --data bccd --detector fcn

Of the boxes 5 % each are removed, given another class, or moved by .3 to .5 of their sides. The
detector is simulated, from the truth and habits that are known, or (--detector fcn) two networks
learn from the boxes with these errors, each on one half of the images, and find boxes in the
other half; set OMP_NUM_THREADS=1 on a busy machine. Ranked are, for missing boxes, the
predictions, and for swapped and shifted ones the boxes. In the blood smears many cells have no
box to begin with: there "missing" counts against both what is right, and --gallery draws the
first 100, found by a network that learned from 60 other smears, to be judged by eye.
"""

import argparse
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from cleanlab.object_detection import rank
from sklearn.metrics import average_precision_score

from workbench import boxes, datasets, models
from workbench.boxes.issues import iou
from workbench.datasets.boxes import CORNERS, image_of

SHARE = 0.05
KINDS = ("missing", "swapped", "shifted")


def scenes(n=240, side=160, seed=0):
    """Digits of four classes on smooth backgrounds, every one of them with its box."""
    rng = np.random.default_rng(seed)
    digits = datasets.load("digits")
    digits = digits.isel(sample=digits.label.values < 4)
    images, rows = np.empty((n, side, side, 1), np.uint8), []
    for i in range(n):
        rough = rng.uniform(0, 110, (6, 6)).repeat(27, 0).repeat(27, 1)[:side, :side]
        images[i, ..., 0] = rough + rng.uniform(0, 20, (side, side))
        taken = np.zeros((0, 4))
        for k in rng.choice(digits.sizes["sample"], rng.integers(4, 9), replace=False):
            size = 8 * int(rng.integers(3, 6))
            x, y = rng.integers(0, side - size, 2)
            place = np.array([[x, y, x + size, y + size]], float)
            if len(taken) and iou(place, taken).max() > 0.05:
                continue
            taken = np.r_[taken, place]
            glyph = digits.image.values[k, ..., 0].repeat(size // 8, 0).repeat(size // 8, 1)
            part = images[i, y : y + size, x : x + size, 0]
            np.maximum(part, glyph * (255 // max(glyph.max(), 1)), out=part)
            label = str(digits["class"].values[digits.label.values[k]])
            rows.append({"sample": i, **dict(zip(CORNERS, place[0], strict=True)), "label": label})
    image = (("sample", "y", "x", "channel"), images)
    return xr.Dataset(
        {"image": image}, coords={"sample": np.arange(n), "class": list("0123")}
    ), boxes.as_table(rows)


def blood_smears():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", datasets.SkippedWarning)
        return boxes.load(Path(os.environ["WORKBENCH_DATA"]) / "bccd", size=(192, 256))


def with_errors(ds, truth, seed):
    """The table with errors, the boxes that were removed, and the rows of the other errors."""
    rng = np.random.default_rng(seed)
    fate = rng.choice([*KINDS, "right"], len(truth), p=[SHARE, SHARE, SHARE, 1 - 3 * SHARE])
    given = truth.copy()
    names = sorted(set(truth["label"]))
    for row in np.flatnonzero(fate == "swapped"):
        given.loc[row, "label"] = rng.choice([n for n in names if n != truth.loc[row, "label"]])
    for row in np.flatnonzero(fate == "shifted"):
        sides = np.array(
            [
                truth.loc[row, b] - truth.loc[row, a]
                for a, b in zip(*np.reshape(CORNERS, (2, 2)), strict=True)
            ]
        )
        move = sides * rng.uniform(0.3, 0.5, 2) * rng.choice([-1, 1], 2)
        given.loc[row, CORNERS] += np.tile(move, 2)
    given["fate"] = fate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", datasets.SkippedWarning)
        kept = boxes.clip(given[fate != "missing"], ds)
    return kept, truth[fate == "missing"]


def detections(ds, given, epochs, seed):
    """What detectors that learned from the other half find."""
    half = np.random.default_rng(seed).permutation(ds.sizes["sample"]) % 2
    parts = [ds.isel(sample=half == k) for k in (0, 1)]
    given = given.drop(columns="fate")
    found = [detected(*pair, given, epochs, seed) for pair in (parts, parts[::-1])]
    return pd.concat(found, ignore_index=True)


def detected(train, test, given, epochs, seed):
    """What a detector finds in images that it did not learn from."""
    recipe = replace(models.recipe_of("fcn"), epochs=epochs, seed=seed)
    model = models.train("fcn", train, recipe, boxes=given, progress=False).model
    return models.predict(model, test, boxes=True, threshold=0.05, progress=False)


def simulated(ds, truth, seed):
    """A detector of known habits: 95 % found, edges off by 4 %, 3 % of another class, parts too."""
    rng = np.random.default_rng([seed, 1])
    names = sorted(set(truth["label"]))
    found = truth[rng.random(len(truth)) < 0.95].reset_index(drop=True)
    corners = found[CORNERS].to_numpy()
    sides = np.tile(corners[:, 2:] - corners[:, :2], 2)
    found[CORNERS] = corners + sides * rng.normal(0, 0.04, corners.shape)
    found["score"] = rng.beta(8, 2, len(found))
    for row in np.flatnonzero(rng.random(len(found)) < 0.03):
        found.loc[row, "label"] = rng.choice(names)
        found.loc[row, "score"] *= 0.6
    false = found.sample(frac=0.1, random_state=seed)
    moves = rng.uniform(1, 3, (len(false), 2)) * rng.choice([-1, 1], (len(false), 2))
    false[CORNERS] += np.tile(moves, 2) * np.tile(
        np.ptp(false[CORNERS].to_numpy().reshape(-1, 2, 2), axis=1), 2
    )
    false["score"] = rng.beta(2, 6, len(false))
    parts = found.sample(frac=0.3, random_state=seed)
    low, high = parts[CORNERS[:2]].to_numpy(), parts[CORNERS[2:]].to_numpy()
    size = (high - low) * rng.uniform(0.4, 0.7, low.shape)
    start = low + (high - low - size) * rng.uniform(0, 1, low.shape)
    parts[CORNERS] = np.c_[start, start + size]
    parts["score"] = rng.beta(4, 4, len(parts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", datasets.SkippedWarning)
        return boxes.clip(pd.concat([found, false, parts]), ds)


def ours(given, found):
    issues = boxes.find_box_issues(given, found)
    scores = {}
    for kind in KINDS:
        own, column = issues[issues["kind"] == kind], "prediction" if kind == "missing" else "box"
        scores[kind] = np.zeros(len(found if kind == "missing" else given))
        scores[kind][own[column]] = own["score"]
    return scores


def cleanlabs(ds, given, found):
    """1 - cleanlab's scores, which are low for issues; none where it gives none."""
    names = sorted(set(given["label"]) | set(found["label"]))
    labels, predictions, at, places = [], [], [], []
    for sample in ds["sample"].values:
        own, seen = given[given["sample"] == sample], found[found["sample"] == sample]
        labels.append(
            {"bboxes": own[CORNERS].to_numpy(), "labels": own["label"].map(names.index).to_numpy()}
        )
        parts = [seen[seen["label"] == name] for name in names]
        predictions.append(
            np.array([p[[*CORNERS, "score"]].to_numpy() for p in parts] + [None], object)[:-1]
        )
        at.append(own.index.to_numpy())
        places.append(pd.concat(parts).index.to_numpy())
    rows = np.concatenate(at)
    scores = {kind: np.zeros(len(found if kind == "missing" else given)) for kind in KINDS}
    missing = np.concatenate(
        rank.compute_overlooked_box_scores(labels=labels, predictions=predictions)
    )
    scores["missing"][np.concatenate(places)] = 1 - np.nan_to_num(missing, nan=1)
    for kind, compute in (
        ("swapped", rank.compute_swap_box_scores),
        ("shifted", rank.compute_badloc_box_scores),
    ):
        values = np.concatenate(compute(labels=labels, predictions=predictions))
        scores[kind][rows] = 1 - np.nan_to_num(values, nan=1)
    return scores


def wanted(given, lost, found):
    """What should come first, for each kind."""
    is_lost = np.zeros(len(found), bool)
    for sample, own in lost.groupby("sample"):
        seen = found.index[found["sample"] == sample]
        if len(seen):
            overlap = iou(own[CORNERS].to_numpy(), found.loc[seen, CORNERS].to_numpy())
            best = overlap.argmax(axis=1)[overlap.max(axis=1) >= 0.5]
            is_lost[seen[best]] = True
    fates = given["fate"].to_numpy()
    return {"missing": is_lost, "swapped": fates == "swapped", "shifted": fates == "shifted"}


def gallery(ds, given, found, path, n=100, columns=10):
    """The first predictions without a box, cut out with a margin."""
    from PIL import Image, ImageDraw

    issues = boxes.find_box_issues(given, found)
    first = issues[(issues["kind"] == "missing") & (issues["suggested"] == "RBC")].head(n)
    places = pd.Index(ds["sample"].values).get_indexer(first["sample"])
    sheet = Image.new("RGB", (128 * columns, 128 * -(-n // columns)))
    for i, (at, row) in enumerate(zip(places, first.to_dict("records"), strict=True)):
        image = Image.fromarray(image_of(ds, at, 640))
        pen = ImageDraw.Draw(image)
        for other in given[given["sample"] == row["sample"]].to_dict("records"):
            pen.rectangle([other[c] for c in CORNERS], outline="#3399ff", width=2)
        pen.rectangle([row[c] for c in CORNERS], outline="#ffb000", width=3)
        x, y = (row["x_min"] + row["x_max"]) / 2, (row["y_min"] + row["y_max"]) / 2
        part = image.crop((x - 96, y - 96, x + 96, y + 96)).resize((124, 124))
        sheet.paste(part, (128 * (i % columns), 128 * (i // columns)))
    sheet.save(path)
    return len(first)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", choices=("scenes", "bccd"), default="scenes")
    parser.add_argument("--detector", choices=("simulated", "fcn"), default="simulated")
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--gallery", type=Path, help="a PNG: red cells without a box, no errors injected"
    )
    arguments = parser.parse_args()
    ds, truth = scenes() if arguments.data == "scenes" else blood_smears()
    ds = ds.isel(sample=slice(arguments.images))
    truth = truth[truth["sample"].isin(ds["sample"].values)].reset_index(drop=True)
    if arguments.gallery:
        order = np.random.default_rng(0).permutation(ds.sizes["sample"])
        train, rest = (ds.isel(sample=np.sort(part)) for part in np.split(order, [60]))
        found = detected(train, rest, truth, arguments.epochs, 0)
        print("drawn:", gallery(rest, truth, found, arguments.gallery))
        return
    for seed in arguments.seeds:
        start = time.perf_counter()
        given, lost = with_errors(ds, truth, seed)
        if arguments.detector == "fcn":
            found = detections(ds, given, arguments.epochs, seed)
        else:
            found = simulated(ds, truth, seed)
        right = wanted(given, lost, found)
        counts = f"{ds.sizes['sample']} images, {len(truth)} boxes, {len(found)} found"
        seconds = f"{time.perf_counter() - start:.0f} s"
        print(f"{arguments.data}, {arguments.detector}, seed {seed}: {counts}, {seconds}")
        for kind in KINDS:
            values = [
                average_precision_score(right[kind], scores[kind])
                for scores in (ours(given, found), cleanlabs(ds, given, found))
            ]
            n = int(right[kind].sum())
            print(f"  {kind:8} n={n:4}  ours {values[0]:.3f}  cleanlab {values[1]:.3f}")


if __name__ == "__main__":
    main()
