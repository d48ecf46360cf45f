"""Patches and their annotations against the images that they come from."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench import datasets, store
from workbench.datasets.boxes import CORNERS, as_table
from workbench.datasets.errors import BadDataError
from workbench.store import split_regions


def table(*rows, **columns):
    """Boxes of the image "a", given as x, y, width, height."""
    at = np.array(rows, float).reshape(-1, 4)
    frame = pd.DataFrame(np.hstack([at[:, :2], at[:, :2] + at[:, 2:]]), columns=CORNERS)
    return as_table(frame.assign(**({"sample": "a"} | columns)))


def dataset(*images):
    pixels = np.stack(images)
    names = np.array(["a", "b", "c"][: len(images)])
    return datasets.dataset.build(pixels, sample=names, classes=(), attrs={"name": "made"})


def marked(shape, boxes):
    """True where a box is, by painting."""
    mask = np.zeros(shape, bool)
    for x_min, y_min, x_max, y_max in boxes[CORNERS].to_numpy().astype(int):
        mask[max(y_min, 0) : max(y_max, 0), max(x_min, 0) : max(x_max, 0)] = True
    return mask


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def ds(photo):
    return dataset(photo)


boxes_in_photo = st.lists(
    st.tuples(st.integers(-5, 84), st.integers(-5, 64), st.integers(6, 30), st.integers(6, 30)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=20)
@given(rows=boxes_in_photo, patch=st.integers(8, 60), cover=st.sampled_from(["objects", "grid"]))
def test_patches_are_the_image_and_annotations_mark_the_same_pixels(photo, ds, rows, patch, cover):
    boxes = table(*rows)
    split = split_regions(ds, boxes, patch, no_scale=True, cover=cover)
    mask = marked(photo.shape[:2], boxes)
    for i, name in enumerate(split.ds["sample"].values):
        one = split.ds.isel(sample=i)
        col, row = int(one["col"]), int(one["row"])
        assert 0 <= col <= 90 - patch
        assert 0 <= row <= 70 - patch
        window = np.s_[row : row + patch, col : col + patch]
        np.testing.assert_array_equal(one["image"], photo[window])
        assert one["valid"].all()
        mine = split.boxes[split.boxes["sample"] == name]
        np.testing.assert_array_equal(marked((patch, patch), mine), mask[window])
        whole = boxes.loc[mine["box"]]
        areas = [
            (t["x_max"] - t["x_min"]).values * (t["y_max"] - t["y_min"]).values
            for t in (mine, whole)
        ]
        np.testing.assert_allclose(mine["visible"], areas[0] / areas[1])
    assert split.balance.loc["before", "positive"] == mask.sum()
    assert split.balance.loc["before", "negative"] == (~mask).sum()
    assert split.balance.loc["after", ["positive", "negative"]].sum() == split.ds["valid"].sum()
    assert split.scale.tolist() == [1, 1, 1]
    if cover == "grid":
        seen = np.zeros(photo.shape[:2], bool)
        for col, row in zip(split.ds["col"].values, split.ds["row"].values, strict=True):
            seen[row : row + patch, col : col + patch] = True
        assert seen.all()


def test_an_object_in_the_open_is_in_the_middle(ds):
    split = split_regions(ds, table((40, 30, 6, 10)), 20, no_scale=True)
    assert split.ds[["col", "row", "side"]].to_array().values.ravel().tolist() == [33, 25, 20]
    assert split.boxes[[*CORNERS, "visible"]].values.tolist() == [[7, 5, 13, 15, 1]]


def test_the_balance_gains_by_cutting(ds):
    boxes = table((40, 30, 10, 10), (45, 30, 10, 10))
    split = split_regions(ds, boxes, 20, no_scale=True)
    # together 15 x 10; the first window holds 14 columns of them, the second all
    assert split.balance.loc["before"].tolist() == [150, 6150, 150 / 6150]
    assert split.balance.loc["after"].tolist() == [300, 500, 0.6]


class TestScale:
    def test_the_window_follows_the_root_of_the_area(self, ds, photo):
        boxes = table((30, 20, 16, 4), (50, 40, 16, 16))
        split = split_regions(ds, boxes, 32, size=16)
        assert split.ds["side"].values.tolist() == [16, 32]
        first, second = split.boxes[CORNERS].to_numpy()
        assert first.tolist() == [0, 12, 32, 20]  # twice as large, in a window of 16
        assert second.tolist() == [8, 8, 24, 24]
        assert split.scale.to_dict() == {"min": 1, "mean": 1.5, "max": 2}
        ours = split.ds["image"][0].values.astype(int)
        theirs = Image.fromarray(photo[14:30, 30:46]).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(ours - np.asarray(theirs))[1:-1, 1:-1].max() <= 1

    def test_objects_look_equally_large(self, ds):
        boxes = table((10, 10, 8, 8), (40, 30, 16, 16), (60, 40, 12, 12))
        for size in (16, None):
            found = split_regions(ds, boxes, 24, size=size).boxes
            own = found[found["sample"] == "a/" + found["box"].astype(str)]
            sides = own["x_max"] - own["x_min"]
            np.testing.assert_allclose(sides, size or 12)

    def test_shrinking_averages(self):
        checkered = np.indices((8, 8)).sum(axis=0)[..., None] % 2 * 200
        for dtype in (np.uint8, np.float32):
            split = split_regions(dataset(checkered.astype(dtype)), table((0, 0, 8, 8)), 2, size=2)
            assert split.ds["image"].dtype == dtype
            assert abs(split.ds["image"].values.astype(int) - 100).max() <= 1


def test_small_images_are_padded_and_say_so():
    ds = dataset(np.full((10, 30, 1), 7, np.uint16))
    split = split_regions(ds, table((20, 2, 5, 5)), 16, no_scale=True)
    assert split.ds["image"].dtype == np.uint16
    assert split.ds["image"].shape == (1, 16, 16, 1)
    assert (split.ds["image"].values[split.ds["valid"].values] == 7).all()
    assert (split.ds["image"].values[~split.ds["valid"].values] == 0).all()
    assert split.ds["valid"].values[0].sum() == 10 * 16
    assert split.balance.loc["after", ["positive", "negative"]].tolist() == [25, 135]


class TestBackground:
    def test_touches_no_box_and_repeats_by_seed(self, ds):
        boxes = table((40, 30, 10, 10), label=["house"])
        split = split_regions(ds, boxes, 16, background=12, seed=3)
        empty = split.ds["sample"].str.startswith("a/background")
        assert empty.sum() == 12
        assert split.ds["label"].values.tolist() == [0] + [-1] * 12
        assert not split.boxes["sample"].str.startswith("a/background").any()
        again = split_regions(ds, boxes, 16, background=12, seed=3)
        xr.testing.assert_identical(split.ds, again.ds)
        other = split_regions(ds, boxes, 16, background=12, seed=4)
        assert (split.ds["col"].values != other.ds["col"].values).any()

    def test_says_when_there_is_no_room(self, ds):
        with pytest.warns(UserWarning, match="room for 0 of 5 background windows of 16"):
            split = split_regions(ds, table((0, 0, 90, 70)), 16, background=5, no_scale=True)
        assert split.ds.sizes["sample"] == 1


class TestLabels:
    def test_a_patch_has_the_class_of_its_object(self, ds):
        boxes = table((10, 10, 8, 8), (60, 40, 8, 8), (30, 30, 8, 8), label=["b", "a", None])
        found = split_regions(ds, boxes, 16).ds
        assert found["class"].values.tolist() == ["a", "b"]
        assert found["label"].values.tolist() == [1, 0, -1]

    def test_a_grid_s_patch_has_all_of_its_objects(self, ds):
        boxes = table((10, 10, 8, 8), (20, 10, 8, 8), (80, 60, 5, 5), label=["b", "a", "c"])
        found = split_regions(ds, boxes, 30, cover="grid").ds
        member = {
            name: set(found["class"].values[row])
            for name, row in zip(found["sample"].values, found["labels"].values, strict=True)
        }
        assert member["a/row 0 col 0"] == {"a", "b"}
        assert member["a/row 40 col 60"] == {"c"}
        assert member["a/row 0 col 60"] == set()


def test_each_image_keeps_its_boxes_and_polygons(photo):
    both = dataset(photo, photo[::-1])
    boxes = table((0, 0, 4, 4), (4, 4, 4, 4), (2, 2, 3, 3), sample=["a", "b", "b"], who="me")
    boxes.at[1, "points"] = np.array([[4.0, 4], [8, 4], [8, 8]])
    split = split_regions(both, boxes, 4, no_scale=True)
    assert split.ds["source"].values.tolist() == ["a", "b", "b"]
    np.testing.assert_array_equal(split.ds["image"][1], photo[::-1][4:8, 4:8])
    assert set(split.boxes["who"]) == {"me"}
    assert split.boxes.loc[split.boxes["box"] == 1, "points"].iloc[0].tolist() == [
        [0, 0],
        [4, 0],
        [4, 4],
    ]
    assert split.balance.loc["before", "positive"] == 16 + 24  # the second's overlap by one
    assert split.ds.attrs["name"] == "made"


def test_patches_come_from_the_full_size_image(tmp_path, photo):
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "a.png")
    small = datasets.load(tmp_path / "photos", size=16)
    boxes = table((40, 30, 10, 10), sample="a.png", label=["cat"])
    stored = store.open(store.write(small, tmp_path / "store", boxes, progress=False), size=16)
    for ds in (small, stored):
        split = split_regions(ds, boxes, 20, no_scale=True)
        np.testing.assert_array_equal(split.ds["image"][0], photo[25:45, 35:55])


def test_little_that_is_seen_can_be_left_out(ds):
    boxes = table((10, 10, 10, 10), (22, 10, 10, 10))
    assert len(split_regions(ds, boxes, 20).boxes) == 4
    few = split_regions(ds, boxes, 20, min_visible=0.5).boxes
    assert few[["sample", "box"]].to_numpy().tolist() == [["a/0", 0], ["a/1", 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 0}, "patch=0"),
        ({"size": 0}, "size=0"),
        ({"cover": "all"}, "cover='all'"),
        ({"cover": "grid", "size": 2.0}, "size belongs to"),
        ({"background": -1}, "background=-1"),
        ({"min_visible": 2}, "min_visible=2"),
        ({"boxes": table((200, 0, 5, 5))}, "box 0 of sample 'a' lies outside its image of 90 x 70"),
        ({"boxes": table((0, 0, 4, 4), sample=["z"])}, "samples that are not in the dataset"),
        ({"boxes": table()}, "nothing to cut out"),
        ({"boxes": pd.DataFrame({"x": [1]})}, "missing among x"),
    ],
)
def test_bad_input(ds, change, message):
    arguments = {"ds": ds, "boxes": table((0, 0, 5, 5)), "patch": 8} | change
    with pytest.raises((ValueError, BadDataError), match=message):
        split_regions(**arguments)
