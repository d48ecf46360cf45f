"""The neighbour graph against brute force, and its errors."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from workbench.embeddings import neighbors


def table(values):
    return xr.DataArray(np.asarray(values, dtype=np.float32), dims=("sample", "feature"))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(3, 60),
    width=st.integers(1, 8),
    metric=st.sampled_from(["euclidean", "cosine"]),
    seed=st.integers(0, 1000),
)
def test_distances_equal_brute_force(n, width, metric, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, width)).astype(np.float32) + np.float32(0.1)
    k = int(rng.integers(1, n))
    graph = neighbors(table(values), k=k, metric=metric)
    full = cdist(values.astype(np.float64), values.astype(np.float64), metric)
    np.fill_diagonal(full, np.inf)
    np.testing.assert_allclose(graph.distance, np.sort(full, axis=1)[:, :k], atol=2e-5)
    picked = np.take_along_axis(full, graph.index.values, axis=1)
    np.testing.assert_allclose(picked, graph.distance, atol=2e-5)


def test_a_sample_is_not_its_own_neighbour_even_among_duplicates():
    values = np.repeat(np.random.default_rng(0).normal(size=(5, 7)), 4, axis=0)
    graph = neighbors(table(values), k=3)
    assert not (graph.index.values == np.arange(20)[:, None]).any()
    assert (graph.distance.values < 1e-6).all()
    assert (graph.index.values // 4 == (np.arange(20) // 4)[:, None]).all()


def test_keeps_the_samples_own_ids():
    features = table(np.eye(4)).assign_coords(sample=["a", "b", "c", "d"])
    assert list(neighbors(features, k=2).sample.values) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("k", [0, 4, 15])
def test_k_must_fit_the_data(k):
    with pytest.raises(ValueError, match="between 1 and 3"):
        neighbors(table(np.eye(4)), k=k)


def test_rows_that_are_not_finite_are_counted_and_the_first_named():
    values = np.ones((6, 2))
    values[3, 0] = np.nan
    values[5, 1] = np.inf
    with pytest.raises(ValueError, match=r"2 of 6 rows .* first at position 3"):
        neighbors(table(values), k=1)


def test_zero_rows_have_no_cosine():
    values = np.ones((4, 2))
    values[2] = 0
    with pytest.raises(ValueError, match="first at position 2"):
        neighbors(table(values), k=1, metric="cosine")


def test_unknown_metric_and_wrong_dims_are_named():
    with pytest.raises(ValueError, match="metric='hamming'"):
        neighbors(table(np.eye(3)), k=1, metric="hamming")
    with pytest.raises(ValueError, match="dims"):
        neighbors(xr.DataArray(np.eye(3), dims=("feature", "sample")), k=1)
