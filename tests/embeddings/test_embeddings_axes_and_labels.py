"""Maps in space, and maps that labels help to draw."""

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness

from workbench.embeddings import fit, label_accuracy, neighbors, project, umap_descent
from workbench.embeddings.umap_layout import fuzzy_graph, supervised


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    features = xr.DataArray((x[:500] / 16).astype(np.float32), dims=("sample", "feature"))
    return features, xr.DataArray(y[:500].astype(np.int64), dims="sample"), neighbors(features, 30)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("umap", {"n_epochs": 200}),
        ("tsne", {"perplexity": 10, "n_iter": 40, "early_exaggeration_iter": 60}),
        ("pca", {}),
        ("pacmap", {}),
    ],
)
def test_a_third_axis_keeps_more(digits, method, options):
    features, _, graph = digits
    made = fit(features, method, graph, components=3, **options)
    assert made.xy.shape == (500, 3)
    assert made.xy.attrs["components"] == 3
    flat = project(features, method, graph, **options)
    trust = [trustworthiness(features.values, xy.values) for xy in (flat, made.xy)]
    assert trust[1] > trust[0]
    if method != "pacmap":
        assert made.transform(features[:4]).shape == (4, 3)
        assert made.transform(features[:0]).shape == (0, 3)


def test_in_space_too_threads_change_nothing(digits, monkeypatch):
    features, _, graph = digits
    monkeypatch.setattr(umap_descent, "_FEW", 0)
    maps = []
    for threads in (1, 3):
        monkeypatch.setattr(umap_descent, "processors", lambda threads=threads: threads)
        xy = project(features, neighbors=graph, components=3, n_epochs=20)
        maps.append(xy.values.tobytes())
    assert maps[0] == maps[1]
    with pytest.raises(ValueError, match="2 or 3 axes"):
        project(features, neighbors=graph, components=4)


@pytest.mark.parametrize("weight", [0, 0.5, 1])
def test_the_supervised_graph_is_umap_learns(digits, weight):
    theirs = pytest.importorskip("umap.umap_")
    _, labels, graph = digits
    edges = fuzzy_graph(graph.index.values[:, :14], graph.distance.values[:, :14])
    some = np.where(np.arange(500) % 3, labels.values, -1)
    far = 2.5 / (1 - weight) if weight < 1 else 1e12
    expected = theirs.discrete_metric_simplicial_set_intersection(edges.copy(), some, far_dist=far)
    ours = supervised(edges, some, weight)
    assert abs(ours - expected).max() < 1e-6


def test_labels_draw_classes_apart_and_those_without_follow(digits):
    features, labels, graph = digits
    known = labels.where(np.arange(500) % 2 == 0, -1)
    accuracy = {}
    for name, given in (("none", None), ("half", known), ("all", labels)):
        xy = project(features, neighbors=graph, n_epochs=300, labels=given, target_weight=0.9)
        accuracy[name] = label_accuracy(neighbors(xy, k=10), labels)
    assert accuracy["all"] > 0.995 > accuracy["none"]
    assert accuracy["half"] >= accuracy["none"] - 0.01
    more = fit(features[:480], n_epochs=50, labels=labels[:480]).add(features[480:])
    assert more.xy.shape == (500, 2)
    for wrong in (labels.astype(float), labels[:4], labels - 2):
        with pytest.raises(ValueError, match="labels"):
            project(features, neighbors=graph, labels=wrong)
