"""A real FiftyOne dataset in a real MongoDB."""

import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from toys import toys

from workbench import show

fo = pytest.importorskip("fiftyone")
pytestmark = pytest.mark.usefixtures("fiftyone_database")


@pytest.fixture
def ds():
    return toys(12, 8, sha256="abc").assign(
        label=("sample", np.r_[np.arange(11) % 3, -1]),
        split=("sample", np.repeat(["test", "train"], 6)),
        isolation=("sample", np.linspace(0, 1, 12, dtype=np.float32)),
    )


@pytest.fixture
def xy():
    return xr.DataArray(np.random.default_rng(1).normal(size=(12, 2)), dims=("sample", "axis"))


def test_images_labels_tags_fields_and_maps_arrive(ds, xy):
    outlier = xr.DataArray(np.arange(12) == 3, dims="sample")
    assert show.fiftyone_ready()
    made = show.to_fiftyone(ds, "arrive", maps={"toys_map": xy}, tags={"outlier": outlier})
    assert made.match_tags("test").values("workbench_id") == [str(i) for i in range(100, 106)]
    assert made.match_tags("outlier").values("workbench_id") == ["103"]
    assert made.values("ground_truth.label")[:3] == ["ant", "bee", "cow"]
    assert made.values("ground_truth.label")[11] is None
    np.testing.assert_allclose(made.values("isolation"), ds.isolation)
    points = made.load_brain_results("toys_map").points
    np.testing.assert_allclose(points, xy)
    for i, file in enumerate(made.values("filepath")):
        np.testing.assert_array_equal(np.asarray(Image.open(file))[..., :1], ds.image[i])


def test_features_and_names_that_fiftyone_keeps_for_itself(ds):
    feats = xr.DataArray(np.eye(12, dtype=np.float32), dims=("sample", "feature"))
    clash = ds.assign(metadata=ds.label * 2, save=ds.label * 3)
    made = show.to_fiftyone(clash, "features", features=feats)
    np.testing.assert_array_equal(np.stack(made.values("features")), feats)
    assert made.values("ds_metadata") == clash.metadata.values.tolist()
    assert made.values("ds_save") == clash.save.values.tolist()
    assert made.default_classes == ["ant", "bee", "cow"]
    with pytest.raises(ValueError, match="'features' hold 5 samples and the dataset 12"):
        show.to_fiftyone(ds, "features", features=feats[:5])


def test_what_was_tagged_edited_and_deleted_comes_back(ds):
    made = show.to_fiftyone(ds, "back", progress=False)
    made.match_tags("test").limit(2).tag_samples("wrong")
    edited = made.skip(4).first()
    edited["ground_truth"] = fo.Classification(label="ant")
    edited.save()
    made.delete_samples(made.values("id")[7:9])
    seen = show.from_fiftyone(made, ds)
    assert seen.sample.values.tolist() == [100, 101, 102, 103, 104, 105, 106, 109, 110, 111]
    assert seen.sample.dtype == ds.sample.dtype
    assert seen.tag.values.tolist() == ["test", "train", "wrong"]
    assert seen.sample[seen.tags.sel(tag="wrong")].values.tolist() == [100, 101]
    assert seen.sample[seen.changed].values.tolist() == [104]
    expected = ds.label.sel(sample=seen.sample).copy()
    expected.loc[104] = 0
    np.testing.assert_array_equal(seen.label, expected)
    part = show.from_fiftyone(made.sort_by("isolation", reverse=True).limit(3), ds)
    assert part.sample.values.tolist() == [111, 110, 109]


def test_classes_keep_their_numbers_without_the_dataset_and_new_ones_come_last(ds):
    made = show.to_fiftyone(ds, "classes", progress=False)
    view = made.match_tags("test")
    assert show.from_fiftyone(made[1:3]).label.values.tolist() == [1, 2]
    edited = view.first()
    edited["ground_truth"].label = "bea"
    edited.save()
    with pytest.warns(UserWarning, match=r"'bea' is a new class \(did someone mean 'bee'"):
        seen = show.from_fiftyone(view, ds)
    assert seen["class"].values.tolist() == ["ant", "bee", "cow", "bea"]
    assert seen.label.values[0] == 3
    assert seen.changed.values.tolist() == [True] + [False] * 5


def test_several_labels_come_back(ds):
    rows = np.arange(36).reshape(12, 3) % 4 == 0
    several = ds.drop_vars("label").assign(labels=(("sample", "class"), rows))
    made = show.to_fiftyone(several, "several-back", progress=False)
    seen = show.from_fiftyone(made, several)
    np.testing.assert_array_equal(seen.labels, rows)
    assert not seen.changed.any()
    edited = made.first()
    edited["ground_truth"].classifications.append(fo.Classification(label="dog"))
    edited.save()
    with pytest.warns(UserWarning, match="'dog' is a new class"):
        seen = show.from_fiftyone(made, several)
    assert seen.labels.dims == ("sample", "class")
    assert seen.labels.values[0].tolist() == [*rows[0], True]
    assert seen.sample[seen.changed].values.tolist() == [100]


def test_unlabelled_images_and_empty_views_come_back(ds):
    bare = ds.drop_vars(["label", "split"]).drop_dims("class")
    made = show.to_fiftyone(bare, "bare", progress=False)
    seen = show.from_fiftyone(made, bare)
    assert sorted(map(str, seen.variables)) == ["sample", "tag", "tags"]
    assert seen.tags.shape == (12, 0)
    labelled = show.to_fiftyone(ds, "labelled", progress=False)
    assert show.from_fiftyone(labelled.limit(0).match_tags("none"), ds).sizes["sample"] == 0


def test_views_of_something_else_are_refused(ds):
    foreign = fo.Dataset("foreign")
    foreign.add_sample(fo.Sample("a.png"))
    with pytest.raises(ValueError, match="'foreign' have no field 'workbench_id'"):
        show.from_fiftyone(foreign)
    made = show.to_fiftyone(ds, "mixed", progress=False)
    with pytest.raises(ValueError, match=r"2 of 12 samples .* the first is '110'"):
        show.from_fiftyone(made, ds.isel(sample=slice(10)))
    made.add_sample(fo.Sample("a.png"))
    with pytest.raises(ValueError, match="1 of 13 samples were not put there"):
        show.from_fiftyone(made, ds)


def test_files_are_used_where_they_are(ds, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(12)]
    for file, image in zip(files, ds.image.values, strict=True):
        Image.fromarray(image[..., 0]).save(file)
    made = show.to_fiftyone(ds.assign(path=("sample", [str(f) for f in files])), "files")
    assert made.values("filepath") == [str(f) for f in files]


def test_running_again_replaces_its_own_dataset_and_nobody_elses(ds):
    show.to_fiftyone(ds, "again")
    assert len(show.to_fiftyone(ds.isel(sample=slice(5)), "again")) == 5
    fo.Dataset("somebody-elses")
    with pytest.raises(ValueError, match="'somebody-elses' that was not made here"):
        show.to_fiftyone(ds, "somebody-elses")
    assert fo.dataset_exists("somebody-elses")


@pytest.mark.parametrize("several", [False, True])
def test_a_dataset_edited_in_the_app_is_never_replaced(ds, several):
    if several:
        rows = np.eye(3, dtype=bool)[np.arange(12) % 3]
        ds = ds.drop_vars("label").assign(labels=(("sample", "class"), rows))
    made = show.to_fiftyone(ds, "edited")
    sample = made.match({"workbench_id": "104"}).first()
    sample.tags.append("wrong")
    sample.save()
    with pytest.raises(ValueError, match="'edited' has tags or labels that were edited"):
        show.to_fiftyone(ds, "edited")
    assert fo.load_dataset("edited").match_tags("wrong").values("workbench_id") == ["104"]
    sample.tags.remove("wrong")
    sample.save()
    assert len(show.to_fiftyone(ds, "edited")) == 12


def test_maps_tags_and_features_are_matched_by_id_and_keys_become_names(ds, xy):
    ids = {"sample": ds["sample"].values}
    outlier = xr.DataArray(np.arange(12) == 3, dims="sample", coords=ids)
    points = xy.assign_coords(ids)
    made = show.to_fiftyone(
        ds, "in-order", maps={"t-SNE, k=5": points[::-1]}, tags={"outlier": outlier[::-1]}
    )
    assert made.match_tags("outlier").values("workbench_id") == ["103"]
    np.testing.assert_allclose(made.load_brain_results("t_SNE__k_5").points, xy)
    with pytest.raises(ValueError, match="other samples"):
        show.to_fiftyone(ds, maps={"m": xy.assign_coords(sample=np.arange(12))})


def test_the_app_listens_to_this_machine_alone(ds, monkeypatch):
    """In a container FiftyOne's own default is the whole network, without a password."""
    asked = {}

    def launch(dataset, **options):
        asked.update(options)
        raise OSError("no browser here")

    monkeypatch.setattr(fo, "launch_app", launch)
    assert "did not start" in show.app_link(show.to_fiftyone(ds, "local"))
    assert asked["address"] == "127.0.0.1"


def test_multi_label_images_get_all_their_labels(ds):
    rows = np.array([[True, True, False], [False, False, False], [False, False, True]])
    several = ds.drop_vars("label").isel(sample=slice(3))
    several["labels"] = (("sample", "class"), rows)
    made = show.to_fiftyone(several, "several")
    names = made.values("ground_truth.classifications.label")
    assert names == [["ant", "bee"], [], ["cow"]]


def test_batch_runs_keep_apart_and_open_no_app(ds, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUN_ID", "run-7")
    made = show.to_fiftyone(ds)
    assert re.fullmatch(r"workbench-toys-[0-9a-f]{8}-run-7", made.name)
    other = ds.assign_attrs(sha256="abd")
    assert show.to_fiftyone(other).name != made.name
    assert not made.persistent
    assert "JupyterLab" in show.app_link(made)


def test_a_map_of_other_samples_is_refused(ds, xy):
    with pytest.raises(ValueError, match="'toys_map' hold 5 samples and the dataset 12"):
        show.to_fiftyone(ds, "refused", maps={"toys_map": xy[:5]})


def test_a_database_that_does_not_answer_is_a_warning_with_a_way_out():
    code = textwrap.dedent("""
        import warnings
        from workbench import show
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert not show.fiftyone_ready()
        texts = [str(w.message) for w in caught]
        assert any("FIFTYONE_DATABASE_URI" in text for text in texts), texts
    """)
    closed = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500"
    environment = {**os.environ, "FIFTYONE_DATABASE_URI": closed}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def test_fiftyone_imports_after_dask():
    """The backport of importlib.metadata that dask loads on Python 3.11 once broke this."""
    subprocess.run([sys.executable, "-c", "import dask, fiftyone"], check=True, timeout=120)


def test_processes_that_start_the_database_together_all_get_it(tmp_path):
    environment = {**os.environ, "FIFTYONE_DATABASE_DIR": str(tmp_path / "mongo")}
    code = "from workbench import show; assert show.fiftyone_ready()"
    together = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [process.wait(timeout=120) for process in together] == [0, 0, 0]
