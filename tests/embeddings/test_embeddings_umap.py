"""Our UMAP against umap-learn's parts and against the formulas."""

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import load_digits

from workbench.embeddings import (
    fit,
    label_accuracy,
    neighbors,
    project,
    umap_descent,
    umap_layout,
)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    features = xr.DataArray((x[:600] / 16).astype(np.float32), dims=("sample", "feature"))
    return features, neighbors(features, k=14), xr.DataArray(y[:600], dims="sample")


@pytest.mark.long
def test_the_fuzzy_graph_and_the_curve_are_umap_learns(digits):
    from umap.umap_ import find_ab_params, fuzzy_simplicial_set

    features, graph, _ = digits
    n = features.sizes["sample"]
    index = np.column_stack([np.arange(n), graph.index])
    distance = np.column_stack([np.zeros(n), graph.distance]).astype(np.float32)
    theirs = fuzzy_simplicial_set(
        features.values, 15, None, "euclidean", knn_indices=index, knn_dists=distance
    )[0]
    ours = umap_layout.fuzzy_graph(graph.index.values, graph.distance.values)
    assert abs(ours - theirs).max() < 1e-4
    assert umap_layout.curve(0.1, 1.0) == pytest.approx(find_ab_params(1.0, 0.1), rel=1e-5)


def test_memberships_sum_to_what_the_paper_says():
    distance = np.sort(np.random.default_rng(0).uniform(1, 2, (50, 14)), axis=1)
    strength = umap_layout.memberships(distance)
    np.testing.assert_allclose(strength.sum(axis=1), np.log2(15), atol=1e-4)
    np.testing.assert_array_equal(strength[:, 0], 1)


def test_tabulated_gradients_are_the_derivatives():
    a, b = umap_layout.curve(0.1, 1.0)
    d = np.array([0.01, 0.3, 1.0, 5.0, 40.0])
    step = 1e-6 * d

    def log_q(d):
        return -np.log1p(a * d ** (2 * b))

    slope = (log_q(d + step) - log_q(d - step)) / (2 * step)
    bits = np.square(d).astype(np.float32).view(np.int32)
    pull, push = umap_descent.gradient_tables(a, b, 1.0)
    slot = (bits >> 15) - ((127 - 24) << 8)
    np.testing.assert_allclose(pull[slot] * d, slope, rtol=4e-3)
    away = -slope / (a * d ** (2 * b)) * d**2 / (0.001 + d**2)
    np.testing.assert_allclose(push[slot] * d, away, rtol=8e-3)


@pytest.mark.long
def test_quality_is_umap_learns(digits):
    features, graph, labels = digits
    ours, theirs = (project(features, m, graph, seed=51) for m in ("umap", "umap-learn"))
    kept = [
        (neighbors(xy, k=14).index.values[:, :, None] == graph.index.values[:, None]).any(2).mean()
        for xy in (ours, theirs)
    ]
    assert kept[0] > kept[1] - 0.02
    accuracy = [label_accuracy(neighbors(xy, k=10), labels) for xy in (ours, theirs)]
    assert accuracy[0] > accuracy[1] - 0.02
    # The same start and the same forces: global shape agrees too.
    assert ours.values.std(axis=0) == pytest.approx(theirs.values.std(axis=0), rel=0.5)


def test_a_graph_in_parts_starts_from_components_and_keeps_the_parts_apart():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, (40, 5)), rng.normal(50, 1, (40, 5))])
    features = xr.DataArray(values, dims=("sample", "feature"))
    graph = neighbors(features, k=5)
    edges = umap_layout.fuzzy_graph(graph.index.values, graph.distance.values)
    assert umap_layout.spectral_start(edges, 0) is None
    xy = project(features, neighbors=graph)
    part = xr.DataArray(np.repeat([0, 1], 40), dims="sample")
    assert label_accuracy(neighbors(xy, k=5), part) == 1


@pytest.mark.parametrize("values", [np.ones((30, 4)), np.repeat(np.eye(5), 8, axis=0)])
def test_constant_and_duplicated_rows_give_a_finite_map(values):
    xy = project(xr.DataArray(values, dims=("sample", "feature")), n_epochs=50)
    assert np.isfinite(xy).all()
    assert len(np.unique(xy.values, axis=0)) > 5


def test_options_are_checked_and_recorded(digits):
    features, graph, _ = digits
    xy = project(features, neighbors=graph, n_epochs=5, init="pca", min_dist=0.5)
    assert (xy.attrs["n_epochs"], xy.attrs["init"], xy.attrs["min_dist"]) == (5, "pca", 0.5)
    assert xy.attrs["negative_sample_rate"] == 5
    with pytest.raises(ValueError, match="init='spektral'"):
        project(features, neighbors=graph, init="spektral")
    with pytest.raises(ValueError, match=r"shape \(600, 2\)"):
        project(features, neighbors=graph, init=np.zeros((3, 2)))
    with pytest.raises(TypeError, match="min_dits"):
        project(features, neighbors=graph, min_dits=0.5)


def test_one_seed_gives_the_same_bytes_on_any_number_of_threads(digits, monkeypatch):
    features, graph, _ = digits
    monkeypatch.setattr(umap_descent, "_FEW", 0)
    maps = []
    for threads in (1, 2, 4, 7):
        monkeypatch.setattr(umap_descent, "processors", lambda: threads)  # noqa: B023
        made = fit(features[:500], neighbors=neighbors(features[:500], k=14), n_epochs=60, seed=3)
        maps.append(made.xy.values.tobytes() + made.transform(features[500:]).values.tobytes())
    assert len(set(maps)) == 1
    other = project(features, neighbors=graph, n_epochs=60, seed=4)
    assert not np.allclose(other, project(features, neighbors=graph, n_epochs=60, seed=3))
