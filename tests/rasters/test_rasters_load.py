"""What is cut is what rasterio's boundless windowed read returns, bit for bit."""

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raster_making import NORTH_UP, boundless, boxes, expected, noise, with_alpha, write_raster
from rasterio.features import geometry_mask

from workbench import rasters

TRANSFORMS = {
    "north up": NORTH_UP,
    "south up": rasterio.Affine(10, 0, 5e5, 0, 10, 4e6),
    "rotated": rasterio.Affine(8, 3, 5e5, 2, -9, 5e6),
    "none": rasterio.Affine.identity(),
}
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
COMPRESSION = [None, "deflate", "lzw", "zstd", "packbits", "lzma"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
]
SETTINGS = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def scenes(draw):
    """A raster's profile, a table of regions, and how to cut them."""
    dtype = draw(st.sampled_from(DTYPES))
    bands = draw(st.integers(1, 5))
    compress = draw(st.sampled_from(COMPRESSION))
    predictors = [1] if compress not in ("deflate", "lzw", "zstd") else [1, 2]
    if predictors == [1, 2] and dtype.startswith("float"):
        predictors = [1, 3]
    scene = {
        "shape": (bands, draw(st.integers(1, 150)), draw(st.integers(1, 150))),
        "dtype": dtype,
        "transform": draw(st.sampled_from(sorted(TRANSFORMS))),
        "seed": draw(st.integers(0, 99)),
    }
    profile = {
        "block": draw(st.sampled_from([None, 16, 48, 128])),
        "interleave": draw(st.sampled_from(["pixel", "band"])),
        "nodata": draw(st.sampled_from([None, 0, 7])),
    }
    if compress:
        profile |= {"compress": compress}
    if len(predictors) > 1:
        profile["predictor"] = draw(st.sampled_from(predictors))
    if profile["block"] is None:
        profile["blockysize"] = draw(st.integers(1, 40))
    regions = draw(st.lists(
        st.tuples(st.integers(-90, 160), st.integers(-90, 160), st.integers(1, 70),
                  st.integers(1, 70)), min_size=1, max_size=12))  # fmt: skip
    return scene, profile, regions


@pytest.mark.long
@SETTINGS
@given(scenes(), st.sampled_from(["auto", "gdal"]), st.sampled_from(["16MiB", "1GiB"]))
def test_any_raster_and_any_regions(tmp_path, scene, decoder, memory):
    facts, profile, found = scene
    pixels = noise(facts["shape"], facts["dtype"], facts["seed"])
    path = write_raster(
        tmp_path / "a.tif", pixels, transform=TRANSFORMS[facts["transform"]], **profile
    )
    table = pd.DataFrame(found, columns=["col", "row", "width", "height"])
    _, height, width = pixels.shape
    inside = (table["col"] < width) & (table["col"] + table["width"] > 0)
    inside &= (table["row"] < height) & (table["row"] + table["height"] > 0)
    if not inside.any():
        with pytest.raises(rasters.NoOverlapError):
            rasters.plan(path, table)
        return
    plan = rasters.plan(path, table, decoder=decoder, memory=memory, outside="keep")
    ds = plan.load(progress=False)
    assert ds.image.dtype == facts["dtype"]
    for i, region in enumerate(table.itertuples()):
        here = {"y": slice(region.height), "x": slice(region.width)}
        chip = ds.isel(sample=i)
        np.testing.assert_array_equal(chip.image.isel(here), expected(path, region))
        if facts["transform"] != "rotated":
            np.testing.assert_array_equal(chip.image.isel(here), boundless(path, region))
        rows = np.arange(region.row, region.row + region.height)
        columns = np.arange(region.col, region.col + region.width)
        good = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        np.testing.assert_array_equal(chip.valid.isel(here), good)
        # what pads a smaller region is not valid, and the fill
        assert int(chip.valid.sum()) == int(good.sum())
        rest = np.ones(chip.valid.shape, bool)
        rest[: region.height, : region.width] = False
        assert (chip.image.values[rest] == ds.attrs["fill"]).all()


@pytest.mark.parametrize("decoder", ["auto", "gdal"])
def test_each_chip_knows_its_place(tmp_path, decoder):
    path = write_raster(
        tmp_path / "a.tif", noise((1, 60, 80)), transform=TRANSFORMS["rotated"], block=16
    )
    table = boxes(9, 60, 80, beyond=10)
    ds = rasters.plan(path, table, decoder=decoder).load(progress=False)
    with rasterio.open(path) as source:
        for i, region in enumerate(table.itertuples()):
            window = rasterio.windows.Window(region.col, region.row, 16, 16)
            there = source.window_transform(window).to_gdal()
            np.testing.assert_allclose(ds.geotransform[i], there, rtol=0, atol=1e-9)
    assert (ds.row.values == table["row"]).all()
    assert (ds.col.values == table["col"]).all()
    assert ds.sample.values.tolist() == table.index.tolist()
    assert ds.attrs["crs"] == rasterio.crs.CRS.from_epsg(32633).to_wkt()


def test_a_table_keeps_its_order_and_columns(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((3, 200, 200)), block=16)
    table = boxes(300, 200, 200)
    table["label"] = np.resize(["oak", "ash", None], 300)
    table["score"] = np.linspace(0, 1, 300)
    table["note"] = [f"n{i}" for i in range(300)]
    table["x"] = np.arange(300)  # the name of a dimension
    ds = rasters.plan(path, table).load(progress=False)
    assert ds.sample.values.tolist() == table.index.tolist()
    assert ds["class"].values.tolist() == ["ash", "oak"]
    assert ds.label.values.tolist() == np.resize([1, 0, -1], 300).tolist()
    assert (ds.score.values == table["score"]).all()
    assert (ds.note.values == table["note"]).all()
    assert (ds.x_.values == np.arange(300)).all()
    assert ds.image.dims == ("sample", "y", "x", "channel")


def test_bands_in_any_order_and_channel_names(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((4, 50, 50)), interleave="band", block=16)
    with rasterio.open(path, "r+") as target:
        target.descriptions = ("red", "green", "blue", "nir")
    table = boxes(5, 50, 50)
    for decoder in ("auto", "gdal"):
        ds = rasters.plan(path, table, bands=[4, 1, 1], decoder=decoder).load(progress=False)
        for i, region in enumerate(table.itertuples()):
            np.testing.assert_array_equal(ds.image[i], boundless(path, region, [4, 1, 1]))
    assert rasters.plan(path, table, bands=[4, 1]).load(progress=False).channel.values.tolist() == [
        "nir", "red"]  # fmt: skip


def test_edges(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 40, 50)), nodata=9)
    table = pd.DataFrame(
        {"col": [-4, 10, 45, 200], "row": [3, 10, 35, 0], "width": 10, "height": 10}
    )
    padded = rasters.plan(path, table, fill=77, outside="keep").load(progress=False)
    assert (padded.image.values[~padded.valid.values] == 77).all()
    assert padded.valid.sum(("y", "x")).values.tolist() == [60, 100, 25, 0]
    with pytest.warns(rasters.RasterWarning, match=r"1 of 4 regions lie wholly outside .* \(3\)"):
        kept = rasters.plan(path, table)
    assert kept.skipped.index.tolist() == [3]
    assert kept.load(progress=False).sizes["sample"] == 3
    with pytest.warns(rasters.RasterWarning, match="wholly outside"):
        clipped = rasters.plan(path, table, edge="clip")
    assert clipped.table[["col", "row", "width", "height"]].to_numpy().tolist() == [
        [0, 3, 6, 10], [10, 10, 10, 10], [45, 35, 5, 5]]  # fmt: skip
    assert clipped.skipped.index.tolist() == [3]
    assert clipped.load(progress=False).valid.sum(("y", "x")).values.tolist() == [60, 100, 25]
    skipped = rasters.plan(path, table, edge="skip")
    assert skipped.table.index.tolist() == [1]
    assert skipped.skipped.index.tolist() == [0, 2, 3]
    with pytest.raises(rasters.RegionError, match=r"region 0 \(columns -4 to 6.* and so do 2 more"):
        rasters.plan(path, table, edge="raise")


def test_a_raster_with_alpha_nodata_or_a_mask_band(tmp_path):
    pixels = noise((4, 60, 60))
    pixels[3] = np.where(noise((60, 60), seed=1) > 128, 255, 0)
    alpha = write_raster(tmp_path / "alpha.tif", pixels, block=16)
    with_alpha(alpha)
    nodata = write_raster(tmp_path / "nodata.tif", pixels[:1] // 64, block=16, nodata=1)
    masked = write_raster(tmp_path / "masked.tif", pixels, block=16)
    with rasterio.open(masked, "r+") as target:
        target.write_mask(pixels[3] > 0)
    table = boxes(12, 60, 60, beyond=12)
    for path in (alpha, nodata, masked):
        ds = rasters.plan(path, table, mask=True).load(progress=False)
        with rasterio.open(path) as source:
            for i, region in enumerate(table.itertuples()):
                np.testing.assert_array_equal(ds.image[i], boundless(path, region))
                window = rasterio.windows.Window(region.col, region.row, 16, 16)
                truth = source.dataset_mask(window=window, boundless=True) > 0
                np.testing.assert_array_equal(ds.mask[i] & ds.valid[i], truth & ds.valid[i])
        assert (ds.mask.values & ~ds.valid.values).sum() == 0
        assert 0 < int(ds.mask.sum()) < int(ds.valid.sum())


def test_a_sparse_file_an_overview_and_a_vrt(tmp_path):
    pixels = np.zeros((2, 256, 256), np.uint8)
    pixels[:, :64, :64] = noise((2, 64, 64))
    sparse = write_raster(tmp_path / "sparse.tif", pixels, block=64, sparse_ok=True, nodata=3)
    full = write_raster(tmp_path / "full.tif", noise((2, 256, 256)), block=64, compress="deflate")
    with rasterio.open(full, "r+") as target:
        target.build_overviews([2, 4])
    vrt = tmp_path / "mosaic.vrt"
    band = """<VRTRasterBand dataType="Byte" band="{band}">
      <SimpleSource><SourceFilename>{one}</SourceFilename><SourceBand>{band}</SourceBand>
      <SrcRect xOff="0" yOff="0" xSize="256" ySize="256"/>
      <DstRect xOff="0" yOff="0" xSize="256" ySize="256"/></SimpleSource>
      <SimpleSource><SourceFilename>{two}</SourceFilename><SourceBand>{band}</SourceBand>
      <SrcRect xOff="0" yOff="0" xSize="256" ySize="256"/>
      <DstRect xOff="256" yOff="0" xSize="256" ySize="256"/></SimpleSource></VRTRasterBand>"""
    vrt.write_text('<VRTDataset rasterXSize="512" rasterYSize="256">' + "".join(
        band.format(band=i, one=full, two=sparse) for i in (1, 2)) + "</VRTDataset>")  # fmt: skip
    for path in (sparse, full, str(vrt)):
        table = boxes(40, 256, 256, side=40, beyond=20)
        ds = rasters.plan(path, table).load(progress=False)
        for i, region in enumerate(table.itertuples()):
            np.testing.assert_array_equal(ds.image[i], boundless(path, region))


@pytest.mark.parametrize(
    ("dtype", "predictor"), [("complex64", 1), ("complex64", 2), ("complex128", 1)]
)
def test_complex_pixels(tmp_path, dtype, predictor):
    pixels = noise((1, 60, 60), dtype)
    path = write_raster(tmp_path / "a.tif", pixels, block=16, compress="deflate",
                        predictor=predictor)  # fmt: skip
    table = boxes(9, 60, 60)
    ds = rasters.plan(path, table).load(progress=False)
    for i, region in enumerate(table.itertuples()):
        np.testing.assert_array_equal(ds.image[i], expected(path, region))


def test_complex_integers_are_read_as_complex64(tmp_path):
    pixels = np.rint(noise((1, 60, 60), "complex64") * 3000)
    profile = {"driver": "GTiff", "count": 1, "height": 60, "width": 60, "dtype": "complex_int16"}
    with rasterio.open(tmp_path / "c.tif", "w", **profile) as target:
        target.write(pixels)
    table = boxes(5, 60, 60)
    ds = rasters.plan(tmp_path / "c.tif", table).load(progress=False)
    assert ds.image.dtype == "complex64"
    for i, region in enumerate(table.itertuples()):
        rows, columns = slice(region.row, region.row + 16), slice(region.col, region.col + 16)
        np.testing.assert_array_equal(ds.image[i, :, :, 0], pixels[0, rows, columns])


def test_colours_that_gdal_converts(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((4, 60, 60)), block=16, compress="deflate",
                        photometric="cmyk")  # fmt: skip
    table = boxes(9, 60, 60)
    ds = rasters.plan(path, table).load(progress=False)
    for i, region in enumerate(table.itertuples()):
        np.testing.assert_array_equal(ds.image[i], boundless(path, region))


def test_resampling_to_one_size(tmp_path):
    pixels = noise((2, 120, 120))
    path = write_raster(tmp_path / "a.tif", pixels, block=32)
    table = pd.DataFrame(
        {"col": [3, 50, 0], "row": [8, 20, 0], "width": [64, 31, 120], "height": [32, 57, 120]}
    )
    ds = rasters.plan(path, table, size=(24, 16)).load(progress=False)
    with rasterio.open(path) as source:
        for i, region in enumerate(table.itertuples()):
            window = rasterio.windows.Window(region.col, region.row, region.width, region.height)
            truth = source.read(window=window, out_shape=(2, 24, 16))
            np.testing.assert_array_equal(ds.image[i], np.moveaxis(truth, 0, 2))
    averaged = rasters.plan(path, table[:1], size=(8, 16), resampling="average").load(
        progress=False
    )
    blocks = pixels[:, 8:40, 3:67].reshape(2, 8, 4, 16, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(averaged.image[0], np.moveaxis(blocks, 0, 2), atol=0.51)
    # chips of the wanted size already are left alone, whatever the method
    same = rasters.plan(path, boxes(4, 120, 120), size=16, resampling="cubic").load(progress=False)
    xr.testing.assert_equal(
        same.image, rasters.plan(path, boxes(4, 120, 120)).load(progress=False).image
    )


def with_overviews(folder):
    """A raster of noise whose overviews cannot be told from its own pixels."""
    path = write_raster(folder / "a.tif", noise((2, 800, 640)), block=64)
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    return path


@pytest.mark.parametrize("resampling", ["nearest", "average"])
def test_overviews_serve_where_every_chip_is_smaller(tmp_path, resampling):
    path = with_overviews(tmp_path)
    table = pd.DataFrame({"col": [8, 400, -40], "row": [16, 300, 700],
                          "width": [128, 256, 128], "height": [128, 128, 128]})  # fmt: skip
    plan = rasters.plan(path, table, size=32, resampling=resampling)
    assert plan.source.raster.overviews == ()
    assert (plan.source.raster.height, plan.source.raster.width) == (200, 160)
    ds = plan.load(progress=False)
    xr.testing.assert_identical(plan.to_xarray().sel(sample=ds.sample).compute(), ds)
    with rasterio.open(path, overview_level=1) as small:
        np.testing.assert_array_equal(
            ds.image[0], np.moveaxis(small.read(window=((4, 36), (2, 34))), 0, 2)
        )
        there = small.read(window=((75, 107), (100, 160)))
    if resampling == "average":
        there = there[:, :, :60].reshape(2, 32, 30, 2).mean(axis=3)
        np.testing.assert_allclose(ds.image[1, :, :30], np.moveaxis(there, 0, 2), atol=0.51)
    else:
        np.testing.assert_array_equal(ds.image[1, :, :30], np.moveaxis(there[:, :, 1::2], 0, 2))
    # columns that lie in the raster, rows too
    assert ds.valid[1].sum() == 32 * 30
    assert ds.valid[2].sum() == 25 * 22
    assert ds.geotransform[0].values.tolist() == [5e5 + 80, 40, 0, 5e6 - 160, 0, -40]
    assert ds.width.values.tolist() == [128, 256, 128]


def test_overviews_serve_no_chip_that_is_finer(tmp_path):
    path = with_overviews(tmp_path)
    table = pd.DataFrame({"col": [0, 0], "row": [0, 9], "width": [128, 60], "height": [128, 90]})
    plan = rasters.plan(path, table, size=32)
    assert plan.source.raster.level is None
    whole = rasters.plan(path, table[:1], size=32, overviews=False)
    assert whole.source.raster.level is None
    with rasterio.open(path) as source:
        pixels = source.read(window=((0, 128), (0, 128)))[:, 2::4, 2::4]
    np.testing.assert_array_equal(whole.load(progress=False).image[0], np.moveaxis(pixels, 0, 2))


def test_a_polygon_in_an_overview(tmp_path):
    import geopandas as gpd

    path = with_overviews(tmp_path)
    disk = shapely.Point(500900, 4998500).buffer(480)
    table = gpd.GeoDataFrame({"label": ["a"]}, geometry=[disk], crs=32633)
    found = rasters.regions(table, path, polygon_mask=True)
    fine = rasters.plan(path, found, size=32, overviews=False).load(progress=False)
    coarse = rasters.plan(path, found, size=32)
    assert coarse.source.raster.level == 0
    np.testing.assert_array_equal(coarse.load(progress=False).valid, fine.valid)


def test_resampling_lets_no_padding_into_an_average(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((1, 40, 40), 200, np.uint8))
    table = pd.DataFrame({"col": [-8], "row": [-8], "width": [32], "height": [32]})
    ds = rasters.plan(path, table, size=8, resampling="bilinear").load(progress=False)
    assert set(np.unique(ds.image.values[ds.valid.values])) == {200}
    assert int(ds.valid.sum()) == 36
    assert (ds.image.values[~ds.valid.values] == 0).all()


def test_a_polygon_masks_its_chip(tmp_path):
    import geopandas as gpd

    path = write_raster(tmp_path / "a.tif", noise((1, 100, 100)), block=16)
    triangle = shapely.Polygon([(500101, 4999902), (500407, 4999803), (500153, 4999504)])
    square = shapely.box(500500, 4999200, 500600, 4999300)
    table = gpd.GeoDataFrame({"label": ["a", "b"]}, geometry=[triangle, square], crs=32633)
    found = rasters.regions(table, path, polygon_mask=True)
    ds = rasters.plan(path, found).load(progress=False)
    whole = geometry_mask([triangle], (100, 100), NORTH_UP, invert=True)
    col, row, width, height = found.iloc[0][["col", "row", "width", "height"]]
    np.testing.assert_array_equal(
        ds.valid[0, :height, :width], whole[row : row + height, col : col + width]
    )
    assert int(ds.valid[0].sum()) == int(whole.sum())
    assert int(ds.valid[1].sum()) == 100
    assert "polygon" not in ds


def test_the_real_raster(real_data):
    path = real_data / "RGB.byte.tif"
    table = boxes(150, 718, 791, side=50, beyond=60)
    ds = rasters.plan(path, table, outside="keep").load(progress=False)
    for i, region in enumerate(table.itertuples()):
        np.testing.assert_array_equal(ds.image[i], boundless(path, region))


def test_chips_that_do_not_fit_into_memory_are_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 40, 40)))
    one = pd.DataFrame({"col": [0], "row": [0], "width": [10**6], "height": [10**7]})
    with pytest.raises(MemoryError, match=r"1 chips take .* use to_xarray\(\) or write\(\)"):
        rasters.plan(path, one).load()
