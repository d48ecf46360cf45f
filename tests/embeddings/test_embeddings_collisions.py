"""Planted collisions and near-duplicates are found, nothing else is."""

import numpy as np
import pytest
import xarray as xr

from workbench.embeddings import collisions, duplicates, neighbors


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 10))
    points = values[:, :2] * 10 + rng.normal(scale=0.01, size=(300, 2))
    values[7], values[8] = 5.0, -5.0  # far apart in truth, ...
    points[7] = points[8] = [3.0, 3.0]  # ... on one spot of the map
    values[20] = values[21] = 1.0  # the same image twice, on one spot as it should be
    points[20] = points[21] = [-4.0, -4.0]
    return (
        xr.DataArray(values, dims=("sample", "feature"), coords={"sample": np.arange(300) + 1000}),
        xr.DataArray(points, dims=("sample", "axis")),
    )


def test_the_planted_pair_comes_first_and_duplicates_are_left_out(planted):
    features, xy = planted
    found = collisions(features, xy, n=5)
    first = found.iloc[0]
    assert (first["first"], first["second"]) == (7, 8)
    assert (first["first_id"], first["second_id"]) == (1007, 1008)
    assert first["map_distance"] == 0
    assert first["distance"] == pytest.approx(np.sqrt(10) * 10)
    assert first["percentile"] > 99
    assert (found["percentile"] >= 50).all()
    assert found["map_distance"].is_monotonic_increasing
    everything = collisions(features, xy, n=300, far=0)
    assert not ((everything["first"] == 20) & (everything["second"] == 21)).any()
    used = np.concatenate([everything["first"], everything["second"]])
    assert len(np.unique(used)) == len(used)


def test_percentiles_are_those_of_all_pairs(planted):
    features, xy = planted
    found = collisions(features, xy, n=10, far=0)
    one, other = np.triu_indices(300, 1)
    every = np.linalg.norm(features.values[one] - features.values[other], axis=1)
    for row in found.itertuples():
        assert row.percentile == pytest.approx((every < row.distance - 1e-12).mean() * 100)


def test_a_map_without_collisions_gives_an_empty_table_with_its_columns():
    line = xr.DataArray(np.arange(50.0)[:, None], dims=("sample", "feature"))
    with pytest.warns(UserWarning, match=r"0 of 20 pairs: .*far=50 .*percentile 3\d"):
        found = collisions(line, line.rename(feature="axis"))
    assert len(found) == 0
    assert "percentile" in found


def test_collision_errors(planted):
    features, xy = planted
    with pytest.raises(ValueError, match="the points hold 10 samples"):
        collisions(features, xy[:10])
    with pytest.raises(ValueError, match="far=101"):
        collisions(features, xy, far=101)


def test_duplicate_groups_follow_chains_and_are_numbered_in_order():
    points = xr.DataArray(
        np.array([50.0, 0.0, 0.1, 0.2, 10.0, 10.0, 30.0])[:, None], dims=("sample", "feature")
    )
    graph = neighbors(points, k=2)
    assert duplicates(graph, threshold=0.15).values.tolist() == [-1, 0, 0, 0, 1, 1, -1]
    assert duplicates(graph, threshold=0).values.tolist() == [-1, -1, -1, -1, 0, 0, -1]
    with pytest.raises(ValueError, match="threshold=-1"):
        duplicates(graph, threshold=-1)


def test_the_default_threshold_finds_planted_copies_only():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 20))
    values[150] = values[3] + 1e-3
    features = xr.DataArray(
        values, dims=("sample", "feature"), coords={"sample": [f"i{n}" for n in range(200)]}
    )
    group = duplicates(neighbors(features, k=5))
    assert np.flatnonzero(group >= 0).tolist() == [3, 150]
    assert group.sel(sample="i3") == group.sel(sample="i150") == 0
    assert group.attrs["threshold"] > 0


@pytest.mark.parametrize("share", [0.05, 0.6, 1.0])
@pytest.mark.parametrize("copies", [1, 3])
def test_the_default_threshold_finds_copies_however_many_there_are(share, copies):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 8))
    own = np.concatenate([np.arange(400), np.tile(np.arange(int(400 * share)), copies)])
    near = values[own] + np.where(np.arange(len(own)) < 400, 0, 0.02)[:, None] * rng.normal(
        size=(len(own), 8)
    )
    group = duplicates(neighbors(xr.DataArray(near, dims=("sample", "feature")), k=10)).values
    found = group >= 0
    assert (found == (own < int(400 * share))).all()
    for members in (own[group == number] for number in np.unique(group[found])):
        assert len(set(members)) == 1
        assert len(members) == copies + 1


def test_the_default_threshold_finds_nothing_where_there_are_no_copies():
    for dimensions in (2, 8, 60):
        values = np.random.default_rng(dimensions).normal(size=(500, dimensions))
        graph = neighbors(xr.DataArray(values, dims=("sample", "feature")), k=10)
        assert (duplicates(graph).values == -1).all()


def test_constant_features_are_all_duplicates():
    graph = neighbors(xr.DataArray(np.ones((10, 2)), dims=("sample", "feature")), k=9)
    assert duplicates(graph).values.tolist() == [0] * 10
