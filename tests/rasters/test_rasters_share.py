"""Regular tables, chips by their share of data, scaled pixels, and one tar file."""

import tarfile

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_making import NORTH_UP, boxes, corrupt, expected, noise, with_alpha, write_raster

from workbench import rasters
from workbench.rasters.raster import Band, Raster

sides = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.data())
def test_a_grid_covers_each_pixel_and_no_region_lies_in_its_neighbours(height, width, h, w, data):
    overlap = data.draw(st.tuples(st.integers(0, h - 1), st.integers(0, w - 1)))
    raster = Raster(
        "a", "GTiff", width, height, (Band("uint8"),), None, (0, 1, 0, 0, 0, -1), (1, 1)
    )
    table = rasters.grid(raster, (h, w), overlap)
    seen = np.zeros((height, width), int)
    for box in table.itertuples():
        assert box.row < height
        assert box.col < width
        seen[box.row : box.row + h, box.col : box.col + w] += 1
    assert seen.min() >= 1
    assert (np.diff(sorted(set(table["row"]))) == h - overlap[0]).all()
    assert (np.diff(sorted(set(table["col"]))) == w - overlap[1]).all()


def test_a_grid_over_an_area_keeps_the_numbers_of_the_whole_one(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 100, 100)))
    whole = rasters.grid(path, 20)
    triangle = shapely.Polygon([(5e5 + 200, 5e6), (5e5 + 600, 5e6), (5e5 + 600, 5e6 - 400)])
    some = rasters.grid(path, 20, area=triangle)
    assert some.index.tolist() == [1, 2, 7]
    pd.testing.assert_frame_equal(some, whole.loc[[1, 2, 7]])
    there = geopandas.GeoSeries([triangle.buffer(-0.1)], crs="EPSG:32633").to_crs("EPSG:4326")
    assert rasters.grid(path, 20, area=there).index.tolist() == [1, 2, 7]
    assert len(rasters.grid(path, 20, area=(5e5, 5e6 - 10, 5e5 + 1000, 5e6))) == 5
    with pytest.raises(rasters.NoOverlapError, match="reaches into the area"):
        rasters.grid(path, 20, area=shapely.box(0, 0, 1, 1))
    with pytest.raises(rasters.RegionError, match="overlap=20 must be"):
        rasters.grid(path, 20, overlap=20)


def _share(path, table, mask):
    """What rasterio's own mask says of each region."""
    with rasterio.open(path) as source:
        whole = source.dataset_mask() > 0 if mask else np.ones(source.shape, bool)
    parts = [
        whole[max(0, r.row) : max(0, r.row + r.height), max(0, r.col) : max(0, r.col + r.width)]
        for r in table.itertuples()
    ]
    return np.array([part.sum() for part in parts]) / (table["width"] * table["height"]).to_numpy()


@pytest.mark.parametrize("kind", ["plain", "nodata", "alpha", "mask"])
def test_the_share_of_data_is_that_of_rasterios_mask(tmp_path, kind):
    pixels = noise((4 if kind == "alpha" else 3, 90, 90))
    pixels[:, 20:60, 10:70] = 7
    path = tmp_path / "a.tif"
    profile = {"nodata": 7} if kind == "nodata" else {}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_raster(path, pixels, block=32, **profile)
        if kind == "alpha":
            pixels[3] = np.where(np.arange(90) < 40, 0, 255)
            write_raster(path, pixels, block=32)
            with_alpha(path)
        if kind == "mask":
            with rasterio.open(path, "r+") as target:
                target.write_mask(np.arange(90)[:, None] * np.ones(90) > 30)
    table = boxes(60, 90, 90, side=24, beyond=20)
    table = table[(table["col"] > -24) & (table["row"] > -24)]
    wanted = _share(path, table, kind != "plain")
    assert (wanted < 0.5).any()
    with pytest.warns(rasters.RasterWarning, match=r"regions hold less than min_valid=0.5"):
        plan = rasters.plan(path, table, min_valid=0.5)
    assert plan.table.index.tolist() == table.index[wanted >= 0.5].tolist()
    both = pd.concat([plan.table, plan.skipped]).loc[table.index, "valid_share"]
    np.testing.assert_allclose(both, wanted, atol=1e-12)
    assert plan.load(progress=False).valid_share.min() >= 0.5
    with pytest.raises(rasters.RegionError, match="no region holds min_valid=1 of data"):
        rasters.plan(path, table[wanted < 1], min_valid=1)
    with pytest.raises(rasters.RegionError, match="must be a share"):
        rasters.plan(path, table, min_valid=50)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("decoder", ["auto", "gdal"])
def test_scaled_pixels_are_those_of_rasterio_and_nodata_is_nan(tmp_path, dtype, decoder):
    path = tmp_path / "a.tif"
    pixels = noise((3, 70, 80), dtype)
    pixels[:, :20, 30:50] = 3
    write_raster(path, pixels, block=16, nodata=3)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (0.5, 2, 1e-4), (0, -7, 100)
    table = boxes(40, 70, 80, beyond=8)
    plan = rasters.plan(path, table, bands=[3, 1], scale=True, decoder=decoder, outside="keep")
    ds = plan.load(progress=False)
    assert ds.image.dtype == ("float64" if dtype == "int32" else "float32")
    for i, region in enumerate(table.itertuples()):
        raw = expected(path, region, [3, 1], fill=3)
        truth = raw * np.array([1e-4, 0.5]) + [100, 0]
        truth[raw == 3] = np.nan
        np.testing.assert_array_equal(ds.image[i], truth.astype(ds.image.dtype))
    assert "scale" not in ds.attrs
    assert plan.write(tmp_path / "chips.zarr", progress=False)


def test_scaled_pixels_behind_a_mask_are_nan_and_averages_leave_them_out(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.full((1, 64, 64), 100, "uint8")
    pixels[:, :, ::2] = 200
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_raster(path, pixels, block=16)
        with rasterio.open(path, "r+") as target:
            target.write_mask(np.broadcast_to(np.arange(64) % 2 == 1, (64, 64)).copy())
    table = pd.DataFrame({"col": [0, 8], "row": [0, 8], "width": 16, "height": 16})
    chip = rasters.plan(path, table, scale=True).load(progress=False).image
    assert np.isnan(chip[..., ::2, :]).all()
    assert (chip[..., 1::2, :] == 100).all()
    small = rasters.plan(path, table, size=4, scale=True, resampling="average")
    assert (small.load(progress=False).image == 100).all()


def test_one_tar_file_holds_all_chips_and_is_written_once(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((3, 300, 300)), block=32)
    plan = rasters.plan(path, boxes(200, 300, 300), memory="16MiB")
    target = tmp_path / "x.tar"
    written = plan.write(target, progress=False)
    assert written.path == target
    assert len(written.manifest) == 200
    content = target.read_bytes()
    with tarfile.open(target) as tar:
        assert sorted(tar.getnames()) == sorted(
            f"r{i}.{kind}" for i in range(200) for kind in ("png", "json")
        )
    assert not list(tmp_path.glob("x.tar.parts/*.tar"))
    assert plan.write(target, progress=False)
    assert target.read_bytes() == content
    target.unlink()
    with pytest.raises(rasters.OutputError, match="is gone: delete"):
        plan.write(target, progress=False)
    (tmp_path / "y.tar").write_bytes(b"mine")
    with pytest.raises(rasters.OutputError, match="not of our making"):
        plan.write(tmp_path / "y.tar", progress=False)


def test_a_tar_file_with_failures_can_be_repaired(tmp_path):
    path = tmp_path / "a.tif"
    pixels = noise((3, 300, 300))
    write_raster(path, pixels, block=32, compress="deflate")
    corrupt(path, 2, 2)
    plan = rasters.plan(path, boxes(200, 300, 300))
    with pytest.warns(rasters.FailedRegionsWarning):
        assert not plan.write(tmp_path / "x.tar", progress=False)
    write_raster(path, pixels, block=32, compress="deflate")
    again = rasters.plan(path, boxes(200, 300, 300))
    assert again.write(tmp_path / "x.tar", retry_failed=True, progress=False)
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert len(tar.getnames()) == 400


def test_numbers_of_a_grid_and_of_an_area_with_a_transform_that_turns(tmp_path):
    turned = NORTH_UP @ rasterio.Affine.rotation(30)
    path = write_raster(tmp_path / "a.tif", noise((1, 60, 60)), transform=turned)
    x, y = turned @ (30, 30)
    assert rasters.grid(path, 20, area=shapely.Point(x, y).buffer(1)).index.tolist() == [4]
