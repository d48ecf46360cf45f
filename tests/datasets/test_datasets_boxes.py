"""The table of boxes: its types, what it refuses, what it clips, and how large images are."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from workbench.datasets.boxes import COLUMNS, as_table, clip, image_sizes
from workbench.datasets.errors import BadDataError, BadImageError, SkippedWarning


@pytest.fixture
def ds():
    image = (("sample", "y", "x", "channel"), np.zeros((2, 30, 40, 1), np.uint8))
    return xr.Dataset({"image": image}, coords={"sample": ["a", "b"]})


def row(*corners, sample="a", **others):
    return dict(zip(COLUMNS, (sample, *corners), strict=False)) | others


def test_an_empty_table_has_every_column_in_its_type(ds):
    table = as_table([], ds)
    assert list(table) == COLUMNS
    assert table["x_min"].dtype == table["score"].dtype == np.float64
    assert table["sample"].dtype.kind in "OU"
    assert clip(table, ds).empty
    assert as_table(pd.DataFrame()).empty


def test_what_is_not_said_has_its_default_and_other_columns_stay(ds):
    table = as_table([row(1, 2, 3, 4, members=5)], ds)
    assert table.loc[0, ["label", "source", "points", "members"]].tolist() == ["", "", None, 5]
    assert np.isnan(table.loc[0, "score"])
    assert list(table)[-1] == "members"


def test_points_alone_bring_their_box(ds):
    polygon = {"sample": "a", "points": [[1, 5], [4, 2], [3, 9]]}
    table = as_table([polygon, row(0, 0, 1, 1)], ds)
    assert len(as_table([polygon], ds)) == 1
    assert table.loc[0, ["x_min", "y_min", "x_max", "y_max"]].tolist() == [1, 2, 4, 9]
    assert table.loc[0, "points"].shape == (3, 2)


def test_the_table_that_was_given_stays_as_it_is(ds):
    given = pd.DataFrame([row(-5, 2, 3, 4)], index=[9])
    before = given.copy()
    with pytest.warns(SkippedWarning):
        clip(given, ds)
    pd.testing.assert_frame_equal(given, before)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1, 2, 3, 4, sample="c")], "1 of 1 rows have samples that are not in the dataset"),
        ([row(1, 2, 3, 4), row(5, 2, 3, 4)], "end before they begin, the first is row 1: a, 5.0"),
        ([row(1, np.nan, 3, 4)], "no finite numbers, the first is row 0: a, 1.0, nan"),
        ([row(1, "x", 3, 4)], "no finite numbers"),
        ([{"sample": "a", "x_min": 1}], "x_max, y_max, y_min missing among sample, x_min"),
        ([row(1, 2, 3, 4, points=[[1, 2], [3, 4]])], "row 0 of the boxes: points must be"),
        ([row(1, 2, 3, 4, points=[1, 2, 3])], "row 0 of the boxes: points must be"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_row(ds, rows, message):
    with pytest.raises(BadDataError, match=message):
        as_table(rows, ds)


def test_clipping_counts_what_it_did(ds):
    rows = [row(-1, 0, 10, 10), row(5, 5, 5, 9), row(50, 5, 60, 9), row(0, 0, 40, 30)]
    rows += [{"sample": "b", "points": [[0, 0], [50, 0], [20, 20]], **row(0, 0, 50, 20)}]
    rows += [row(3, 3, 3, 3, points=[[3, 3]])]
    with pytest.warns(SkippedWarning, match="of 6 boxes 2 stuck out .* 2 were empty") as caught:
        table = clip(rows, ds)
    assert caught[0].filename == __file__
    assert table[["x_min", "x_max"]].to_numpy().tolist() == [[0, 10], [0, 40], [0, 40], [3, 3]]
    assert table.loc[2, "points"].tolist() == [[0, 0], [40, 0], [20, 20]]


def test_sizes_are_those_of_the_upright_files(ds, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("L", (7, 9)).save(tmp_path / "plain.png")
    files = [str(tmp_path / name) for name in ("turned.jpg", "plain.png")]
    assert image_sizes(ds).tolist() == [[30, 40]] * 2
    assert image_sizes(ds.assign(path=("sample", files))).tolist() == [[60, 20], [9, 7]]
    said = ds.assign(height=("sample", [5, 6]), width=("sample", [8, 9]))
    assert image_sizes(said).tolist() == [[5, 8], [6, 9]]
    with pytest.raises(BadImageError, match="nowhere"):
        image_sizes(ds.assign(path=("sample", [files[0], "nowhere.png"])))
