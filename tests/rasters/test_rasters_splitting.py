"""Crops and their annotations against the image that they come from."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import datasets
from workbench.rasters.errors import RegionError
from workbench.rasters.splitting import resized, split_regions

BOX = ["col", "row", "width", "height"]


def table(*rows, **columns):
    return pd.DataFrame(rows, columns=BOX).assign(**columns)


def marked(shape, boxes):
    """True where a box is, by painting."""
    mask = np.zeros(shape, bool)
    for col, row, width, height in boxes[BOX].to_numpy():
        mask[max(row, 0) : max(row + height, 0), max(col, 0) : max(col + width, 0)] = True
    return mask


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


boxes_in_photo = st.lists(
    st.tuples(st.integers(-5, 84), st.integers(-5, 64), st.integers(6, 30), st.integers(6, 30)),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=20)
@given(rows=boxes_in_photo, size=st.integers(8, 60), cover=st.sampled_from(["objects", "grid"]))
def test_crops_are_the_image_and_annotations_mark_the_same_pixels(photo, rows, size, cover):
    boxes = table(*rows)
    split = split_regions(photo, boxes, size, cover=cover)
    mask = marked(photo.shape[:2], boxes)
    for i, name in enumerate(split.ds["sample"].values):
        one = split.ds.isel(sample=i)
        col, row = int(one["col"]), int(one["row"])
        assert 0 <= col <= 90 - size
        assert 0 <= row <= 70 - size
        window = np.s_[row : row + size, col : col + size]
        np.testing.assert_array_equal(one["image"], photo[window])
        assert one["valid"].all()
        mine = split.annotations[split.annotations["sample"] == name]
        painted = marked((size, size), mine.astype(dict.fromkeys(BOX, int)))
        np.testing.assert_array_equal(painted, mask[window])
        for _, found in mine.iterrows():
            area = boxes.loc[found["box"], ["width", "height"]].prod()
            assert found["visible"] == pytest.approx(found["width"] * found["height"] / area)
    assert split.balance.loc["before", "positive"] == mask.sum()
    assert split.balance.loc["before", "negative"] == (~mask).sum()
    assert split.balance.loc["after", ["positive", "negative"]].sum() == split.ds["valid"].sum()
    if cover == "grid":
        seen = np.zeros(photo.shape[:2], bool)
        for col, row in zip(split.ds["col"].values, split.ds["row"].values, strict=True):
            seen[row : row + size, col : col + size] = True
        assert seen.all()


def test_an_object_in_the_open_is_in_the_middle(photo):
    split = split_regions(photo, table((40, 30, 6, 10)), 20)
    assert split.ds[["col", "row", "side"]].to_array().values.ravel().tolist() == [33, 25, 20]
    assert split.annotations[[*BOX, "visible"]].values.tolist() == [[7, 5, 6, 10, 1]]


def test_the_balance_gains_by_cropping(photo):
    boxes = table((40, 30, 10, 10), (45, 30, 10, 10))
    split = split_regions(photo, boxes, 20)
    # together 15 x 10; the first window holds 14 columns of them, the second all
    assert split.balance.loc["before"].tolist() == [150, 6150, 150 / 6150]
    assert split.balance.loc["after"].tolist() == [300, 500, 0.6]


class TestScale:
    def test_the_window_follows_the_root_of_the_area(self, photo):
        boxes = table((30, 20, 16, 4), (50, 40, 16, 16))
        split = split_regions(photo, boxes, 32, scale=2.0)
        assert split.ds["side"].values.tolist() == [16, 32]
        first, second = split.annotations[BOX].to_numpy()
        assert first.tolist() == [0, 12, 32, 8]  # twice as large, in a window of 16
        assert second.tolist() == [8, 8, 16, 16]
        np.testing.assert_array_equal(split.ds["image"][0], resized(photo[14:30, 30:46], 32))

    def test_objects_look_equally_large(self, photo):
        boxes = table((10, 10, 8, 8), (40, 30, 16, 16), (60, 40, 12, 12))
        found = split_regions(photo, boxes, 24, scale=1.5).annotations
        own = found[found["sample"] == found["box"].astype(str)]
        np.testing.assert_allclose(own[["width", "height"]], 16)

    def test_resizing_averages(self):
        checkered = np.indices((8, 8)).sum(axis=0)[..., None] % 2 * 200
        assert abs(resized(checkered.astype(np.uint8), 2).astype(int) - 100).max() <= 1
        steep = resized(checkered.astype(np.float32), 2)
        assert steep.dtype == np.float32


class TestSmallImages:
    def test_are_padded_and_say_so(self):
        image = np.full((10, 30), 7, np.uint16)
        split = split_regions(image, table((20, 2, 5, 5)), 16)
        assert split.ds["image"].dtype == np.uint16
        assert split.ds["image"].shape == (1, 16, 16, 1)
        assert (split.ds["image"].values[split.ds["valid"].values] == 7).all()
        assert (split.ds["image"].values[~split.ds["valid"].values] == 0).all()
        assert split.ds["valid"].values[0].sum() == 10 * 16
        assert split.balance.loc["after", ["positive", "negative"]].tolist() == [25, 135]

    def test_a_scaled_window_may_be_larger_than_the_image(self):
        split = split_regions(np.ones((10, 10), np.uint8), table((0, 0, 10, 10)), 8, scale=2.0)
        assert split.ds["valid"].values[0, :4, :4].all()
        assert split.ds["valid"].values[0].sum() == 16


class TestBackground:
    def test_touches_no_box_and_repeats_by_seed(self, photo):
        boxes = table((40, 30, 10, 10), label=["house"])
        split = split_regions(photo, boxes, 16, background=12, seed=3)
        empty = split.ds.where(split.ds["sample"].str.startswith("background"), drop=True)
        assert empty.sizes["sample"] == 12
        assert split.ds["label"].values.tolist() == [0] + [-1] * 12
        assert not split.annotations["sample"].str.startswith("background").any()
        again = split_regions(photo, boxes, 16, background=12, seed=3)
        xr.testing.assert_identical(split.ds, again.ds)
        other = split_regions(photo, boxes, 16, background=12, seed=4)
        assert (split.ds["col"].values != other.ds["col"].values).any()

    def test_says_when_there_is_no_room(self, photo):
        with pytest.warns(UserWarning, match="room for 0 of 5 background windows of 16"):
            split = split_regions(photo, table((0, 0, 90, 70)), 16, background=5)
        assert split.ds.sizes["sample"] == 1


class TestLabels:
    def test_a_crop_has_the_class_of_its_object(self, photo):
        boxes = table((10, 10, 8, 8), (60, 40, 8, 8), (30, 30, 8, 8), label=["b", "a", None])
        ds = split_regions(photo, boxes, 16).ds
        assert ds["class"].values.tolist() == ["a", "b"]
        assert ds["label"].values.tolist() == [1, 0, -1]

    def test_a_grid_s_crop_has_all_of_its_objects(self, photo):
        boxes = table((10, 10, 8, 8), (20, 10, 8, 8), (80, 60, 5, 5), label=["b", "a", "c"])
        ds = split_regions(photo, boxes, 30, cover="grid").ds
        member = {name: set(ds["class"].values[row]) for name, row in
                  zip(ds["sample"].values, ds["labels"].values, strict=True)}  # fmt: skip
        assert member["row 0 col 0"] == {"a", "b"}
        assert member["row 40 col 60"] == {"c"}
        assert member["row 0 col 60"] == set()


def test_a_dataset_s_images_keep_their_boxes(photo):
    ds = datasets.load("digits").isel(sample=slice(2))
    names = ds["sample"].values
    boxes = table((0, 0, 4, 4), (4, 4, 4, 4), (2, 2, 3, 3), sample=names[[0, 1, 1]], who="me")
    split = split_regions(ds, boxes, 4)
    assert split.ds["source"].values.tolist() == [str(name) for name in names[[0, 1, 1]]]
    np.testing.assert_array_equal(split.ds["image"][1], ds["image"][1, 4:8, 4:8])
    assert set(split.annotations["who"]) == {"me"}
    assert split.balance.loc["before", "positive"] == 16 + 24  # the second's overlap by one
    assert split.ds.attrs["name"] == "digits"


def test_little_that_is_seen_can_be_left_out(photo):
    boxes = table((10, 10, 10, 10), (22, 10, 10, 10))
    assert len(split_regions(photo, boxes, 20).annotations) == 4
    few = split_regions(photo, boxes, 20, min_visible=0.5).annotations
    assert few[["sample", "box"]].to_numpy().tolist() == [["0", 0], ["1", 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"scale": 0}, "scale=0"),
        ({"cover": "all"}, "cover='all'"),
        ({"cover": "grid", "scale": 2.0}, "scale belongs to"),
        ({"background": -1}, "background=-1"),
        ({"min_visible": 2}, "min_visible=2"),
        ({"boxes": table((0, 0, 0, 5))}, "width of region 0 is 0"),
        ({"boxes": table((200, 0, 5, 5))}, "box 0 lies outside its image of 90 x 70"),
        ({"boxes": table().astype(int)}, "nothing to crop"),
        ({"boxes": pd.DataFrame({"x": [1]})}, "no column 'col'"),
        ({"images": np.zeros(5)}, r"must be \(y, x\) or"),
    ],
)
def test_bad_input(photo, change, message):
    arguments = {"images": photo, "boxes": table((0, 0, 5, 5)), "size": 8} | change
    with pytest.raises(ValueError, match=message):
        split_regions(**arguments)


def test_a_box_of_an_unknown_image():
    ds = datasets.load("digits").isel(sample=slice(2))
    with pytest.raises(RegionError, match="image 99,"):
        split_regions(ds, table((0, 0, 4, 4), sample=[99]), 4)
    with pytest.raises(RegionError, match="column 'sample'"):
        split_regions(ds, table((0, 0, 4, 4)), 4)
