"""Clusters of a map: those that were planted, named by the classes in them."""

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from workbench.embeddings import clusters


@pytest.fixture(scope="module")
def blobs():
    centers = np.array([[0, 0], [20, 0], [0, 20], [20, 20], [10, 40]])
    points, own = make_blobs([800, 500, 300, 200, 100], centers=centers, random_state=0)
    ids = np.random.default_rng(0).permutation(len(points))
    xy = xr.DataArray(points, dims=("sample", "axis"), coords={"sample": ids})
    return xy, xr.DataArray(own, dims="sample", coords={"sample": ids})


def test_planted_groups_are_found_largest_first_and_follow_their_ids(blobs):
    xy, own = blobs
    found = clusters(xy, own, smoothing=0.04)
    assert adjusted_rand_score(own, found) > 0.99
    assert found.attrs["classes"] == [f"{i} 100 %" for i in range(5)]
    assert np.all(np.diff(np.bincount(found.values[found.values >= 0])) < 0)
    np.testing.assert_array_equal(clusters(xy, own[::-1], smoothing=0.04), found)


def test_names_are_shares_of_the_labelled(blobs):
    xy, own = blobs
    mixed = own.where(np.arange(len(own)) % 4 > 0, 4)
    mixed[own == 3] = -1
    mixed.attrs["classes"] = list("abcde")
    names = clusters(xy, mixed, smoothing=0.04).attrs["classes"]
    share = float((mixed[own == 0] == 4).mean())
    assert names[0] == f"a {1 - share:.0%}, e {share:.0%}".replace("%", " %")
    assert names[3] == "no label"
    assert clusters(xy).attrs["classes"][0] == "cluster 1"
    with pytest.raises(ValueError, match="smoothing=2"):
        clusters(xy, smoothing=2)
    with pytest.raises(ValueError, match="on a plane"):
        clusters(xr.DataArray(np.zeros((3, 3)), dims=("sample", "axis")))
