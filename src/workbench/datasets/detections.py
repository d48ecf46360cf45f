"""Many boxes on one object: keep the best, join the parts."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

Boxes = NDArray[np.float64]
Labels = NDArray[np.int64]
CORNERS = ("x_min", "y_min", "x_max", "y_max")
#: Boxes that look for their neighbours at once, so that thousands on one spot stay in bounds.
_BLOCK = 256
#: Pairs that are kept until they are reduced to who belongs together.
_MOST_PAIRS = 4_000_000


class Merged(NamedTuple):
    """Merged detections, and what became of each that went in."""

    boxes: pd.DataFrame
    group: NDArray[np.int64]


def merge_detections(
    boxes: ArrayLike,
    scores: ArrayLike,
    iou: float | None = None,
    distance: float | None = None,
    *,
    label: ArrayLike | None = None,
) -> Merged:
    """One box for each object, from detections that cover it several times or in parts.

    Two steps, either of which can be left out. With `iou`, greedy non-maximum suppression: the
    best box takes in all whose intersection over union with it is above `iou`, then the next best
    that is left. With `distance`, boxes that are left and whose edges are at most `distance` apart
    are joined into the box around them, along chains: halves cut by the edge of a tile (their IoU
    is 0), or a small box in a large one. Objects that stand nearer to one another are joined too.

    An R-tree (shapely's STRtree) finds what is near, so that neither time nor memory grows with the
    square of the boxes unless all of them overlap.

    Parameters
    ----------
    boxes
        (box, 4): ``x_min, y_min, x_max, y_max`` of each, in pixels or map units. A box without
        width or height has IoU 0 with every other.
    scores
        (box,): higher is better. Equal scores rank in the order given.
    iou
        The threshold, from 0 to 1; None leaves suppression out.
    distance
        The largest gap, Euclidean, that is bridged; None leaves joining out.
    label
        (box,): only boxes of one label are merged, those without one with one another.

    Returns
    -------
    Merged
        ``boxes``, a DataFrame, best first: ``x_min``, ``y_min``, ``x_max``, ``y_max``, ``score``
        (the best of its members), ``best`` (that member's position), ``members`` (how many), and
        ``label`` where given. ``group`` int64 (box,): the row of ``boxes`` that each went into.

    Raises
    ------
    ValueError
        Neither `iou` nor `distance`, or one out of its range; boxes that are not (box, 4), are
        not finite or end before they begin; scores that are NaN; lengths that differ.

    Examples
    --------
    >>> halves = [[0, 0, 10, 10], [11, 0, 20, 10]]
    >>> merge_detections(halves, [0.9, 0.8], distance=2).boxes[["x_min", "x_max", "members"]]
       x_min  x_max  members
    0    0.0   20.0        2
    """
    at, score, kind = _checked(boxes, scores, label)
    if iou is None and distance is None:
        raise ValueError("give iou, distance or both: without either there is nothing to merge by")
    if iou is not None and not 0 <= iou <= 1:
        raise ValueError(f"iou={iou} must be a share, from 0 to 1")
    if distance is not None and not 0 <= distance < np.inf:
        raise ValueError(f"distance={distance} must be a number of 0 or more")
    rank = np.argsort(-score, kind="stable")
    place = np.empty_like(rank)
    place[rank] = np.arange(len(rank))
    owner = np.arange(len(at)) if iou is None else _suppressed(at, rank, place, kind, iou)
    kept, part = np.unique(owner, return_inverse=True)
    together = np.arange(len(kept))
    if distance is not None:
        together = _joined(at[kept], kind[kept], distance)
    # groups are numbered by their best member
    best = np.full(together.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(best, together, place[kept])
    number = np.argsort(np.argsort(best))
    best = np.sort(best)
    table = pd.DataFrame(at[kept], columns=list(CORNERS)).groupby(number[together])
    merged = table.agg(dict.fromkeys(CORNERS[:2], "min") | dict.fromkeys(CORNERS[2:], "max"))
    merged["score"] = score[rank[best]]
    merged["best"] = rank[best]
    group = number[together][part]
    merged["members"] = np.bincount(group, minlength=len(merged))
    if label is not None:
        merged["label"] = np.asarray(label)[rank[best]]
    return Merged(merged, group)


def _suppressed(at: Boxes, rank: Labels, place: Labels, kind: Labels, iou: float) -> Labels:
    """Greedy non-maximum suppression: the box that each is taken in by, itself where it stays."""
    tree = shapely.STRtree(shapely.box(*at.T))
    owner = np.full(len(at), -1)
    for start in range(0, len(rank), _BLOCK):
        block = rank[start : start + _BLOCK]
        alive = block[owner[block] < 0]
        if not len(alive):
            continue
        one, other = _near(tree, at, alive, 0.0)
        left = (place[other] > place[one]) & (owner[other] < 0) & (kind[one] == kind[other])
        one, other = one[left], other[left]
        above = box_iou(at[one], at[other]) > iou
        one, other = one[above], other[above]
        # `_near` answers in the order of what it was asked for
        ends = np.searchsorted(place[one], place[alive], side="right")
        for best, begin, end in zip(alive, [0, *ends[:-1]], ends, strict=True):
            if owner[best] < 0:
                owner[best] = best
                taken = other[begin:end]
                owner[taken[owner[taken] < 0]] = best
    return owner


def _joined(at: Boxes, kind: Labels, distance: float) -> Labels:
    """Number the chains of boxes whose edges are at most `distance` apart."""
    tree = shapely.STRtree(shapely.box(*at.T))
    links: list[NDArray[np.int64]] = []
    waiting = 0
    for start in range(0, len(at), _BLOCK):
        one, other = _near(tree, at, np.arange(start, min(start + _BLOCK, len(at))), distance)
        near = (one < other) & (kind[one] == kind[other])
        one, other = one[near], other[near]
        near = _gap(at[one], at[other]) <= distance
        links.append(np.stack([one[near], other[near]]))
        waiting += links[-1].shape[1]
        if waiting > _MOST_PAIRS:
            # one link to the first of its chain says as much of a box as all its links
            chain = _chains(links, len(at))
            first = np.unique(chain, return_index=True)[1]
            links, waiting = [np.stack([first[chain], np.arange(len(at))])], len(at)
    return _chains(links, len(at))


def _chains(links: list[NDArray[np.int64]], n: int) -> Labels:
    one, other = np.concatenate([np.empty((2, 0), np.int64), *links], axis=1)
    graph = sparse.coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(n, n))
    chain = connected_components(graph, False)[1]
    return np.asarray(chain, dtype=np.int64)


def _near(tree: Any, at: Boxes, asked: Labels, reach: float) -> tuple[Labels, Labels]:
    """Pairs (asked, found) of boxes that are near when each side is moved by `reach`."""
    # one step further, as sums are rounded; the caller measures
    low = np.nextafter(at[asked, :2] - reach, -np.inf)
    high = np.nextafter(at[asked, 2:] + reach, np.inf)
    found = tree.query(shapely.box(*low.T, *high.T))
    return asked[found[0]], found[1]


def box_iou(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Intersection over union of boxes (..., 4) that broadcast; 0 where both are empty."""
    shared = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = shared.clip(0).prod(axis=-1)
    union = sum((boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (one, other)) - shared
    share: NDArray[np.float64] = np.divide(
        shared, union, out=np.zeros_like(shared), where=union > 0
    )
    return share


def _gap(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Distance between the edges of boxes, pair by pair; 0 where they touch or overlap."""
    between = np.maximum(one[:, :2], other[:, :2]) - np.minimum(one[:, 2:], other[:, 2:])
    distance: NDArray[np.float64] = np.hypot(*between.clip(0).T)
    return distance


def _checked(
    boxes: ArrayLike, scores: ArrayLike, label: ArrayLike | None
) -> tuple[Boxes, NDArray[np.float64], Labels]:
    """Boxes, scores and labels by number, or an error that says what is wrong with them."""
    at, score = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
    if at.size == 0:
        at = at.reshape(0, 4)
    if at.ndim != 2 or at.shape[1] != 4:
        raise ValueError(f"boxes must be (box, 4), {', '.join(CORNERS)}; got {at.shape}")
    kind = np.zeros(len(at)) if label is None else np.asarray(label)
    for name, values in (("scores", score), ("label", kind)):
        if values.shape != (len(at),):
            raise ValueError(f"{name} must be ({len(at)},), one for each box; got {values.shape}")
    _refuse(~np.isfinite(at).all(axis=1), "boxes hold NaN or infinity")
    _refuse((at[:, :2] > at[:, 2:]).any(axis=1), "boxes end before they begin: min > max")
    _refuse(np.isnan(score), "scores are NaN")
    return at, score, pd.factorize(kind, use_na_sentinel=False)[0]


def _refuse(bad: Any, what: str) -> None:
    if bad.any():
        raise ValueError(
            f"{np.count_nonzero(bad)} of {len(bad)} {what}, "
            f"the first at position {int(np.argmax(bad))}"
        )


def average_precision(
    truth: pd.DataFrame,
    found: pd.DataFrame,
    iou: float = 0.5,
    *,
    resamples: int = 0,
    seed: int = 0,
) -> "pd.Series[float]":
    """Mean average precision of detections: the area under precision over recall, by class.

    As for Pascal VOC since 2010 (Everingham et al. 2015, section 4.2): best first, a detection is
    right if its IoU with a box of its class that is not yet taken is at least `iou`; precision is
    made monotone.

    Parameters
    ----------
    truth, found
        Tables of boxes; ``score`` of `found` ranks.
    iou
        From 0 to 1.
    resamples
        With more than 0, ``low`` and ``high`` are the 5th and 95th percentile of the mean over so
        many draws of the images with replacement (bootstrap).
    seed
        Of these draws.

    Returns
    -------
    pandas.Series
        A value for each class that `truth` has, then ``mean``, ``low`` and ``high``.

    Examples
    --------
    >>> box = {"sample": 0, "x_min": 0, "y_min": 0, "x_max": 2, "y_max": 2, "label": "a"}
    >>> truth = pd.DataFrame([box])
    >>> float(average_precision(truth, truth.assign(score=0.9))["mean"])
    1.0
    """
    names = sorted(set(truth["label"]))
    if not names:
        raise ValueError("there is no box to find: the table of true boxes is empty")
    images = sorted({*truth["sample"], *found["sample"]})
    counts = np.ones((1, len(images)))
    if resamples:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), resamples)
        counts = np.vstack([counts, drawn])
    place = {image: i for i, image in enumerate(images)}
    areas = []
    for name in names:
        right = truth[truth["label"] == name]
        ranked = found[found["label"] == name].sort_values("score", ascending=False, kind="stable")
        hit = _hits(right, ranked, iou)
        weight = counts[:, [place[sample] for sample in ranked["sample"]]]
        total = counts[:, [place[sample] for sample in right["sample"]]].sum(axis=1)
        areas.append(_area(hit, weight, total))
    with np.errstate(all="ignore"):
        mean = np.nanmean(np.array(areas), axis=0)
    result = pd.Series([area[0] for area in areas], names).round(6)
    result["mean"] = float(mean[0])
    if resamples:
        result["low"], result["high"] = np.nanpercentile(mean[1:], [5, 95])
    return result


def _hits(truth: pd.DataFrame, ranked: pd.DataFrame, iou: float) -> NDArray[np.bool_]:
    """Which detections, best first, are right."""
    at = {
        sample: part[list(CORNERS)].to_numpy(np.float64) for sample, part in truth.groupby("sample")
    }
    free = {sample: np.ones(len(boxes), np.bool_) for sample, boxes in at.items()}
    hit = np.zeros(len(ranked), np.bool_)
    corners = ranked[list(CORNERS)].to_numpy(np.float64)
    for i, sample in enumerate(ranked["sample"]):
        if sample in at:
            overlap = box_iou(corners[i], at[sample]) * free[sample]
            best = int(overlap.argmax())
            if overlap[best] >= iou:
                hit[i], free[sample][best] = True, False
    return hit


def _area(
    hit: NDArray[np.bool_], weight: NDArray[np.float64], total: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area under monotone precision over recall, a row each of weights; NaN without a box."""
    right = np.cumsum(weight * hit, axis=1)
    seen = np.maximum(np.cumsum(weight, axis=1), 1e-9)
    precision = np.maximum.accumulate((right / seen)[:, ::-1], axis=1)[:, ::-1]
    area: NDArray[np.float64] = (precision * weight * hit).sum(axis=1)
    share: NDArray[np.float64] = np.divide(
        area, total, out=np.full(len(total), np.nan), where=total > 0
    )
    return share
