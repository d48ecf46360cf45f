"""What annotators and reviewers decided on boxes, and the table that it comes to."""

import json
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from workbench.boxes.issues import SAME, iou, match
from workbench.datasets.boxes import CORNERS, as_table
from workbench.labels.store import opened

#: The object that stands for all of an image: confirmed, it has every box that it should have.
IMAGE = "*"
Row = dict[Any, Any]
Objects = dict[str, Row]


class Vote(NamedTuple):
    """One person's last decision on one object."""

    object: str
    action: str
    data: str | None
    reviewer: str


def object_id(row: Mapping[Any, Any]) -> str:
    """The id that a box of a table has in a store: what it is and where, whoever looks at it."""
    corners = ",".join(f"{row[name]:.2f}" for name in CORNERS)
    more = "" if row["points"] is None else f" {len(row['points'])} points"
    return f"{row['label']}@{corners}{more}"


def objects_of(boxes: pd.DataFrame | None, ds: xr.Dataset) -> dict[str, Objects]:
    """Sample, as text, to object id to row, of a table of boxes."""
    objects: dict[str, Objects] = {}
    for row in as_table([] if boxes is None else boxes, ds).to_dict("records"):
        objects.setdefault(str(row["sample"]), {})[object_id(row)] = row
    return objects


def votes_of(current: pd.DataFrame) -> dict[str, list[Vote]]:
    """Sample to the votes on its objects, of what holds in a store."""
    votes: dict[str, list[Vote]] = {}
    columns = [current[name].tolist() for name in ("sample", *Vote._fields)]
    for sample, *vote in zip(*columns, strict=True):
        votes.setdefault(sample, []).append(Vote(*vote))
    return votes


def decide(objects: Objects, votes: Iterable[Vote]) -> Objects:
    """The objects of an image after one person's votes on them."""
    objects = dict(objects)
    for vote in votes:
        if vote.action == "none":
            objects.pop(vote.object, None)
        elif vote.action == "change":
            objects[vote.object] = json.loads(vote.data or "{}") | {"source": vote.reviewer}
        elif vote.action == "confirm" and vote.object in objects:
            objects[vote.object] = objects[vote.object] | {"source": vote.reviewer}
    return objects


def apply_boxes(
    ds: xr.Dataset, store: Any, boxes: pd.DataFrame | None = None, *, least: float = 0.5
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
    before, votes = objects_of(boxes, ds), _votes(ds, store)
    rows: list[Row] = []
    for sample in ds["sample"].values.tolist():
        kept = _settled(before.get(str(sample), {}), votes.get(str(sample), []), least)
        rows += [row | {"sample": sample} for row in kept]
    return as_table(rows, ds)


def annotated(ds: xr.Dataset, store: Any) -> xr.DataArray:
    """Which images somebody called complete, bool (sample,): those without boxes have none.

    Raises
    ------
    StoreError
        There is no such store, or it is of another dataset.
    """
    votes = _votes(ds, store)
    own = [votes.get(str(sample), []) for sample in ds["sample"].values]
    whole = [any(vote[:2] == (IMAGE, "confirm") for vote in one) for one in own]
    return xr.DataArray(np.array(whole, bool), dims="sample", coords={"sample": ds["sample"]})


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
    before = objects_of(boxes, ds)
    sets: dict[str, dict[str, list[Row]]] = {}
    for sample, votes in _votes(ds, store).items():
        for name in {vote.reviewer for vote in votes}:
            own = [vote for vote in votes if vote.reviewer == name]
            objects = decide(before.get(sample, {}), own)
            sets.setdefault(name, {})[sample] = list(objects.values())
    rows = []
    for first, second in combinations(sorted(sets), 2):
        both = set(sets[first]) & set(sets[second])
        pairs = [(sets[first][sample], sets[second][sample]) for sample in both]
        shared = [value for one, other in pairs for _, _, value in _pairs(one, other, label=True)]
        total = sum(len(one) + len(other) for one, other in pairs)
        f1 = 2 * len(shared) / total if total else np.nan
        mean = float(np.mean(shared)) if shared else np.nan
        rows.append((first, second, len(both), total - len(shared), f1, mean))
    return pd.DataFrame(rows, columns=["first", "second", "images", "boxes", "f1", "iou"])


def _votes(ds: xr.Dataset, store: Any) -> dict[str, list[Vote]]:
    with opened(store, ds) as opened_store:
        return votes_of(opened_store.current(objects=True))


def _pairs(one: list[Row], other: list[Row], label: bool = False) -> list[tuple[int, int, float]]:
    """Boxes of two sets that are of one object, as positions, and their overlap."""
    if not one or not other:
        return []
    overlap = iou(*(np.array([[row[c] for c in CORNERS] for row in rows]) for rows in (one, other)))
    possible = overlap >= SAME
    if label:
        possible &= np.array([[a["label"] == b["label"] for b in other] for a in one])
    return [(i, j, overlap[i, j]) for i, j in zip(*match(overlap, possible), strict=True)]


def _settled(given: Objects, votes: list[Vote], least: float) -> list[Row]:
    """The boxes of an image: what was given, as people decided, and then what they added."""
    groups, people = dict[str, list[Row]](), dict[str, int]()
    added: dict[str, list[Vote]] = {}
    for vote in votes:
        if vote.action == "unclear":
            continue
        if vote.object in given:
            row = {vote.object: given[vote.object]}
            groups.setdefault(vote.object, []).extend(decide(row, [vote]).values())
            people[vote.object] = people.get(vote.object, 0) + 1
        else:
            added.setdefault(vote.reviewer, []).append(vote)
    kept = []
    for name, row in given.items():
        if name not in people:
            kept.append(row)
        elif groups[name] and len(groups[name]) >= least * people[name]:
            kept.append(_merged(groups[name]))
    clusters: list[list[Row]] = []
    for own in added.values():
        rows = list(decide({}, own).values())
        matched = {j: i for i, j, _ in _pairs([cluster[0] for cluster in clusters], rows)}
        for j, row in enumerate(rows):
            if j in matched:
                clusters[matched[j]].append(row)
            else:
                clusters.append([row])
    return kept + [_merged(group) for group in clusters if len(group) >= least * len(added)]


def _merged(group: list[Row]) -> Row:
    """One box of what several people have it as: their median, and the label of most."""
    labels = [row["label"] for row in group]
    names = "+".join(sorted({row["source"] for row in group}))
    merged = group[0] | {"label": max(labels, key=labels.count), "source": names}
    if merged.get("points") is None:
        corners = np.median([[row[name] for name in CORNERS] for row in group], axis=0)
        merged |= dict(zip(CORNERS, corners.tolist(), strict=True))
    return merged
