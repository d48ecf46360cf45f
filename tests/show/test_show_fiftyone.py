"""A real FiftyOne dataset in a real MongoDB."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from workbench import show

fo = pytest.importorskip("fiftyone")


@pytest.fixture(autouse=True, scope="module")
def _database():
    """Skip where a minimal system lacks what MongoDB is linked with; in CI that is a failure."""
    if not os.environ.get("CI") and not show.fiftyone_ready():
        pytest.skip("FiftyOne's database does not start here")


@pytest.fixture
def ds():
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"),
                      rng.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)),
            "label": ("sample", np.r_[np.arange(11) % 3, -1]),
            "split": ("sample", np.repeat(["test", "train"], 6)),
            "isolation": ("sample", np.linspace(0, 1, 12, dtype=np.float32)),
        },
        coords={"sample": np.arange(100, 112), "class": ["ant", "bee", "cow"]},
        attrs={"name": "toys", "sha256": "abc"},
    )  # fmt: skip


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
    assert made.name == "workbench-toys-run-7"
    assert not made.persistent
    assert "JupyterLab" in show.app_link(made)


def test_a_map_of_other_samples_is_refused(ds, xy):
    with pytest.raises(ValueError, match="'toys_map' has 5 samples and the dataset 12"):
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
