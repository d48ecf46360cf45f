"""Bad blocks fail only the regions that touch them, and bad input is named."""

import numpy as np
import pandas as pd
import pytest
from raster_making import boxes, corrupt, expected, noise, write_raster

from workbench import rasters

SHAPES = {
    "tiled": {"block": 64},
    "small tiles": {"block": 16},
    "striped": {"blockysize": 8},
}


@pytest.mark.parametrize("decoder", ["auto", "gdal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_corrupt_block_fails_only_the_regions_that_touch_it(tmp_path, shape, decoder):
    path = write_raster(tmp_path / "a.tif", noise((3, 300, 300)), compress="deflate",
                        **SHAPES[shape])  # fmt: skip
    table = boxes(200, 300, 300, side=20)
    truth = [expected(path, region) for region in table.itertuples()]
    corrupt(path, 1, 0)
    high, wide = {"tiled": (64, 64), "small tiles": (16, 16), "striped": (8, 300)}[shape]
    hit = (table["row"] < 2 * high) & (table["row"] + 20 > high) & (table["col"] < wide)
    assert 0 < hit.sum() < 150
    plan = rasters.plan(path, table, decoder=decoder, memory="16MiB")
    with pytest.warns(rasters.FailedRegionsWarning, match=f"{hit.sum()} of 200 regions"):
        ds = plan.load(progress=False)
    assert ds.attrs["failed"] == table.index[hit].tolist()
    for i, chip in enumerate(truth):
        if hit.iloc[i]:
            assert not ds.valid[i].any()
            assert (ds.image[i] == 0).all()
        else:
            np.testing.assert_array_equal(ds.image[i], chip)
    with pytest.raises(rasters.BlockError, match=r"block \(row 1, column 0\)"):
        plan.load(on_error="raise", progress=False)
    with pytest.warns(rasters.FailedRegionsWarning, match="row 1, column 0"):
        written = plan.write(tmp_path / "out", progress=False)
    assert not written
    assert written.failed["sample"].tolist() == table.index[hit].tolist()
    assert (written.failed[["block_row", "block_column"]].to_numpy() == (1, 0)).all()
    assert (written.failed["error"] != "").all()


@pytest.fixture
def raster(tmp_path):
    return write_raster(tmp_path / "a.tif", noise((1, 100, 120)), block=16)


def test_what_is_no_raster(tmp_path):
    (tmp_path / "a.txt").write_text("not a raster")
    with pytest.raises(rasters.RasterError, match=r"a\.txt cannot be opened as a raster"):
        rasters.plan(tmp_path / "a.txt", boxes(1, 50, 50))
    with pytest.raises(FileNotFoundError, match="there is no raster at"):
        rasters.plan(tmp_path / "missing.tif", boxes(1, 50, 50))


def test_a_truncated_file_fails_where_it_ends(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 200, 200)), blockysize=10)
    size = (tmp_path / "a.tif").stat().st_size
    with (tmp_path / "a.tif").open("r+b") as file:
        file.truncate(size // 2)
    table = pd.DataFrame({"col": 0, "row": [0, 180], "width": 20, "height": 20})
    with pytest.warns(rasters.FailedRegionsWarning, match="1 of 2 regions"):
        ds = rasters.plan(path, table).load(progress=False)
    assert ds.attrs["failed"] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, r"width of region 0 is 0; it must be 1 or more"),
        ({"height": -3}, r"height of region 0 is -3"),
        ({"row": np.nan}, r"row of region 0 is nan, not a number"),
        ({"col": 1.5}, r"col of region 0 is 1.5; pixel boxes are whole"),
        ({"col": "here"}, r"col of region 0 is 'here', not a number"),
    ],
)
def test_bad_boxes(raster, change, message):
    table = pd.DataFrame({"col": [1], "row": [1], "width": [8], "height": [8]} | {
        name: [value] for name, value in change.items()})  # fmt: skip
    for call in (rasters.regions, lambda table, raster: rasters.plan(raster, table)):
        with pytest.raises(rasters.RegionError, match=message):
            call(table, raster)


def test_bad_tables(raster):
    with pytest.raises(rasters.RegionError, match="no rows"):
        rasters.regions(pd.DataFrame({"x": [], "y": []}), raster)
    with pytest.raises(rasters.RegionError, match="columns east, north; regions need col, row"):
        rasters.regions(pd.DataFrame({"east": [1], "north": [2]}), raster)
    points = pd.DataFrame({"x": [500100.0], "y": [4999900.0]})
    with pytest.raises(rasters.RegionError, match="the table has no CRS"):
        rasters.regions(points, raster, size=8)
    with pytest.raises(rasters.RegionError, match="must be more than 0, not -8"):
        rasters.regions(points, raster, size=-8, crs="raster")
    with pytest.raises(rasters.RegionError, match="occurs twice"):
        rasters.regions(pd.concat([points, points]), raster, size=8, crs="raster")
    with pytest.raises(rasters.RegionError, match="would be taken"):
        rasters.regions(points.assign(row=1), raster, size=8, crs="raster")


def test_bad_options(raster):
    table = boxes(2, 100, 120)
    for options, message in [
        ({"bands": [2]}, "there is no band 2"),
        ({"edge": "wrap"}, "edge='wrap' is none of"),
        ({"fill": 300}, "fill=300 does not fit into the raster's uint8"),
        ({"size": 0}, "size must be 1 or more"),
        ({"resampling": "magic"}, "resampling='magic' is none of"),
    ]:
        with pytest.raises(rasters.RegionError, match=message):
            rasters.plan(raster, table, **options)


def test_no_overlap_shows_both_extents(raster):
    points = pd.DataFrame({"x": [100.0], "y": [200.0]})
    found = rasters.regions(points, raster, size=8, crs="raster")
    with pytest.raises(
        rasters.NoOverlapError, match=r"In EPSG:32633 the raster covers x 500000 to 501200, .* "
        r"the regions cover x 60 to 140, y 160 to 240"):  # fmt: skip
        rasters.plan(raster, found)
