"""A few prototypes with soft labels stand for more classes than they are."""

import numpy as np
import pytest
import xarray as xr

from workbench import soft_prototypes


def two_prototypes(n):
    """The labels that cut the segment between two prototypes into `n` equal parts."""
    i = np.arange(1, n + 1)
    first = n * (n - 1) - i * (i - 1)
    return [[0.0], [1.0]], np.array([first, first[::-1]]) / first.sum()


def star(m):
    """A prototype in the middle of m - 1 others, and its 3 m - 2 classes: own ones and shared."""
    angle = 2 * np.pi * np.arange(m - 1) / (m - 1)
    places = np.r_[[[0.0, 0.0]], np.c_[np.cos(angle), np.sin(angle)]]
    outer = [(1 + i, 1 + (i + 1) % (m - 1)) for i in range(m - 1)]
    pairs = [*((0, 1 + i) for i in range(m - 1)), *outer]
    soft = np.zeros((m, 3 * m - 2))
    soft[np.arange(m), np.arange(m)] = 6
    for number, pair in enumerate(pairs, start=m):
        soft[list(pair), number] = 4
    return places, soft / soft.sum(axis=1, keepdims=True)


class TestClassify:
    @pytest.mark.parametrize("n", range(3, 51))
    def test_two_prototypes_cut_the_segment_into_equal_parts(self, n):
        edges = np.arange(1, n) / n
        points = np.r_[edges - 1e-9, edges + 1e-9, (np.arange(n) + 0.5) / n]
        found = soft_prototypes.classify(points[:, None], *two_prototypes(n))
        below, above, middle = np.split(found.values, [n - 1, 2 * n - 2])
        assert below.tolist() == list(range(n - 1))
        assert above.tolist() == list(range(1, n))
        assert middle.tolist() == list(range(n))

    @pytest.mark.parametrize("m", range(4, 11))
    def test_m_prototypes_separate_3m_minus_2_classes(self, m):
        side = np.linspace(-1.6, 1.6, 161)
        grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        found = soft_prototypes.classify(grid, *star(m), k=2)
        assert set(found.values) == set(range(3 * m - 2))

    def test_on_a_prototype_its_own_label_counts_alone(self):
        labels = [[0.6, 0.4], [0.0, 1.0]]
        assert soft_prototypes.classify([[0.0], [1.0]], [[0.0], [1.0]], labels).values.tolist() == [
            0,
            1,
        ]

    def test_one_neighbour_and_hard_labels_are_the_plain_rule(self):
        rng = np.random.default_rng(0)
        x, places = rng.normal(size=(50, 3)), rng.normal(size=(4, 3))
        nearest = np.linalg.norm(x[:, None] - places, axis=-1).argmin(axis=1)
        found = soft_prototypes.classify(x, places, np.eye(4), k=1)
        assert found.values.tolist() == nearest.tolist()

    def test_keeps_the_ids(self):
        x = xr.DataArray([[0.2]], dims=("sample", "feature"), coords={"sample": ["a"]})
        assert soft_prototypes.classify(x, *two_prototypes(3))["sample"].values.tolist() == ["a"]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (([[0.0]], [[0.0], [1.0]], [[1.0]]), r"soft labels are \(1, 1\) for 2 prototypes"),
            (([[0.0, 1.0]], [[0.0]], [[1.0]]), "as many features"),
            (([[0.0]], [[0.0]], [[-1.0]]), "0 or more"),
            (([[0.0]], [[0.0]], [[1.0]], 2), "k=2 must be 1 to 1"),
        ],
    )
    def test_errors(self, arguments, says):
        with pytest.raises(ValueError, match=says):
            soft_prototypes.classify(*arguments)


class TestSoftLabelsFor:
    @pytest.mark.parametrize("m", [4, 7])
    def test_finds_labels_for_3m_minus_2_classes(self, m):
        places, soft = star(m)
        side = np.linspace(-1.6, 1.6, 9)
        grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        side_by_side = soft_prototypes.classify(grid, places, soft, k=2).values
        found = soft_prototypes.soft_labels_for(places, grid, side_by_side, k=2)
        assert found.shape[0] == m
        assert np.allclose(found.sum(axis=1), 1)
        again = soft_prototypes.classify(grid, places, found, k=2)
        assert again.values.tolist() == side_by_side.tolist()

    def test_says_where_there_are_none(self):
        with pytest.raises(ValueError, match="no soft labels of 1 prototypes"):
            soft_prototypes.soft_labels_for([[0.0]], [[1.0], [2.0]], [0, 1])

    def test_labels_must_be_class_numbers(self):
        with pytest.raises(ValueError, match="whole numbers"):
            soft_prototypes.soft_labels_for([[0.0]], [[1.0]], [0.5])
