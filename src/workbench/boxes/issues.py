"""Which boxes are suspect: missing, spurious, shifted or of a wrong class, by matching."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench._extras import need
from workbench.datasets.boxes import CORNERS, as_table
from workbench.datasets.detections import box_iou

#: Least overlap at which a prediction and a box are of one object, as the field's AP50 has it.
SAME = 0.5
#: Least overlap at which they may still be, one of them badly placed.
_NEAR = 0.1

Boxes = NDArray[np.float64]


def iou(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Intersection over union of every two boxes, (n, m); 0 where both are empty.

    Examples
    --------
    >>> iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2], [5, 5, 6, 6]])).round(2)
    array([[0.33, 0.  ]])
    """
    return box_iou(one[:, None], other[None])


def match(worth: NDArray[np.float64], possible: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """One-to-one pairs of rows and columns with the greatest sum of worths (Kuhn 1955)."""
    assign = need("scipy.optimize", extra="images").linear_sum_assignment
    rows, columns = assign(np.where(possible, worth, 0), maximize=True)
    kept = possible[rows, columns]
    return rows[kept].tolist(), columns[kept].tolist()


def find_box_issues(boxes: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Suspect boxes by one-to-one matching with a detector's predictions, worst first.

    In each image boxes and predictions are matched so that the sum of IoU times score is
    greatest. With s the prediction's score: one without a box is a ``missing`` box, s (1 - the
    share of it inside a box of its class, or its IoU with another); a box without a prediction is
    ``spurious``, 1 - its largest s IoU; one matched to another class is ``swapped``, s IoU (1 -
    the largest s IoU with its own class); every other is ``shifted``, s (1 - IoU). A score
    depends on its image alone.

    Parameters
    ----------
    boxes
        The table to check. Points are left out.
    predictions
        A table of a detector that did not learn these images, with ``score`` from 0 to 1, those
        of low score too, one box an object (:func:`workbench.rasters.merge_detections`).

    Returns
    -------
    pandas.DataFrame
        One row a box and a prediction without one: ``sample``, ``kind``, ``score``, ``is_issue``
        (``score`` of 0.5 and more), ``box`` and ``prediction`` (their rows, -1 for none),
        ``given`` and ``suggested`` (labels, "" for none), and the prediction's corners.

    Raises
    ------
    BadDataError
        A table contradicts itself.
    ValueError
        Scores of predictions are missing or out of range.

    Examples
    --------
    >>> box = {"sample": "a", "x_min": 0, "y_min": 0, "x_max": 9, "y_max": 9, "label": "cat"}
    >>> find_box_issues([box], [box | {"label": "dog", "score": 0.8}])[["kind", "score"]]
          kind  score
    0  swapped    0.8
    """
    given, found = as_table(boxes), as_table(predictions)
    if not found["score"].between(0, 1).all():
        raise ValueError("every prediction needs a score from 0 to 1")
    is_point = [own is not None and len(own) == 1 for own in given["points"]]
    given = given[~np.array(is_point, dtype=bool)]
    own = dict(list(found.groupby("sample")))
    rows = []
    for sample, part in given.groupby("sample"):
        rows += _of_image(part, own.pop(sample, found[:0]))
    for part in own.values():
        rows += _of_image(given[:0], part)
    names = ["sample", "kind", "score", "box", "prediction", "given", "suggested"]
    issues = pd.DataFrame(rows, columns=names).sort_values("score", ascending=False, kind="stable")
    issues.insert(3, "is_issue", issues["score"] >= 0.5)
    issues[CORNERS] = found[CORNERS].reindex(issues["prediction"]).to_numpy()
    return issues.reset_index(drop=True)


def _of_image(given: pd.DataFrame, found: pd.DataFrame) -> list[tuple[object, ...]]:
    """The issues of one image, a row for each box and each prediction without one."""
    corners = [boxes[CORNERS].to_numpy() for boxes in (given, found)]
    overlap = iou(*corners)
    score = found["score"].to_numpy()
    same_class = given["label"].to_numpy()[:, None] == found["label"].to_numpy()[None, :]
    weight = overlap * score
    explained = weight.max(axis=1, initial=0)
    own_class = np.where(same_class, weight, 0).max(axis=1, initial=0)
    partner = dict(zip(*match(weight, overlap >= _NEAR), strict=True))
    rows: list[tuple[object, ...]] = []
    for i, (index, sample, label) in enumerate(given[["sample", "label"]].itertuples()):
        if (j := partner.get(i)) is None:
            rows.append((sample, "spurious", 1 - explained[i], index, -1, label, ""))
            continue
        if not same_class[i, j] and overlap[i, j] >= SAME:
            kind, worth = "swapped", weight[i, j] * (1 - own_class[i])
        else:
            kind, worth = "shifted", score[j] * (1 - overlap[i, j])
        rows.append((sample, kind, worth, index, found.index[j], label, found["label"].iloc[j]))
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in corners]
    # of each prediction, the share of its area that lies inside each box
    inside = overlap / (1 + overlap) * (1 + areas[0][:, None] / np.maximum(areas[1], 1e-9))
    inside = inside.clip(max=1)
    covered = np.where(same_class, inside, overlap).max(axis=0, initial=0)
    for j in sorted(set(range(len(found))) - set(partner.values())):
        worth = score[j] * (1 - covered[j])
        sample, label = found[["sample", "label"]].iloc[j]
        rows.append((sample, "missing", worth, -1, found.index[j], "", label))
    return rows
