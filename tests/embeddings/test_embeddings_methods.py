"""t-SNE, PaCMAP, parametric UMAP, and unseen samples on every map that takes them."""

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier

from workbench.embeddings import fit, neighbors, project

TSNE = {"n_iter": 250, "early_exaggeration_iter": 125}


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    # Shuffled: neighbouring digits are in one hand.
    ids = np.random.default_rng(0).permutation(len(x))[:700]
    features = xr.DataArray(
        (x[ids] / 16).astype(np.float32), dims=("sample", "feature"), coords={"sample": ids}
    )
    return features, y[ids]


@pytest.fixture(scope="module")
def graph(digits):
    return neighbors(digits[0][:500], k=90)


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "options", "trust", "placed"),
    [
        ("umap", {}, 0.96, 0.9),
        ("tsne", TSNE, 0.97, 0.9),
        ("pca", {}, 0.8, 0.5),
        ("parametric-umap", {"steps": 300, "progress": False}, 0.9, 0.7),
    ],
)
def test_unseen_digits_land_among_their_like(digits, graph, method, options, trust, placed):
    features, y = digits
    seen, unseen = features[:500], features[500:]
    made = fit(seen, method, graph, 1, **options)
    assert trustworthiness(seen.values, made.xy.values, n_neighbors=10) > trust
    new = made.transform(unseen)
    assert new.sample.values.tolist() == unseen.sample.values.tolist()
    assert (new.dims, new.dtype, new.attrs["method"]) == (("sample", "axis"), np.float32, method)
    votes = KNeighborsClassifier(5).fit(made.xy.values, y[:500])
    assert votes.score(new.values, y[500:]) > placed
    np.testing.assert_array_equal(new, made.transform(unseen))
    again = project(seen, method, graph, 1, **options)
    np.testing.assert_array_equal(made.xy, again)
    assert again.attrs["seconds"] >= 0


def test_unseen_samples_are_checked(digits, graph):
    made = fit(digits[0][:500], "pca", graph)
    with pytest.raises(ValueError, match="64 features, not 60"):
        made.transform(digits[0][:, :60])
    with pytest.raises(ValueError, match="NaN"):
        made.transform(digits[0][:3] * np.nan)
    assert made.transform(digits[0][:0]).shape == (0, 2)


@pytest.mark.long
def test_pacmap_uses_the_graph_repeats_and_says_what_it_cannot(digits, graph):
    seen = digits[0][:500]
    made = fit(seen, "pacmap", graph, 1, num_iters=50)
    np.testing.assert_array_equal(made.xy, project(seen, "pacmap", graph, 1, num_iters=50))
    assert trustworthiness(seen.values, made.xy.values, n_neighbors=10) > 0.93
    with pytest.raises(NotImplementedError, match="'pacmap' cannot place unseen"):
        made.transform(seen)
    with pytest.raises(ValueError, match="k=10"):
        project(seen, "pacmap", neighbors(seen, k=5))


@pytest.mark.long
def test_tsne_affinities_are_those_of_opentsnes_own_exact_search():
    from openTSNE.affinity import PerplexityBasedNN

    from workbench.embeddings import tsne

    values = np.random.default_rng(0).normal(size=(300, 8))
    graph = neighbors(xr.DataArray(values, dims=("sample", "feature")), k=60)
    theirs = PerplexityBasedNN(values, perplexity=20, method="exact").P
    kept = {"values": values, "index": graph["index"].values, "distance": graph["distance"].values}
    ours = PerplexityBasedNN(perplexity=20, knn_index=tsne._index(kept, "euclidean")).P
    assert abs(ours - theirs).max() < 1e-4 * theirs.max()


def test_an_unscaled_start_leaves_a_lump(digits, graph):
    bright = digits[0][:500] * 255
    wide = neighbors(bright, k=90)
    right, lump = (
        project(bright, "tsne", wide, initialization=kind, **TSNE)
        for kind in ("pca", "pca-unscaled")
    )
    start = pdist(project(bright, "pca"))
    kept = [spearmanr(start, pdist(xy)).statistic for xy in (right, lump)]
    assert kept[1] > 0.9 > 0.75 > kept[0], kept
    assert right.attrs["initialization"] == "pca"


def test_perplexity_errors_name_what_would_do(digits, graph):
    seen = digits[0][:500]
    with pytest.raises(ValueError, match=r"neighbors\(features, k=150\), or perplexity=30 or less"):
        project(seen, "tsne", graph, perplexity=50)
    with pytest.raises(ValueError, match="largest perplexity here is 6"):
        project(seen[:20], "tsne")
    with pytest.raises(ValueError, match="must be positive"):
        project(seen, "tsne", graph, perplexity=0)
    with pytest.raises(ValueError, match="initialization='pac'"):
        project(seen, "tsne", graph, initialization="pac")


@pytest.mark.parametrize("values", [np.ones((40, 3)), np.repeat(np.eye(5), 8, axis=0)])
def test_constant_and_duplicated_rows_give_finite_maps(values):
    features = xr.DataArray(values, dims=("sample", "feature"))
    for method, options in (("tsne", {"perplexity": 5, **TSNE}), ("pca", {})):
        assert np.isfinite(project(features, method, **options)).all()
    made = fit(features, "parametric-umap", steps=5, progress=False)
    assert np.isfinite(made.xy).all()


def test_graphs_of_other_samples_and_datasets_are_refused(digits, graph):
    features = digits[0]
    with pytest.raises(ValueError, match="100 of 500 ids of the features are not among"):
        project(features[100:600], neighbors=graph)
    with pytest.raises(TypeError, match="not a Dataset"):
        project(features.to_dataset(name="image"))
    with pytest.raises(ValueError, match="NaN"):
        project(features[:20] * np.nan, "pca")


@pytest.mark.long
def test_a_second_map_searches_nothing(digits, graph, monkeypatch):
    from workbench.embeddings import umap_layout

    monkeypatch.setattr(umap_layout, "find_neighbors", None)
    for method in ("umap", "pca", "pacmap"):
        options = {"umap": {"n_epochs": 2}, "pacmap": {"num_iters": 2}}.get(method, {})
        assert project(digits[0][:500], method, graph, **options).shape == (500, 2)


@pytest.mark.parametrize("n", [2, 3, 5, 14])
def test_few_samples_are_mapped_with_a_word(digits, n):
    with pytest.warns(UserWarning, match=f"{n} samples have {n - 1} neighbours each"):
        made = project(digits[0][:n], n_epochs=20)
    assert np.isfinite(made).all()


@pytest.mark.parametrize("n", [5, 20, 34])
def test_pacmap_takes_fewer_neighbours_of_few_samples(digits, n):
    with pytest.warns(UserWarning, match=f"{n} samples are too few for n_neighbors=10"):
        assert np.isfinite(project(digits[0][:n], "pacmap", num_iters=5)).all()
    with pytest.raises(ValueError, match="needs 5 samples or more, not 4"):
        project(digits[0][:4], "pacmap")


def test_own_samples_land_on_themselves_on_a_tsne_map(digits):
    """openTSNE centres its map anew while it places others; the places must not follow."""
    features = digits[0]
    made = fit(features, "tsne", perplexity=20)
    width = np.ptp(made.xy.values, axis=0).max()
    for _ in range(2):
        away = np.linalg.norm(made.transform(features).values - made.xy.values, axis=1)
        assert np.median(away) < 0.01 * width
