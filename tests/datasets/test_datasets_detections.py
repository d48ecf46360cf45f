"""Merged detections against the textbook's loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.datasets import detections
from workbench.datasets.detections import CORNERS, merge_detections


def iou_of(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - shared
    return shared / union if union else 0.0


def gap_of(one, other):
    across = max(one[0] - other[2], other[0] - one[2], 0)
    down = max(one[1] - other[3], other[1] - one[3], 0)
    return (across**2 + down**2) ** 0.5


def textbook_nms(boxes, scores, threshold, label):
    """Positions that greedy suppression keeps, best first, each label for itself."""
    left = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    while left:
        best, *left = left
        kept.append(best)
        left = [
            i for i in left if label[i] != label[best] or iou_of(boxes[best], boxes[i]) <= threshold
        ]
    return kept


def textbook_chains(boxes, distance, label):
    """Sets of positions that are joined, by spreading from each box."""
    left, chains = set(range(len(boxes))), set()
    while left:
        edge = [left.pop()]
        chain = set(edge)
        while edge:
            at = edge.pop()
            near = {
                i for i in left if label[i] == label[at] and gap_of(boxes[at], boxes[i]) <= distance
            }
            left -= near
            chain |= near
            edge += near
        chains.add(frozenset(chain))
    return chains


@st.composite
def detected(draw):
    n = draw(st.integers(0, 25))
    side = st.integers(0, 12)
    corner = st.integers(0, 40)
    boxes = [(x, y, x + w, y + h) for x, y, w, h in draw(
        st.lists(st.tuples(corner, corner, side, side), min_size=n, max_size=n))]  # fmt: skip
    scores = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    label = draw(st.lists(st.sampled_from("ab"), min_size=n, max_size=n))
    return boxes, scores, label


def members(group):
    return {frozenset(np.flatnonzero(group == k).tolist()) for k in np.unique(group)}


class TestSuppression:
    @settings(deadline=None)
    @given(detected(), st.sampled_from([0, 0.1, 0.25, 0.5, 1]))
    def test_keeps_what_the_textbook_keeps(self, found, iou):
        boxes, scores, label = found
        merged = merge_detections(boxes, scores, iou=iou, label=label)
        assert merged.boxes["best"].tolist() == textbook_nms(boxes, scores, iou, label)
        kept = merged.boxes[list(CORNERS)].to_numpy().tolist()
        assert kept == [list(boxes[i]) for i in merged.boxes["best"]]
        for i, row in enumerate(merged.group):
            best = merged.boxes["best"][row]
            assert best == i or iou_of(boxes[best], boxes[i]) > iou

    def test_many_boxes_in_many_blocks(self):
        dice = np.random.default_rng(0)
        low = dice.uniform(0, 200, (700, 2))
        boxes = np.hstack([low, low + dice.uniform(5, 30, (700, 2))])
        scores = dice.random(700)
        merged = merge_detections(boxes, scores, iou=0.3)
        assert merged.boxes["best"].tolist() == textbook_nms(boxes, scores, 0.3, [0] * 700)

    def test_more_boxes_on_one_spot_than_a_block_holds(self):
        boxes = np.tile([10.0, 10.0, 20.0, 20.0], (600, 1))
        merged = merge_detections(boxes, np.arange(600), iou=0.5)
        assert merged.boxes[["best", "members"]].to_numpy().tolist() == [[599, 600]]

    def test_equal_scores_rank_in_the_order_given(self):
        merged = merge_detections([[0, 0, 9, 9], [0, 0, 9, 9]], [1, 1], iou=0.5)
        assert merged.boxes["best"].tolist() == [0]
        assert merged.group.tolist() == [0, 0]


class TestJoining:
    @settings(deadline=None)
    @given(detected(), st.integers(0, 6))
    def test_joins_what_spreading_joins(self, found, distance):
        boxes, scores, label = found
        merged = merge_detections(boxes, scores, distance=distance, label=label)
        chains = textbook_chains(boxes, distance, label)
        assert members(merged.group) == chains
        for row, chain in merged.boxes.iterrows():
            inside = np.array([boxes[i] for i in np.flatnonzero(merged.group == row)])
            around = [*inside[:, :2].min(axis=0), *inside[:, 2:].max(axis=0)]
            assert chain[list(CORNERS)].tolist() == around
            assert chain["members"] == len(inside)
            assert chain["score"] == max(np.array(scores)[merged.group == row])
        assert (np.diff(merged.boxes["score"]) <= 0).all()

    def test_reduced_links_join_the_same(self, monkeypatch):
        dice = np.random.default_rng(2)
        low = dice.uniform(0, 400, (1200, 2))
        boxes, scores = np.hstack([low, low + 6]), dice.random(1200)
        whole = merge_detections(boxes, scores, distance=4)
        monkeypatch.setattr(detections, "_MOST_PAIRS", 10)
        np.testing.assert_array_equal(
            merge_detections(boxes, scores, distance=4).group, whole.group
        )
        assert 1 < len(whole.boxes) < 1200

    def test_what_iou_cannot_join(self):
        cut = [[0, 0, 10, 10], [10, 0, 20, 10]]  # an object cut by the edge of a tile
        nested = [[0, 100, 40, 140], [10, 110, 20, 120]]  # IoU 1/16
        apart = [[200, 0, 210, 10], [215, 0, 225, 10]]
        boxes, scores = cut + nested + apart, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
        assert len(merge_detections(boxes, scores, iou=0.3).boxes) == 6
        assert members(merge_detections(boxes, scores, distance=0).group) == {
            frozenset({0, 1}), frozenset({2, 3}), frozenset({4}), frozenset({5}),
        }  # fmt: skip
        assert len(merge_detections(boxes, scores, distance=5).boxes) == 3
        assert len(merge_detections(boxes, scores, distance=4.99).boxes) == 4


def test_suppressed_boxes_do_not_stretch_what_is_joined():
    boxes = [[0, 0, 10, 10], [0, 0, 12, 10], [13, 0, 20, 10]]
    merged = merge_detections(boxes, [3, 1, 2], iou=0.5, distance=3)
    assert merged.boxes[list(CORNERS)].to_numpy().tolist() == [[0, 0, 20, 10]]
    assert merged.boxes[["best", "members"]].to_numpy().tolist() == [[0, 3]]
    # the suppressed box is 1 from the third; what is left of the first two is 3 away
    assert len(merge_detections(boxes, [3, 1, 2], iou=0.5, distance=2).boxes) == 2


def test_no_detection_is_an_empty_table():
    merged = merge_detections([], [], iou=0.5, distance=1)
    assert len(merged.boxes) == len(merged.group) == 0
    assert list(merged.boxes.columns) == [*CORNERS, "score", "best", "members"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 0, 1, 1]], [1]), "give iou, distance or both"),
        (([[0, 0, 1, 1]], [1], 1.5), "iou=1.5"),
        (([[0, 0, 1, 1]], [1], None, -1), "distance=-1"),
        (([[0, 0, 1, 1]], [1], None, float("nan")), "distance=nan"),
        (([[0, 0, 1]], [1], 0.5), r"boxes must be \(box, 4\).*\(1, 3\)"),
        (([[0, 0, 1, 1]], [1, 2], 0.5), r"scores must be \(1,\).*\(2,\)"),
        (([[0, 0, 1, 1]], [float("nan")], 0.5), "1 of 1 scores are NaN"),
        (([[0, 0, 1, 1], [0, 0, float("inf"), 1]], [1, 1], 0.5), "NaN or infinity, .* position 1"),
        (([[5, 0, 1, 1]], [1], 0.5), "end before they begin"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge_detections(*arguments)


def test_boxes_without_a_label_merge_with_one_another():
    boxes = np.tile([0.0, 0, 10, 10], (5, 1))
    labels = np.array(["a", None, "a", None, np.nan], object)
    merged = merge_detections(boxes, np.linspace(1, 0.5, 5), iou=0.5, label=labels)
    assert merged.group.tolist() == [0, 1, 0, 1, 1]
