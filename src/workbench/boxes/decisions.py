"""What annotators and reviewers decided on boxes, and the table that it comes to."""

import json
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.boxes.issues import SAME, iou, match
from workbench.datasets.boxes import CORNERS, as_table
from workbench.labels.store import Store, opened

#: The object that stands for all of an image: confirmed, it has every box that it should have.
IMAGE = "*"
COLUMNS = ["object", "action", "data", "reviewer"]
Row = dict[Any, Any]
Objects = dict[str, Row]


def object_id(row: Mapping[Any, Any]) -> str:
    """The id that a box of a table has in a store: what it is and where, whoever looks at it."""
    corners = ",".join(f"{row[name]:.2f}" for name in CORNERS)
    more = "" if row["points"] is None else f" {len(row['points'])} points"
    return f"{row['label']}@{corners}{more}"


def objects_of(boxes: pd.DataFrame) -> dict[Any, Objects]:
    """Sample to object id to row, of a table of boxes."""
    objects: dict[Any, Objects] = {}
    for row in boxes.to_dict("records"):
        objects.setdefault(row["sample"], {})[object_id(row)] = row
    return objects


def decide(objects: Objects, decisions: pd.DataFrame) -> Objects:
    """The objects of an image after one person's decisions on them."""
    objects = dict(objects)
    for name, action, data, person in decisions[COLUMNS].itertuples(index=False):
        if action == "none":
            objects.pop(name, None)
        elif action == "change":
            objects[name] = json.loads(data) | {"source": person}
        elif action == "confirm" and name in objects:
            objects[name] = objects[name] | {"source": person, "open": False}
    return objects


def apply_boxes(
    ds: xr.Dataset,
    store: Any,
    boxes: pd.DataFrame | None = None,
    *,
    least: float = 0.5,
) -> pd.DataFrame:
    """Table of boxes that annotation and review came to.

    Parameters
    ----------
    ds
        The dataset that was annotated.
    store
        The file of decisions.
    boxes
        The boxes that were there before, where such were reviewed: those that nobody decided on
        stay as they are.
    least
        Where several people decided on a box, or drew in the same image, the share of them who
        must have it (IoU of 0.5 and more, any label). Its corners are their median and its label
        that of most.

    Returns
    -------
    pandas.DataFrame
        ``source`` names who drew, changed or confirmed a box, ``anna+ben``.

    Raises
    ------
    StoreError
        There is no such store, or it is of another dataset.

    Examples
    --------
    >>> table = apply_boxes(ds, "boxes.db")  # doctest: +SKIP
    """
    before = objects_of(as_table([] if boxes is None else boxes, ds))
    current = _current(ds, store)
    decided = dict(list(current.groupby("sample")))
    rows: list[Row] = []
    for sample in ds["sample"].values.tolist():
        kept = _settled(before.get(sample, {}), decided.get(sample, current[:0]), least)
        rows += [row | {"sample": sample} for row in kept]
    return as_table(rows, ds)


def annotated(ds: xr.Dataset, store: Any) -> xr.DataArray:
    """Which images somebody called complete, bool (sample,): those without boxes have none.

    Raises
    ------
    StoreError
        There is no such store, or it is of another dataset.
    """
    current = _current(ds, store)
    done = current.loc[(current["object"] == IMAGE) & (current["action"] == "confirm"), "sample"]
    return xr.DataArray(
        np.isin(ds["sample"].values, done.to_numpy()),
        dims="sample",
        coords={"sample": ds["sample"]},
    )


def box_agreement(ds: xr.Dataset, store: Any, boxes: pd.DataFrame | None = None) -> pd.DataFrame:
    """How far every two annotators agree on the images that both worked on.

    Returns
    -------
    pandas.DataFrame
        One row a pair: ``first``, ``second``, ``images``, ``boxes`` that either has, ``f1``, the
        share of them that both have (IoU of 0.5 and more, the same label; 2 matched / (n + m)),
        ``iou``, the mean over those; NaN where there are none.

    Raises
    ------
    StoreError
        There is no such store, or it is of another dataset.
    """
    before = objects_of(as_table([] if boxes is None else boxes, ds))
    sets: dict[Any, dict[Any, list[Row]]] = {}
    for (sample, name), part in _current(ds, store).groupby(["sample", "reviewer"]):
        objects = decide(before.get(sample, {}), part)
        sets.setdefault(name, {})[sample] = list(objects.values())
    rows = []
    for first, second in combinations(sorted(sets), 2):
        both = set(sets[first]) & set(sets[second])
        pairs = [(sets[first][sample], sets[second][sample]) for sample in both]
        shared = [value for one, other in pairs for _, _, value in _pairs(one, other, label=True)]
        total = sum(len(one) + len(other) for one, other in pairs)
        row = {"first": first, "second": second, "images": len(both), "boxes": total - len(shared)}
        row["f1"] = 2 * len(shared) / total if total else np.nan
        rows.append(row | {"iou": float(np.mean(shared)) if shared else np.nan})
    return pd.DataFrame(rows, columns=["first", "second", "images", "boxes", "f1", "iou"])


def _current(ds: xr.Dataset, store: Store | Any) -> pd.DataFrame:
    """What holds of each object, its sample by the dataset's own id."""
    with opened(store, ds) as opened_store:
        current = opened_store.current(objects=True)
    ids = {str(sample): sample for sample in ds["sample"].values.tolist()}
    return current.assign(sample=[ids[text] for text in current["sample"]])


def _pairs(one: list[Row], other: list[Row], label: bool = False) -> list[tuple[int, int, float]]:
    """Boxes of two sets that are of one object, as positions, and their overlap."""
    if not one or not other:
        return []
    overlap = iou(*(np.array([[row[c] for c in CORNERS] for row in rows]) for rows in (one, other)))
    possible = overlap >= SAME
    if label:
        possible &= np.array([[a["label"] == b["label"] for b in other] for a in one])
    return [(i, j, overlap[i, j]) for i, j in zip(*match(overlap, possible), strict=True)]


def _settled(given: Objects, decisions: pd.DataFrame, least: float) -> list[Row]:
    """The boxes of an image: what was given, as people decided, and then what they added."""
    if decisions.empty:
        return list(given.values())
    votes = decisions[decisions["action"] != "unclear"]
    own = dict(list(votes.groupby("object")))
    kept = []
    for name, row in given.items():
        if name not in own:
            kept.append(row)
            continue
        group = [decide({name: row}, vote).get(name) for _, vote in own[name].groupby("reviewer")]
        having = [vote for vote in group if vote is not None]
        if len(having) >= least * len(group):
            kept.append(_merged(having))
    added = votes[~votes["object"].isin(list(given))]
    sets = [list(decide({}, part).values()) for _, part in added.groupby("reviewer")]
    groups: list[list[Row]] = []
    for rows in sets:
        matched = {j: i for i, j, _ in _pairs([group[0] for group in groups], rows)}
        for j, row in enumerate(rows):
            if j in matched:
                groups[matched[j]].append(row)
            else:
                groups.append([row])
    return kept + [_merged(group) for group in groups if len(group) >= least * len(sets)]


def _merged(group: list[Row]) -> Row:
    """One box of what several people have it as: their median, and the label of most."""
    labels = [row["label"] for row in group]
    names = "+".join(sorted({row["source"] for row in group}))
    merged = group[0] | {"label": max(labels, key=labels.count), "source": names}
    if merged.get("points") is None:
        corners = np.median([[row[name] for name in CORNERS] for row in group], axis=0)
        merged |= dict(zip(CORNERS, corners.tolist(), strict=True))
    return merged
