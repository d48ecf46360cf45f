import io
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from workbench import datasets
from workbench.datasets.boxes import image_of

pytest.importorskip("pyarrow")


def png(colour) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def table(tmp_path):
    """Write a table beside the pictures p0.png to p3.png: ``table("a.csv", label=[...])``."""
    for number in range(4):
        (tmp_path / f"p{number}.png").write_bytes(png((number, 0, 0)))

    def write(name="t.csv", **columns):
        path = tmp_path / name
        frame = pd.DataFrame(columns)
        if path.suffix == ".csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path)
        return path

    return write


FILES = [f"p{number}.png" for number in range(4)]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_paths_and_class_names(table, name, tmp_path):
    ds = datasets.load(table(name, path=FILES, label=["owl", "cat", None, "owl"]))
    assert ds.image.shape == (4, 4, 6, 3)
    assert ds.image[:, 0, 0, 0].values.tolist() == [0, 1, 2, 3]
    assert ds.label.values.tolist() == [1, 0, -1, 1]
    assert ds["class"].values.tolist() == ["cat", "owl"]
    assert ds.sample.values.tolist() == [0, 1, 2, 3]
    assert ds.path.values[2] == str(tmp_path / "p2.png")
    assert ds.attrs["name"] == "t"
    assert ds.attrs["source"] == f"table {name}"


@pytest.mark.parametrize("cell", [lambda b: b, lambda b: {"bytes": b, "path": None}])
def test_encoded_bytes(table, cell, tmp_path):
    images = [cell(png((number, 9, 9))) for number in range(4)]
    ds = datasets.load(table("t.parquet", image=images, label=[0, 1, 2, 1]))
    assert ds.image[:, 0, 0, 0].values.tolist() == [0, 1, 2, 3]
    assert ds.path.values[1].startswith(str(tmp_path / "t.parquet#column=image&row=1&size="))
    assert image_of(ds, 2, 512).tolist() == np.full((4, 6, 3), [2, 9, 9]).tolist()
    lazy = datasets.load(table("t.parquet", image=images, label=[0, 1, 2, 1]), lazy=True)
    xr.testing.assert_equal(lazy.compute(), ds)


def test_structs_with_paths(table, tmp_path):
    cells = [{"bytes": png((9, 9, 9)), "path": "old/a.png"}, {"bytes": None, "path": "p1.png"}]
    ds = datasets.load(table("t.parquet", image=cells))
    assert ds.image[:, 0, 0, 0].values.tolist() == [9, 1]
    assert ds.file_name.values.tolist() == ["old/a.png", ""]
    assert ds.path.values[1] == str(tmp_path / "p1.png")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_numbers_stay_numbers(table, name):
    ds = datasets.load(table(name, file=FILES, label=[2, 0, None, -1]))
    assert ds.label.values.tolist() == [2, 0, -1, -1]
    assert ds["class"].values.tolist() == ["0", "1", "2"]
    named = datasets.load(table(name, file=FILES, label=[2, 0, 1, 1]), classes=["a", "b", "c", "d"])
    assert named["class"].values.tolist() == ["a", "b", "c", "d"]
    assert named.label.values.tolist() == [2, 0, 1, 1]


def test_years_are_classes_by_rank(table):
    ds = datasets.load(table(path=FILES, label=[2020, 1999, 2020, 2001]))
    assert ds["class"].values.tolist() == ["1999", "2001", "2020"]
    assert ds.label.values.tolist() == [2, 0, 2, 1]


def test_booleans_are_class_names(table):
    ds = datasets.load(table("t.parquet", path=FILES, label=[True, False, True, True]))
    assert ds["class"].values.tolist() == ["False", "True"]
    assert ds.label.values.tolist() == [1, 0, 1, 1]


def test_classes_give_the_order_of_names(table):
    path = table(path=FILES, label=["b", "a", "b", "a"])
    assert datasets.load(path, classes=["b", "a"]).label.values.tolist() == [0, 1, 0, 1]
    with pytest.raises(datasets.BadDataError, match=r"row 1.*'a' is none of.*did you mean 'aa'"):
        datasets.load(path, classes=["b", "aa"])


def test_a_class_called_na_is_a_class(table):
    ds = datasets.load(table(path=FILES, label=["NA", "None", "null", ""]))
    assert ds["class"].values.tolist() == ["NA", "None", "null"]
    assert ds.label.values.tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize(
    ("label", "classes", "message"),
    [
        ([0, 1, -2, 1], None, r"row 2 .*-2 is not in 0 to 1"),
        ([0, 1, 5, 1], ["a", "b"], r"row 2 .*5 is not in 0 to 1, the numbers of 2 classes"),
    ],
)
def test_numbers_outside(table, label, classes, message):
    with pytest.raises(datasets.BadDataError, match=message):
        datasets.load(table(path=FILES, label=label), classes=classes)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_several_labels(table, name):
    path = table(name, path=FILES, sky=[1, 0, 1, 0], sea=[True, False, False, True], x=[1, 2, 3, 4])
    ds = datasets.load(path, label=["sky", "sea"])
    assert ds.labels.dims == ("sample", "class")
    assert ds.labels.dtype == bool
    assert ds.labels.values.astype(int).tolist() == [[1, 1], [0, 0], [1, 0], [0, 1]]
    assert ds["class"].values.tolist() == ["sky", "sea"]
    assert "label" not in ds
    assert datasets.load(path, label=["sky", "sea"], n=3).labels.shape == (3, 2)
    with pytest.raises(datasets.BadDataError, match=r"column 'x', row 1 .*neither 0 nor 1"):
        datasets.load(path, label=["sky", "x"])


def test_several_labels_may_not_be_blank(table):
    with pytest.raises(datasets.BadDataError, match=r"column 'sky', row 1 .*neither 0 nor 1"):
        datasets.load(table(path=FILES, sky=[1, None, 0, 0]), label=["sky"])


def test_without_labels(table):
    ds = datasets.load(table(filename=FILES))
    assert ds.label.values.tolist() == [-1] * 4
    assert ds.sizes["class"] == 0


def test_own_ids_and_splits(table):
    path = table(
        path=FILES, id=["007", "08", "9", "x"], split=["test", "train", "test", None], label=[0] * 4
    )
    ds = datasets.load(path, split="test")
    assert ds.sample.values.tolist() == ["007", "9"]
    assert datasets.splits(path) == ("train", "test")
    assert datasets.load(path).sizes["sample"] == 4
    with pytest.raises(datasets.BadDataError, match="has the splits train, test"):
        datasets.load(path, split="val")


def test_ids_that_are_not_unique_give_way_to_rows(table):
    assert datasets.load(table(path=FILES, id=[1, 1, 2, 3])).sample.values.tolist() == [0, 1, 2, 3]
    ds = datasets.load(table("t.parquet", path=FILES, id=[5, 1, 2, 3]))
    assert ds.sample.values.tolist() == [5, 1, 2, 3]


def test_no_splits(table):
    path = table(path=FILES)
    assert datasets.splits(path) == ()
    with pytest.raises(datasets.BadDataError, match="not divided into splits"):
        datasets.load(path, split="train")


def test_missing_columns(table):
    path = table(picture=FILES, lable=[0, 1, 0, 1])
    with pytest.raises(datasets.BadDataError, match=r"none of image, path.*it has picture, lable"):
        datasets.load(path)
    with pytest.raises(datasets.BadDataError, match=r"no column 'label'.*Did you mean 'lable'\?"):
        datasets.load(path, image="picture", label="label")
    assert datasets.load(path, image="picture", label="lable").sizes["class"] == 2


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_no_rows(table, name):
    with pytest.raises(datasets.BadDataError, match=r"columns path, label and no rows"):
        datasets.load(table(name, path=[], label=[]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b""),
        ("t.csv", b'path,label\n"a,1\n'),
        ("t.parquet", b"not parquet"),
    ],
)
def test_unreadable_tables(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(datasets.BadDataError, match="is not a readable"):
        datasets.load(tmp_path / name)


def test_missing_table(tmp_path):
    with pytest.raises(datasets.DataNotFoundError, match=r"nothing at .*none.csv"):
        datasets.load(tmp_path / "none.csv")


def test_missing_pictures_are_skipped_by_path_or_row(table, tmp_path):
    path = table(path=["p0.png", "gone.png", None, "p3.png"], label=[0, 0, 1, 1])
    with pytest.warns(datasets.SkippedWarning) as seen:
        ds = datasets.load(path)
    message = str(seen[0].message)
    assert f"{tmp_path / 'gone.png'}: No such file" in message
    assert "t.csv, row 2: no image is given" in message
    assert ds.sample.values.tolist() == [0, 3]
    with pytest.raises(datasets.BadImageError, match=r"gone.png"):
        datasets.load(path, on_bad="raise")


def test_images_of_another_kind(table):
    with pytest.raises(datasets.BadDataError, match=r"row 0 .*found int .3"):
        datasets.load(table("t.parquet", image=[3, 4]))


def test_byte_order_mark_and_absolute_paths(tmp_path, table):
    path = table(path=[str(tmp_path / "p1.png")], label=["a"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert datasets.load(path).image[0, 0, 0, 0] == 1


def test_zarr_round_trip(table, tmp_path):
    ds = datasets.load(table(path=FILES, a=[0, 1, 1, 0], id=list("wxyz")), label=["a"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr's notes on its string type
        ds.to_zarr(tmp_path / "ds.zarr")
    back = xr.load_dataset(tmp_path / "ds.zarr", engine="zarr")
    xr.testing.assert_identical(ds, back)
    assert back.labels.dtype == np.bool_
