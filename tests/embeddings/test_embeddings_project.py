"""Maps: seeded, made from the graph that they are given, and clear about what they cannot do."""

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from workbench.embeddings import label_accuracy, neighbors, project


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    values = (x[:400] / 16).astype(np.float32)
    ids = [f"digit-{i}" for i in range(400)]
    features = xr.DataArray(values, dims=("sample", "feature"), coords={"sample": ids})
    return features, xr.DataArray(y[:400].astype(np.int64), dims="sample")


def test_umap_from_our_graph_is_trustworthy_and_repeats(digits):
    features, labels = digits
    graph = neighbors(features, k=15)
    first = project(features, neighbors=graph, seed=51)
    again = project(features, neighbors=graph, seed=51)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, project(features, neighbors=graph, seed=1))
    assert trustworthiness(features.values, first.values) > 0.95
    assert label_accuracy(neighbors(first, k=10), labels) > 0.9
    assert first.attrs["method"] == "umap"
    assert first.attrs["seed"] == 51
    assert first.attrs["seconds"] > 0
    assert first.sample.values[3] == "digit-3"


def test_umap_without_a_graph_finds_the_same_one(digits):
    features, _ = digits
    graph = neighbors(features, k=14)
    alone = project(features, seed=3, n_epochs=20)
    np.testing.assert_array_equal(alone, project(features, neighbors=graph, seed=3, n_epochs=20))


def test_pca_is_scikit_learns(digits):
    features, _ = digits
    expected = PCA(2, random_state=0).fit_transform(features.values)
    np.testing.assert_allclose(project(features, "pca", seed=0), expected, atol=1e-5)


def test_errors_say_what_would_be_right(digits):
    features, _ = digits
    with pytest.raises(ValueError, match="method='tsnee' is not known"):
        project(features, method="tsnee")
    with pytest.raises(ValueError, match="must come from the same data"):
        project(features, neighbors=neighbors(features[:50], k=5))
    with pytest.raises(ValueError, match=r"neighbors\(features, k=29\)"):
        project(features, neighbors=neighbors(features, k=5), n_neighbors=30)
