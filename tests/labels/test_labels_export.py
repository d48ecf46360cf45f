"""What is written is what ``datasets.load`` reads back, and nothing else is touched."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench import datasets, labels

NAMES = ("ant", "bee", "cow with horns", "ünïcode")
FEW = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
NAME = st.text("ab _é1", min_size=1, max_size=4).map(str.strip).filter(bool)


@st.composite
def photos(draw):
    """Relative paths of images in folders of classes, with subfolders and names that clash."""
    n = draw(st.integers(2, 8))
    files = {}
    for i in range(n):
        own = NAMES[draw(st.integers(0, 3))] if i > 1 else NAMES[i]
        below = draw(st.lists(NAME, max_size=1))
        place = "/".join([own, *below, f"{draw(NAME)}.png"])
        files.setdefault(place.lower(), place)
    return sorted(files.values())


def folder_of(root, files):
    for i, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 10 * i + 1, np.uint8)).save(root / file)
    return datasets.load(root)


def reviewed(ds, store, changes):
    """Every sample with its new label, by number."""
    labels.review_batch(ds, None, changes, store, progress=False)
    return labels.apply_decisions(ds, store)


def by_pixel(ds):
    """What tells samples apart whatever they are called: their colour."""
    return {
        int(image.flat[0]): str(ds["class"].values[label]) if label >= 0 else ""
        for image, label in zip(ds.image.values, ds.label.values, strict=True)
    }


@FEW
@given(files=photos(), seed=st.integers(0, 99))
def test_folders_tables_and_hugging_faces_layout_come_back(files, seed):
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        ds = folder_of(root / "mine", files)
        rng = np.random.default_rng(seed)
        new = rng.integers(0, ds.sizes["class"], len(files))
        changes = dict(zip(ds.sample.values, new, strict=True))
        fixed = reviewed(ds, root / "review.db", changes)
        out = labels.export(ds, root / "review.db", root / "out", progress=False)
        written = sorted(p for p in out.rglob("*") if p.is_file())
        assert len(written) == len(files)
        assert {p.read_bytes() for p in written} == {
            (root / "mine" / f).read_bytes() for f in files
        }
        assert {p.stem.rstrip("_0123456789") for p in written} == {
            Path(f).stem.rstrip("_0123456789") for f in files
        }
        again = datasets.load(out)
        assert by_pixel(again) == by_pixel(fixed)
        for suffix in (".csv", ".parquet"):
            table = labels.export(ds, root / "review.db", root / f"out{suffix}", progress=False)
            back = datasets.load(table, label="label", classes=list(ds["class"].values))
            assert back.label.values.tolist() == fixed.label.values.tolist()
            assert back["class"].values.tolist() == ds["class"].values.tolist()
            assert back["sample"].values.tolist() == ds["sample"].values.tolist()
            np.testing.assert_array_equal(back.image, fixed.image)
        hub = labels.export(
            ds, root / "review.db", root / "hub", layout="huggingface", progress=False
        )
        back = datasets.load(
            hub / "metadata.csv", image="file_name", label="label", classes=list(ds["class"].values)
        )
        assert back["sample"].values.tolist() == ds["sample"].values.tolist()
        assert back.label.values.tolist() == fixed.label.values.tolist()


@FEW
@given(flags=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=6))
def test_several_labels_an_image_come_back(flags):
    flags = np.array(flags)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        image = np.arange(len(flags), dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3))
        ds = xr.Dataset(
            {
                "image": (("sample", "y", "x", "channel"), image.astype(np.uint8)),
                "labels": (("sample", "class"), np.zeros_like(flags)),
            },
            coords={"sample": np.arange(len(flags)) + 7, "class": ["sea", "ship", "sky"]},
        )
        answers = {
            sample: np.flatnonzero(row).tolist()
            for sample, row in zip(ds.sample.values, flags, strict=True)
        }
        fixed = reviewed(ds, root / "review.db", answers)
        np.testing.assert_array_equal(fixed.labels, flags)
        assert not fixed.labels_given.any()
        table = labels.export(ds, root / "review.db", root / "out.parquet", progress=False)
        back = datasets.load(table, image="image", label=["sea", "ship", "sky"])
        np.testing.assert_array_equal(back.labels, flags)
        np.testing.assert_array_equal(back.image, ds.image)
        assert back["sample"].values.tolist() == ds["sample"].values.tolist()
        with pytest.raises(ValueError, match="several labels have no one folder"):
            labels.export(ds, root / "review.db", root / "out", progress=False)
        assert not (root / "out").exists()


def test_nothing_is_written_over_and_two_of_one_name_are_both_kept(tmp_path):
    files = ["cat/s1/img.png", "cat/s1_img.png", "cat/x.png", "dog/x.png", "dog/y.png"]
    ds = folder_of(tmp_path / "mine", files)
    fixed = reviewed(ds, tmp_path / "review.db", {"dog/x.png": "cat"})
    out = labels.export(ds, tmp_path / "review.db", tmp_path / "out", progress=False)
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png"))
    assert written == ["cat/s1/img.png", "cat/s1_img.png", "cat/x.png", "cat/x_2.png", "dog/y.png"]
    assert by_pixel(datasets.load(out)) == by_pixel(fixed)
    with pytest.raises(FileExistsError, match="out is there already"):
        labels.export(ds, tmp_path / "review.db", out, progress=False)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="link is there already"):
        labels.export(ds, tmp_path / "review.db", tmp_path / "link", progress=False)
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_excluded_images_are_left_out_and_unlabelled_ones_get_labels(tmp_path):
    ds = folder_of(tmp_path / "mine", ["cat/a.png", "dog/b.png", "dog/c.png"])
    ds = ds.assign(label=("sample", [-1, 1, -1]))
    with pytest.raises(ValueError, match=r"there is no given label for sample 'cat/a\.png'"):
        reviewed(ds, tmp_path / "review.db", {"cat/a.png": "given"})
    fixed = reviewed(ds, tmp_path / "review.db", {"cat/a.png": "dog", "dog/b.png": "exclude"})
    assert fixed.label.values.tolist() == [1, -1, -1]
    assert fixed.review.values.tolist() == ["changed", "excluded", ""]
    out = labels.export(ds, tmp_path / "review.db", tmp_path / "out", progress=False)
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png"))
    assert written == ["c.png", "dog/a.png"] or written == ["dog/a.png", "dog/c.png"]
