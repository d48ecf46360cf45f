import os
import pickle
import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from workbench import datasets


def test_classes_are_folders(photo_folder):
    ds = datasets.load(photo_folder)
    assert ds.image.shape == (9, 10, 20, 3)
    assert isinstance(ds.image.data, np.ndarray)
    assert ds["class"].values.tolist() == ["cat", "dog", "owl"]
    assert ds.label.values.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert ds.sample.values[3] == "dog/0.png"
    assert ds.path.values[3] == str(photo_folder / "dog" / "0.png")
    assert ds.image.sel(sample="dog/0.png")[0, 0].values.tolist() == [0, 255, 0]
    assert ds.attrs["name"] == "pets"
    assert ds.attrs["resized_to"] == [10, 20]
    assert str(photo_folder.parent) not in str(ds.attrs)
    assert "split" not in ds


def test_relative_path_and_string(photo_folder, monkeypatch):
    monkeypatch.chdir(photo_folder.parent)
    ds = datasets.load("pets")
    assert ds.path.values[0] == str(photo_folder / "cat" / "0.png")
    xr.testing.assert_identical(ds, datasets.load(photo_folder))


def test_deeper_folders_belong_to_the_first(photo_folder, picture):
    picture(photo_folder / "cat" / "indoor" / "sofa" / "1.JPG")
    ds = datasets.load(photo_folder)
    assert ds.label.sel(sample="cat/indoor/sofa/1.JPG") == 0


def test_numbered_classes_sort_by_number(tmp_path, picture):
    for number in (0, 1, 2, 10):
        picture(tmp_path / "n" / str(number) / "a.png")
    assert datasets.load(tmp_path / "n")["class"].values.tolist() == ["0", "1", "2", "10"]


def test_options(photo_folder, picture):
    assert datasets.load(photo_folder, size=8).image.shape == (9, 8, 8, 3)
    grey = datasets.load(photo_folder, size=(6, 12), mode="L", fit="stretch")
    assert grey.image.shape == (9, 6, 12, 1)
    assert grey.attrs["fit"] == "stretch"
    picture(photo_folder / "cat" / "large.png", size=(400, 300))
    assert datasets.load(photo_folder).image.shape == (10, 64, 64, 3)


def test_large_common_size_is_reduced(tmp_path, picture):
    picture(tmp_path / "f" / "a.png", size=(300, 300))
    assert datasets.load(tmp_path / "f").attrs["resized_to"] == [64, 64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "squash"}, "fit='squash' is none of crop, pad, stretch"),
        ({"mode": "BGR"}, "mode='BGR'"),
        ({"on_bad": "ignore"}, "on_bad='ignore'"),
        ({"size": 0}, "size must be 1 or more"),
    ],
)
def test_bad_options(photo_folder, options, message):
    with pytest.raises(datasets.BadDataError, match=message):
        datasets.load(photo_folder, **options)


@pytest.mark.parametrize("options", [{"size": 2.5}, {"size": (1, 2, 3)}, {"label": "x"}])
def test_options_of_the_wrong_kind(photo_folder, options):
    with pytest.raises(TypeError):
        datasets.load(photo_folder, **options)


def test_flat_folder_has_no_labels(tmp_path, picture):
    for number in range(3):
        picture(tmp_path / "f" / f"{number}.png")
    ds = datasets.load(tmp_path / "f")
    assert ds.label.values.tolist() == [-1, -1, -1]
    assert ds.sizes["class"] == 0
    assert datasets.load(tmp_path / "f", n=2).sizes["sample"] == 2


def test_loose_files_beside_classes(photo_folder, picture):
    picture(photo_folder / "loose.png")
    with pytest.warns(
        datasets.SkippedWarning, match=r"1 images lie in no class.*loose.png"
    ) as seen:
        ds = datasets.load(photo_folder)
    assert seen[0].filename == __file__
    assert ds.label.sel(sample="loose.png") == -1
    assert ds.sizes["class"] == 3


def test_other_and_hidden_files_are_ignored(photo_folder):
    (photo_folder / "notes.txt").write_text("x")
    (photo_folder / "cat" / "Thumbs.db").write_text("x")
    (photo_folder / "cat" / "._0.png").write_text("x")
    (photo_folder / ".cache").mkdir()
    (photo_folder / "__MACOSX").mkdir()
    ds = datasets.load(photo_folder)
    assert ds.sizes["sample"] == 9
    assert ds.attrs["ignored_files"] == 2


def test_splits(photo_folder, tmp_path, picture):
    root = tmp_path / "split"
    root.mkdir()
    photo_folder.rename(root / "train")
    picture(root / "test" / "owl" / "9.png", size=(20, 10))
    picture(root / "validation" / "cat" / "9.png", size=(20, 10))
    assert datasets.splits(root) == ("train", "val", "test")
    ds = datasets.load(root)
    assert ds["class"].values.tolist() == ["cat", "dog", "owl"]
    assert ds.split.sel(sample="validation/cat/9.png") == "val"
    test = datasets.load(root, split="test")
    assert test.sample.values.tolist() == ["test/owl/9.png"]
    assert test.label.values.tolist() == [2]
    assert test["class"].values.tolist() == ["cat", "dog", "owl"]
    assert datasets.load(root, split="train").sizes["sample"] == 9
    assert datasets.load(root, split="val").sizes["sample"] == 1


def test_no_such_split(photo_folder):
    assert datasets.splits(photo_folder) == ()
    with pytest.raises(datasets.BadDataError, match=r'not divided into splits.*use split="all"'):
        datasets.load(photo_folder, split="test")


def test_empty_folder(tmp_path):
    (tmp_path / "e").mkdir()
    with pytest.raises(datasets.BadDataError, match="holds no image; it has no files"):
        datasets.load(tmp_path / "e")
    (tmp_path / "e" / "a.txt").write_text("x")
    with pytest.raises(datasets.BadDataError, match=r"it has a.txt"):
        datasets.load(tmp_path / "e")


def test_class_with_no_images(photo_folder):
    (photo_folder / "yak").mkdir()
    with pytest.warns(datasets.SkippedWarning, match="make no class: yak"):
        ds = datasets.load(photo_folder)
    assert ds["class"].values.tolist() == ["cat", "dog", "owl"]


def test_split_and_class_with_no_images(photo_folder, tmp_path):
    root = tmp_path / "split"
    root.mkdir()
    photo_folder.rename(root / "train")
    (root / "test").mkdir()
    (root / "train" / "yak").mkdir()
    with pytest.warns(datasets.SkippedWarning, match="make no class: test, train/yak"):
        assert set(datasets.load(root).split.values) == {"train"}


def test_missing_folder_and_file_of_another_kind(tmp_path):
    with pytest.raises(datasets.DataNotFoundError, match=r"nothing at .*none"):
        datasets.load(tmp_path / "none")
    (tmp_path / "a.zip").write_text("x")
    with pytest.raises(datasets.BadDataError, match=r"a.zip is a file of another kind"):
        datasets.load(tmp_path / "a.zip")


@pytest.fixture
def spoilt(photo_folder):
    """One picture cut off, one that is none, one empty."""
    cut = photo_folder / "cat" / "1.png"
    cut.write_bytes(cut.read_bytes()[:50])
    (photo_folder / "dog" / "2.png").write_text("<html>")
    (photo_folder / "owl" / "0.png").write_bytes(b"")
    return photo_folder


def test_bad_images_are_skipped_and_reported(spoilt):
    with pytest.warns(datasets.SkippedWarning) as seen:
        ds = datasets.load(spoilt)
    assert seen[0].filename == __file__
    message = str(seen[0].message)
    assert "3 images could not be read" in message
    assert f"{spoilt / 'owl' / '0.png'}: the image is empty" in message
    assert ds.sizes["sample"] == 6
    assert "cat/1.png" not in ds.sample
    assert ds.label.values.tolist() == [0, 0, 1, 1, 2, 2]
    assert ds.image.sel(sample="dog/1.png")[0, 0].values.tolist() == [0, 255, 0]
    assert ds.attrs["skipped"] == 3
    assert ds.attrs["skipped_paths"][0] == str(spoilt / "cat" / "1.png")


def test_bad_images_raise_if_wanted(spoilt):
    with pytest.raises(datasets.BadImageError, match=r"cat/1.png") as seen:
        datasets.load(spoilt, on_bad="raise")
    again = pickle.loads(pickle.dumps(seen.value))
    assert (again.where, str(again)) == (seen.value.where, str(seen.value))


def test_nothing_left_of_a_class_or_at_all(photo_folder):
    for path in photo_folder.glob("cat/*"):
        path.write_text("no")
    with pytest.raises(datasets.BadDataError, match="no image is left of class cat"):
        datasets.load(photo_folder)
    for path in photo_folder.glob("*/*"):
        path.write_text("no")
    with pytest.raises(datasets.BadDataError, match="no image is left: 9 images"):
        datasets.load(photo_folder)


def test_unreadable_file(photo_folder):
    (photo_folder / "cat" / "gone.png").symlink_to(photo_folder / "nowhere.png")
    assert datasets.load(photo_folder).attrs["ignored_files"] == 1


def test_links_in_a_circle(photo_folder):
    (photo_folder / "cat" / "up").symlink_to(photo_folder, target_is_directory=True)
    assert datasets.load(photo_folder).sizes["sample"] == 9


def test_class_that_is_a_link(photo_folder, tmp_path, picture):
    picture(tmp_path / "elsewhere" / "1.png")
    (photo_folder / "fox").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert "fox/1.png" in datasets.load(photo_folder).sample


def test_sha_follows_content_and_names(photo_folder, picture):
    before = datasets.load(photo_folder).attrs["sha256"]
    assert datasets.load(photo_folder).attrs["sha256"] == before
    picture(photo_folder / "cat" / "1.png", color="black")
    assert datasets.load(photo_folder).attrs["sha256"] != before


def test_lazy_is_the_same_as_eager(photo_folder):
    eager, lazy = (
        datasets.load(photo_folder, size=7),
        datasets.load(photo_folder, size=7, lazy=True),
    )
    assert isinstance(lazy.image.data, da.Array)
    xr.testing.assert_equal(lazy.compute(), eager)
    np.testing.assert_array_equal(lazy.image[4], eager.image[4])
    np.testing.assert_array_equal(lazy.image[[7, 2], 1:3, :, 0], eager.image[[7, 2], 1:3, :, 0])
    np.testing.assert_array_equal(lazy.image[::-2, ::2], eager.image[::-2, ::2])
    assert lazy.image.mean().compute() == eager.image.mean()
    by_class = lazy.sel(sample=lazy.label == 1)
    assert by_class.image.compute().shape == (3, 7, 7, 3)


def test_lazy_reads_only_what_is_asked_for(spoilt):
    ds = datasets.load(spoilt, lazy=True, on_bad="raise")
    assert ds.image.sel(sample="cat/0.png").values[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(datasets.BadImageError, match=r"cat/1.png"):
        ds.image.sel(sample="cat/1.png").compute()


def test_lazy_bad_images_are_blank_and_named(spoilt):
    ds = datasets.load(spoilt, lazy=True)
    with pytest.warns(datasets.SkippedWarning, match=r"left blank: 3 images(.|\n)*cat/1.png"):
        image = ds.image.values
    assert ds.sizes["sample"] == 9
    assert image[1].max() == 0
    assert image[0].max() == 255


@pytest.mark.long
def test_a_hundred_thousand_files(tmp_path, picture):
    one = picture(tmp_path / "one.jpg", size=(16, 16))
    for k in range(20):
        (tmp_path / "many" / f"class{k:02}").mkdir(parents=True)
    per_file = 1000  # a file system allows only so many links to one file
    for number in range(100_000):
        if number % per_file == 0:
            source = tmp_path / f"{number}.jpg"
            source.write_bytes(one.read_bytes())
        os.link(source, tmp_path / "many" / f"class{number % 20:02}" / f"{number:06}.jpg")
    (tmp_path / "many" / "class07" / "zz.jpg").write_text("broken, and never opened")
    ds = datasets.load(tmp_path / "many", on_bad="raise")
    assert ds.image.shape == (100_001, 16, 16, 3)
    assert isinstance(ds.image.data, da.Array)
    assert len(ds.image.data.dask) <= 1000
    assert ds.image[77_777].values[0, 0, 0] > 250
    few = datasets.load(tmp_path / "many", n=40, seed=1)
    assert isinstance(few.image.data, np.ndarray)
    assert np.bincount(few.label).tolist() == [2] * 20


def test_zarr_round_trip(photo_folder, tmp_path, picture):
    picture(tmp_path / "flat" / "a.png")
    for name, folder in (("a", photo_folder), ("b", tmp_path / "flat")):
        for lazy in (False, True):
            ds = datasets.load(folder, lazy=lazy, n=1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Zarr's notes on its string type
                ds.to_zarr(tmp_path / f"{name}{lazy}.zarr")
            back = xr.load_dataset(tmp_path / f"{name}{lazy}.zarr", engine="zarr")
            xr.testing.assert_identical(ds.compute(), back)
