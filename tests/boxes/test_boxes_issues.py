"""Suspect boxes: what each kind looks like, and that a score is its image's own."""

import numpy as np
import pandas as pd
import pytest

from workbench import boxes
from workbench.boxes.issues import iou, match


def box(x, y=0, size=10, label="a", sample="one", **others):
    corners = {"x_min": x, "y_min": y, "x_max": x + size, "y_max": y + size}
    return {"sample": sample, "label": label, **corners, **others}


def scene(rng, sample, n=12):
    """Boxes that do not touch, and a detector's predictions of them with noise."""
    at = rng.choice(100, n, replace=False)
    truth = [box(40 * (k % 10), 40 * (k // 10), 24, "ab"[k % 2], sample) for k in at]
    seen = []
    for one in truth:
        dx, dy = rng.normal(0, 1.5, 2)
        moved = box(one["x_min"] + dx, one["y_min"] + dy, 24, one["label"], sample)
        seen.append(moved | {"score": rng.beta(8, 2)})
    return truth, seen


def test_each_kind_is_found_where_it_was_made():
    given = [box(0), box(100), box(200, label="b"), box(306), box(400)]
    seen = [box(0), box(200), box(300), box(400), box(500)]
    issues = boxes.find_box_issues(given, [one | {"score": 0.9} for one in seen])
    kinds = {
        (kind, b): s for kind, b, s in issues[["kind", "box", "score"]].itertuples(index=False)
    }
    assert kinds[("missing", -1)] == kinds[("swapped", 2)] == pytest.approx(0.9)
    assert kinds[("spurious", 1)] == 1
    assert kinds[("shifted", 3)] == pytest.approx(0.9 * (1 - 4 / 16))
    assert kinds[("shifted", 0)] == kinds[("shifted", 4)] == 0
    assert issues["score"].is_monotonic_decreasing
    swapped = issues[issues["kind"] == "swapped"].iloc[0]
    assert (swapped["given"], swapped["suggested"], swapped["prediction"]) == ("b", "a", 1)


def test_a_second_class_at_the_same_place_excuses_the_box():
    both = [box(0, label="b", score=0.5), box(0, label="a", score=0.6)]
    issues = boxes.find_box_issues([box(0, label="b")], both)
    assert issues["kind"].tolist() == ["swapped", "missing"]
    assert issues["score"].tolist() == pytest.approx([0.6 * 0.5, 0])


def test_a_score_is_its_images_own_and_nothing_elses():
    rng = np.random.default_rng(0)
    scenes = [scene(rng, f"s{i}") for i in range(6)]
    given = pd.DataFrame([one for truth, _ in scenes for one in truth[1:]])
    seen = pd.DataFrame([one for _, found in scenes for one in found])
    whole = boxes.find_box_issues(given, seen)
    for name in ("s0", "s5"):
        alone = boxes.find_box_issues(given[given["sample"] == name], seen[seen["sample"] == name])
        same = whole[whole["sample"] == name]
        columns = ["kind", "score", "given", "suggested"]
        pd.testing.assert_frame_equal(
            alone[columns], same[columns].reset_index(drop=True), check_exact=True
        )


def test_errors_come_before_what_is_right():
    rng = np.random.default_rng(1)
    given, seen, wrong = [], [], {"missing": set(), "swapped": set(), "shifted": set()}
    for i in range(40):
        truth, found = scene(rng, i)
        seen += found
        for j, one in enumerate(truth):
            fate = rng.choice(
                ["missing", "swapped", "shifted", "right"], p=[0.05, 0.05, 0.05, 0.85]
            )
            if fate == "missing":
                wrong[fate].add(len(seen) - len(found) + j)
                continue
            if fate == "swapped":
                one = one | {"label": "ba"["ab".index(one["label"])]}
            if fate == "shifted":
                one = one | {"x_min": one["x_min"] + 9, "x_max": one["x_max"] + 9}
            if fate != "right":
                wrong[fate].add(len(given))
            given.append(one)
    issues = boxes.find_box_issues(given, seen)
    for kind, rows in wrong.items():
        worst = issues[issues["kind"] == kind].head(len(rows))
        hits = worst["prediction" if kind == "missing" else "box"].isin(rows).sum()
        assert hits >= 0.9 * len(rows), kind


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="a score from 0 to 1"):
        boxes.find_box_issues([box(0)], [box(0)])


def test_nothing_gives_an_empty_table():
    issues = boxes.find_box_issues([], [])
    assert issues.empty
    assert {"sample", "kind", "score", "is_issue", "box", "prediction"} <= set(issues)


def test_overlap_and_matching_are_as_by_hand():
    one = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], float)
    assert iou(one, np.array([[5, 0, 15, 10.0], [0, 0, 0, 0]])).tolist() == [[1 / 3, 0], [0, 0]]
    worth = np.array([[0.9, 0.8], [0.8, 0.1]])
    assert match(worth, worth > 0) == ([0, 1], [1, 0])
    assert match(worth, worth > 0.85) == ([0], [0])


def test_a_part_of_a_box_is_not_missing_and_a_small_thing_on_it_is():
    seen = [box(0, size=40, score=0.9), box(5, 5, 10, score=0.8), box(20, 20, 8, "b", score=0.7)]
    issues = boxes.find_box_issues([box(0, size=40)], seen)
    missing = issues[issues["kind"] == "missing"].set_index("suggested")["score"]
    assert missing["a"] == 0
    assert missing["b"] == pytest.approx(0.7 * (1 - 64 / 1600))
