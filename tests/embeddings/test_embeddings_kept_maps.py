"""Maps that are kept: further samples settle on them, and files and pickles bring them back."""

import json
import pickle

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import load_digits

from workbench.embeddings import Projection, fit, neighbors, quality, umap_descent

SHORT = {
    "umap": {},
    "tsne": {"n_iter": 250},
    "pca": {"whiten": True},
    "parametric-umap": {"components": 3, "steps": 20, "hidden": (8,), "progress": False},
}


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:1100]
    ids = [f"digit-{i}" for i in order]
    features = xr.DataArray(
        (x[order] / 16).astype(np.float32), dims=("sample", "feature"), coords={"sample": ids}
    )
    return features, y[order]


@pytest.fixture(scope="module")
def made(digits):
    graph = neighbors(digits[0][:1000], k=90)
    return {
        method: fit(digits[0][:1000], method, graph, 1, **options)
        for method, options in SHORT.items()
    }


@pytest.mark.parametrize("method", SHORT)
def test_tomorrows_samples_land_alike_before_and_after_saving(digits, made, method, tmp_path):
    before = made[method]
    after = Projection.load(before.save(tmp_path / "deep" / "map"))
    xr.testing.assert_identical(after.xy.drop_attrs(), before.xy.drop_attrs())
    assert after.xy.attrs == json.loads(json.dumps(before.xy.attrs))
    placed = before.transform(digits[0][1000:])
    np.testing.assert_array_equal(after.transform(digits[0][1000:]), placed)
    pickled = pickle.loads(pickle.dumps(before))
    np.testing.assert_array_equal(pickled.transform(digits[0][1000:]), placed)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["map"]


@pytest.mark.parametrize(("method", "most"), [("umap", 0.01), ("tsne", 0.01), ("pca", 0)])
def test_a_tenth_more_settles_and_hardly_moves_the_rest(digits, made, method, most):
    features = digits[0]
    more = made[method].add(features[1000:])
    assert more.xy.sample.values.tolist() == features.sample.values.tolist()
    old = made[method].xy.values
    moved = np.linalg.norm(more.xy.values[:1000] - old, axis=1)
    assert np.median(moved) <= most * np.ptp(old, axis=0).max()
    refit = fit(features, method, neighbors(features, k=90), 1, **SHORT[method])
    kept, best = (quality(features, one.xy).value["neighbor_recall"] for one in (more, refit))
    assert kept > best - 0.01


def test_what_was_added_to_takes_more_and_extends_the_graph_exactly():
    values = np.random.default_rng(0).normal(size=(130, 5))
    features = xr.DataArray(values, dims=("sample", "feature"))
    twice = fit(features[:100], n_epochs=10).add(features[100:104]).add(features[104:])
    graph = neighbors(features, k=14)
    np.testing.assert_array_equal(twice._layout.arrays["index"], graph["index"])
    np.testing.assert_array_equal(twice._layout.arrays["distance"], graph["distance"])


def test_a_map_with_further_samples_is_the_same_on_any_number_of_threads(digits, made, monkeypatch):
    monkeypatch.setattr(umap_descent, "_FEW", 0)
    maps = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(umap_descent, "processors", lambda threads=threads: threads)
        maps.append(made["umap"].add(digits[0][1000:]).xy.values.tobytes())
    assert len(set(maps)) == 1


def test_samples_on_the_map_are_not_added_again(digits, made):
    with pytest.raises(ValueError, match=r"3 of 3 samples are on the map already.*digit-"):
        made["pca"].add(digits[0][:3])


def test_files_that_are_no_maps_are_refused(made, tmp_path):
    path = tmp_path / "map.npz"
    with pytest.raises(FileNotFoundError):
        Projection.load(path)
    path.write_text("text")
    with pytest.raises(FileExistsError, match="no saved map"):
        made["pca"].save(path)
    with pytest.raises(ValueError, match="is no map"):
        Projection.load(path)
    path.unlink()
    made["pca"].save(path)
    with np.load(made["umap"].save(path)) as file:
        entries = dict(file)
    for name, value, message in (
        ("layout/index", entries["layout/index"] + 1000, "none of 1000 samples"),
        ("layout/values", entries["layout/values"][:, 1:], "damaged: values"),
        ("layout/distance", entries["layout/distance"][:, 1:], "do not fit"),
        ("about", np.array("{}"), "is no map"),
        ("xy", np.array([{}], dtype=object), "is no map"),
    ):
        np.savez(path, **{**entries, name: value})
        with pytest.raises(ValueError, match=message):
            Projection.load(path)
    about = json.loads(str(entries["about"]))
    for change, message in (({"projection": 2}, "format 2"), ({"attrs": {"method": "x"}}, "'x'")):
        np.savez(path, **{**entries, "about": np.array(json.dumps({**about, **change}))})
        with pytest.raises(ValueError, match=message):
            Projection.load(path)
