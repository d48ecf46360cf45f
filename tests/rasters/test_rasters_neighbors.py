"""Pairs within a distance, against comparing all with all."""

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from workbench.rasters.neighbors import pairs_within

# whole numbers: squares and their sums are exact, so that "included" can be tested
grid_points = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 60), st.just(2)), elements=st.integers(0, 30)
)


def brute_pairs(points, distance):
    """(first, second) of every pair at most `distance` apart, by comparing all with all."""
    apart = cdist(points, points)
    return {(i, j) for i, j in np.argwhere(apart <= distance).tolist() if i < j}


def as_set(table):
    pairs = set(zip(table["first"].tolist(), table["second"].tolist(), strict=True))
    assert len(pairs) == len(table), "a pair came twice"
    return pairs


class TestPairsWithin:
    @settings(deadline=None)
    @given(points=grid_points, distance=st.integers(0, 20))
    def test_the_same_pairs_as_brute_force(self, points, distance):
        table = pairs_within(points, distance)
        assert as_set(table) == brute_pairs(points, distance)
        expected = np.linalg.norm(points[table["first"]] - points[table["second"]], axis=1)
        np.testing.assert_array_equal(table["distance"], expected)

    def test_the_same_pairs_as_shapely(self):
        points = np.random.default_rng(0).uniform(0, 500, (2000, 2))
        tree = shapely.STRtree(shapely.points(points))
        first, second = tree.query(shapely.points(points), predicate="dwithin", distance=20)
        both = {(i, j) for i, j in zip(first.tolist(), second.tolist(), strict=True) if i < j}
        assert as_set(pairs_within(points, 20)) == both

    def test_a_grid_s_neighbours_are_counted(self):
        points = np.stack(np.meshgrid(np.arange(30), np.arange(20)), axis=-1).reshape(-1, 2)
        straight = 29 * 20 + 30 * 19
        assert len(pairs_within(points, 1)) == straight
        assert len(pairs_within(points, 1.5)) == straight + 2 * 29 * 19

    def test_points_on_one_spot(self):
        table = pairs_within(np.zeros((50, 2)), 0)
        assert len(table) == 50 * 49 // 2
        assert (table["distance"] == 0).all()

    def test_the_form_of_the_result(self):
        table = pairs_within([[0, 0], [3, 4]], 5)
        assert table.dtypes.astype(str).to_dict() == {
            "first": "int64",
            "second": "int64",
            "distance": "float64",
        }
        empty = pairs_within([[0, 0]], 5)
        assert list(empty.columns) == list(table.columns)
        assert len(empty) == 0

    def test_the_same_order_each_time(self):
        points = np.random.default_rng(1).uniform(0, 100, (500, 2))
        pd.testing.assert_frame_equal(pairs_within(points, 9), pairs_within(points.copy(), 9))

    def test_a_result_that_does_not_fit_is_refused_before_it_is_made(self):
        points = np.random.default_rng(2).uniform(0, 100, (5000, 2))
        # 12.5 million pairs of 24 bytes each
        with pytest.raises(ValueError, match=r"about 12,\d+,\d+ pairs .* 300 MB.*cKDTree"):
            pairs_within(points, 200, memory="100MiB")

    @pytest.mark.parametrize(
        ("points", "distance", "message"),
        [
            ([], 1, "no points"),
            (np.empty((0, 2)), 1, "no points"),
            ([1.0, 2.0], 1, r"must be \(point, 2\).*\(2,\)"),
            (np.zeros((3, 3)), 1, r"\(3, 3\)"),
            ([[0, 0], [np.nan, 1], [np.inf, 1]], 1, "2 of 3 points .* position 1"),
            ([[0, 0]], -1, "distance=-1"),
            ([[0, 0]], np.nan, "distance=nan"),
            ([[0, 0]], np.inf, "distance=inf"),
        ],
    )
    def test_bad_input(self, points, distance, message):
        with pytest.raises(ValueError, match=message):
            pairs_within(points, distance)
