"""What a pixel means survives: nodata of each band, masks, alpha and types, against rasterio."""

import numpy as np
import pandas as pd
import pytest
import rasterio
from raster_making import boxes, expected, noise, with_alpha, write_raster
from rasterio.enums import Resampling

from workbench import rasters

METHODS = ["average", "bilinear", "cubic", "mode", "max", "min", "med", "q1", "rms"]


def whole(side):
    return pd.DataFrame({"col": [0], "row": [0], "width": [side], "height": [side]})


def close(found, truth, tolerance=1):
    """Equal but for the rounding of averages."""
    difference = np.abs(np.asarray(found, float) - np.asarray(truth, float))
    assert difference.max() <= tolerance


def read_as_rasterio(path, size, method, side=64, bands=None):
    with rasterio.open(path) as source:
        bands = bands or source.indexes
        shape = (len(bands), size, size)
        window = ((0, side), (0, side))
        pixels = source.read(bands, window=window, out_shape=shape, resampling=Resampling[method])
    return np.moveaxis(pixels, 0, 2)


def vrt(folder, *bands):
    """A VRT of (pixels, nodata) bands, each of its own type and nodata value."""
    types = {"uint8": "Byte", "uint16": "UInt16", "float32": "Float32"}
    lines = []
    for number, (pixels, nodata) in enumerate(bands, 1):
        write_raster(folder / f"{number}.tif", pixels[None])
        lines.append(
            f'<VRTRasterBand dataType="{types[str(pixels.dtype)]}" band="{number}">'
            f"<NoDataValue>{nodata}</NoDataValue><SimpleSource>"
            f'<SourceFilename relativeToVRT="1">{number}.tif</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    high, wide = bands[0][0].shape
    path = folder / "bands.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{wide}" rasterYSize="{high}">{"".join(lines)}</VRTDataset>'
    )
    return path


# Resampling --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_nodata_of_one_band_takes_no_part_where_another_has_data(tmp_path, method):
    pixels = np.full((2, 64, 64), 100, np.int16)
    pixels[0, :, :32] = -9999
    path = write_raster(tmp_path / "a.tif", pixels, nodata=-9999)
    ds = rasters.plan(path, whole(64), size=1, resampling=method).load(progress=False)
    assert ds.image.values.ravel().tolist() == [100, 100]


@pytest.mark.parametrize("method", ["average", "mode", "rms"])
def test_the_real_raster_averages_as_rasterio_does(real_data, method):
    path = real_data / "RGB.byte.tif"
    table = pd.DataFrame({"col": [0], "row": [0], "width": [784], "height": [712]})
    ds = rasters.plan(path, table, size=(89, 98), resampling=method).load(progress=False)
    with rasterio.open(path) as source:
        truth = source.read(
            window=((0, 712), (0, 784)), out_shape=(3, 89, 98), resampling=Resampling[method]
        )
    close(ds.image[0], np.moveaxis(truth, 0, 2))


def masked_rasters(folder):
    """One scene, 178 where it is masked, once for each way to mask it."""
    pixels = np.full((1, 64, 64), 100, np.uint8)
    pixels[:, :, 13:40] = 178
    hidden = pixels[0] == 178
    inner = write_raster(folder / "inner.tif", pixels, block=16)
    outer = write_raster(folder / "outer.tif", pixels, block=16)
    for path, inside in ((inner, "YES"), (outer, "NO")):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as target:
            target.write_mask(~hidden)
    alpha = np.concatenate([pixels, np.where(hidden, 0, 255)[None].astype(np.uint8)])
    with_alpha(write_raster(folder / "alpha.tif", alpha, block=16))
    assert (folder / "outer.tif.msk").exists()
    return {"internal mask": inner, "msk file": outer, "alpha": str(folder / "alpha.tif")}


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("method", ["average", "max", "bilinear"])
def test_what_a_mask_or_alpha_hides_takes_no_part(tmp_path, method, mask):
    for kind, path in masked_rasters(tmp_path).items():
        plan = rasters.plan(path, whole(64), 8, [1], resampling=method, mask=mask)
        ds = plan.load(progress=False)
        assert set(np.unique(ds.image)) == {0, 100}, kind
        if method == "average":  # rasterio too leaves 0 where all is masked
            truth = read_as_rasterio(path, 8, method, bands=[1])
            np.testing.assert_array_equal(ds.image.values[0], truth, kind)
        assert ("mask" in ds) == mask


def test_overviews_of_a_masked_raster(tmp_path):
    path = masked_rasters(tmp_path)["internal mask"]
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2], Resampling.nearest)
    plan = rasters.plan(path, whole(64), 8, resampling="average")
    assert plan.source.raster.level == 0
    assert set(np.unique(plan.load(progress=False).image)) == {0, 100}


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_holes_in_every_type(tmp_path, dtype):
    pixels = noise((3, 64, 64), dtype, seed=3)
    pixels[1, noise((64, 64), "uint8", seed=4) < 90] = 7
    pixels[2, 20:, 9:50] = 7
    path = write_raster(tmp_path / "a.tif", pixels, nodata=7)
    ds = rasters.plan(path, whole(64), size=16, resampling="average").load(progress=False)
    truth = read_as_rasterio(path, 16, "average")
    close(ds.image[0], truth, 1 if dtype.endswith("int16") else 1e-5)


# Bands that differ -------------------------------------------------------------------------


def test_each_band_has_its_own_nodata(tmp_path):
    one = np.full((64, 64), 100, np.uint16)
    two = np.full((64, 64), 50, np.uint16)
    one[:, :32] = 65535
    two[:, :32] = 0
    path = vrt(tmp_path, (one, 65535), (two, 0))
    table = pd.DataFrame({"col": [16, -8], "row": [0, 0], "width": [32, 32], "height": [32, 32]})
    ds = rasters.plan(path, table[:1], size=1, resampling="average").load(progress=False)
    assert ds.image.values.ravel().tolist() == [100, 50]
    ds = rasters.plan(path, table).load(progress=False)
    assert ds.image[1, 0, 0].values.tolist() == [65535, 0]
    assert ds.attrs["nodata"] == [65535, 0]
    alone = rasters.plan(path, table, bands=[2]).load(progress=False)
    assert alone.attrs["nodata"] == 0
    assert int(alone.image[1, 0, 0, 0]) == 0


def test_bands_of_different_types_are_no_obstacle_where_one_type_is_asked_for(tmp_path):
    bytes_, floats = noise((64, 64)), noise((64, 64), "float32")
    path = vrt(tmp_path, (bytes_, 0), (floats, -1), (bytes_[::-1].copy(), 0))
    table = boxes(5, 64, 64, beyond=4)
    with pytest.raises(rasters.RasterError, match="uint8, float32; choose some of one type by ban"):
        rasters.plan(path, table)
    for bands in ([2], [1, 3], [3]):
        ds = rasters.plan(path, table, bands=bands).load(progress=False)
        assert ds.image.dtype == ("float32" if bands == [2] else "uint8")
        for i, region in enumerate(table.itertuples()):
            fill = -1 if bands == [2] else 0
            truth = [expected(tmp_path / f"{band}.tif", region, fill=fill) for band in bands]
            np.testing.assert_array_equal(ds.image[i], np.concatenate(truth, axis=2))


# Written chips -----------------------------------------------------------------------------


def chips_of(plan, folder, form="geotiff"):
    written = plan.write(folder, form, progress=False)
    return [written.path / name for name in written.manifest["path"]]


def mask_there(path, region):
    """Rasterio's mask of the raster under a region; nothing outside."""
    with rasterio.open(path) as source:
        whole = np.zeros((region.height, region.width), bool)
        top, left = max(region.row, 0), max(region.col, 0)
        bottom = min(region.row + region.height, source.height)
        right = min(region.col + region.width, source.width)
        part = source.dataset_mask(window=((top, bottom), (left, right))) > 0
    rows = slice(top - region.row, bottom - region.row)
    whole[rows, left - region.col : right - region.col] = part
    return whole


def rasters_with_holes(folder):
    pixels = noise((3, 64, 64), seed=1)
    pixels[:, noise((64, 64), seed=2) < 60] = 0
    found = {**masked_rasters(folder)}
    found["nodata"] = write_raster(folder / "nodata.tif", pixels, nodata=0)
    found["float NaN"] = write_raster(
        folder / "nan.tif", np.where(pixels == 0, np.nan, pixels).astype("float32"), nodata=np.nan
    )
    found["none"] = write_raster(folder / "none.tif", pixels)
    return found


def test_a_geotiff_s_mask_is_the_raster_s_and_what_lies_outside(tmp_path):
    table = pd.DataFrame(
        {"col": [0, -5, 40, 20], "row": [0, 50, -9, 20], "width": 30, "height": 30}
    )
    for kind, path in rasters_with_holes(tmp_path).items():
        files = chips_of(rasters.plan(path, table), tmp_path / f"chips {kind}")
        for file, region in zip(files, table.itertuples(), strict=True):
            with rasterio.open(file) as chip:
                np.testing.assert_array_equal(
                    chip.dataset_mask() > 0, mask_there(path, region), kind
                )


def test_a_polygon_turns_no_nodata_into_data(tmp_path):
    import geopandas as gpd
    import shapely

    path = rasters_with_holes(tmp_path)["nodata"]
    disk = gpd.GeoDataFrame(geometry=[shapely.Point(30, 30).buffer(20)])
    with rasterio.open(path) as source:
        x, y = source.transform @ (30, 30)
    disk = gpd.GeoDataFrame(geometry=[shapely.Point(x, y).buffer(200)], crs=32633)
    found = rasters.regions(disk, path, polygon_mask=True)
    (file,) = chips_of(rasters.plan(path, found), tmp_path / "chips")
    valid = rasters.plan(path, found).load(progress=False).valid.values[0]
    with rasterio.open(file) as chip:
        holds = mask_there(path, next(found.itertuples()))
        np.testing.assert_array_equal(chip.dataset_mask() > 0, valid & holds)
        assert (valid & ~holds).sum() > 0


def test_the_real_raster_s_edge_chips_keep_their_nodata(real_data, tmp_path):
    path = real_data / "RGB.byte.tif"
    table = boxes(40, 718, 791, side=64, beyond=30)
    for file, region in zip(
        chips_of(rasters.plan(path, table), tmp_path / "chips"), table.itertuples(), strict=True
    ):
        with rasterio.open(file) as chip:
            np.testing.assert_array_equal(chip.dataset_mask() > 0, mask_there(path, region))


COLORS = {
    "RGB and near infrared": ("uint8", ["red", "green", "blue", "undefined"]),
    "RGBA": ("uint8", ["red", "green", "blue", "alpha"]),
    "16-bit RGBA": ("uint16", ["red", "green", "blue", "alpha"]),
    "grey and alpha": ("uint16", ["gray", "alpha"]),
    "five of nothing": ("int16", ["gray"] + ["undefined"] * 4),
}


@pytest.mark.parametrize("kind", COLORS)
def test_what_the_raster_says_of_its_bands_comes_with_its_chips(tmp_path, kind):
    dtype, colors = COLORS[kind]
    rgb = colors[0] == "red"
    path = write_raster(
        tmp_path / "a.tif",
        noise((len(colors), 64, 64), dtype),
        photometric="rgb" if rgb else "minisblack",
        alpha="yes" if colors[-1] == "alpha" else "no",
    )
    names = [f"band {i}" for i, _ in enumerate(colors)]
    with rasterio.open(path, "r+") as target:
        target.descriptions = names
        target.scales = [0.5] * len(colors)
        target.offsets = [3.0] * len(colors)
        target.units = ["m"] * len(colors)
        target.update_tags(SENSOR="eye")
        target.update_tags(1, WAVELENGTH="500", STATISTICS_MEAN="7")
    table = pd.DataFrame({"col": [3, -4], "row": [5, 50], "width": 20, "height": 20})
    plan = rasters.plan(path, table)
    with rasterio.open(path) as source:
        assert [color.name for color in source.colorinterp] == colors
        for file, region in zip(
            chips_of(plan, tmp_path / "chips"), table.itertuples(), strict=True
        ):
            with rasterio.open(file) as chip:
                assert chip.colorinterp == source.colorinterp
                assert chip.descriptions == tuple(names)
                assert (chip.scales, chip.offsets) == (source.scales, source.offsets)
                assert chip.units == source.units
                assert chip.tags()["SENSOR"] == "eye"
                assert chip.tags(1)["WAVELENGTH"] == "500"
                assert "STATISTICS_MEAN" not in chip.tags(1)
                np.testing.assert_array_equal(chip.dataset_mask() > 0, mask_there(path, region))
    for ds in (plan.load(progress=False), plan.to_xarray()):
        assert ds.attrs["color"] == colors
        assert (ds.attrs["scale"], ds.attrs["offset"], ds.attrs["unit"]) == (0.5, 3.0, "m")
        assert ds.attrs["tags"]["SENSOR"] == "eye"
    if dtype.startswith("uint"):
        if colors[-1] == "undefined":
            with pytest.raises(rasters.RegionError, match="of uint8 without alpha"):
                plan.write(tmp_path / "png", "png")
        else:
            assert plan.write(tmp_path / "png", "png", progress=False)


def test_a_palette_comes_with_its_chips(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 64, 64)) % 4)
    palette = {i: (10 * i, 20 * i, 30 * i, 255) for i in range(4)}
    with rasterio.open(path, "r+") as target:
        target.write_colormap(1, palette)
    plan = rasters.plan(path, boxes(2, 64, 64))
    for file in chips_of(plan, tmp_path / "chips"):
        with rasterio.open(file) as chip, rasterio.open(path) as source:
            assert chip.colormap(1) == source.colormap(1)
            assert chip.colorinterp == source.colorinterp
    assert plan.load(progress=False).attrs["colors"][0][1] == [1, 10, 20, 30, 255]


def test_written_chips_of_a_band_have_that_band_s_nodata(tmp_path):
    one = np.full((64, 64), 100, np.uint16)
    two = np.full((64, 64), 50, np.uint16)
    one[:, :32] = 65535
    two[:, :32] = 0
    path = vrt(tmp_path, (one, 65535), (two, 0))
    table = pd.DataFrame({"col": [16], "row": [0], "width": [32], "height": [32]})
    (file,) = chips_of(rasters.plan(path, table, bands=[2]), tmp_path / "two")
    with rasterio.open(file) as chip:
        assert chip.nodata == 0
        assert chip.read(1, masked=True).mean() == 50
    (file,) = chips_of(rasters.plan(path, table), tmp_path / "both")
    with rasterio.open(file) as chip:
        assert chip.read(masked=True).mean(axis=(1, 2)).tolist() == [100, 50]


def test_a_raster_placed_by_points_is_cut_by_pixel_boxes(tmp_path):
    gcp = rasterio.control.GroundControlPoint
    points = [gcp(0, 0, 10, 50), gcp(0, 99, 11, 50), gcp(99, 0, 10, 49), gcp(99, 99, 11, 49)]
    profile = {"driver": "GTiff", "count": 1, "height": 100, "width": 100, "dtype": "uint8"}
    with rasterio.open(tmp_path / "g.tif", "w", gcps=points, crs="EPSG:4326", **profile) as target:
        target.write(noise((1, 100, 100)))
    table = boxes(3, 100, 100, side=20)
    plan = rasters.plan(tmp_path / "g.tif", table)
    for file, region in zip(chips_of(plan, tmp_path / "chips"), table.itertuples(), strict=True):
        with rasterio.open(file) as chip:
            found, crs = chip.gcps
            assert crs.to_epsg() == 4326
            moved = [(p.row - region.row, p.col - region.col, p.x, p.y) for p in points]
            assert [(p.row, p.col, p.x, p.y) for p in found] == moved
            np.testing.assert_array_equal(
                chip.read(1), expected(tmp_path / "g.tif", region)[..., 0]
            )
    with pytest.raises(rasters.RegionError, match=r"ground control points only.*give pixel boxes"):
        rasters.regions(pd.DataFrame({"x": [10], "y": [50]}), tmp_path / "g.tif", size=8, crs=4326)


def test_a_raster_placed_by_polynomials_is_cut_by_pixel_boxes(tmp_path):
    line = [0.0] * 20
    rpc = rasterio.rpc.RPC(0, 1, 50, 1, line, line, 50, 40, 10, 1, line, line, 50, 40)
    profile = {"driver": "GTiff", "count": 1, "height": 100, "width": 100, "dtype": "uint8"}
    with rasterio.open(tmp_path / "r.tif", "w", rpcs=rpc, **profile) as target:
        target.write(noise((1, 100, 100)))
    table = boxes(2, 100, 100, side=20)
    plan = rasters.plan(tmp_path / "r.tif", table)
    for file, region in zip(chips_of(plan, tmp_path / "chips"), table.itertuples(), strict=True):
        with rasterio.open(file) as chip, rasterio.open(tmp_path / "r.tif") as source:
            assert chip.rpcs.line_off == source.rpcs.line_off - region.row
            assert chip.rpcs.samp_off == source.rpcs.samp_off - region.col
    with pytest.raises(rasters.RegionError, match=r"rational polynomials \(RPC\) only"):
        rasters.regions(pd.DataFrame({"x": [10], "y": [50]}), tmp_path / "r.tif", size=8, crs=4326)


def test_64_bit_ids_come_through_every_format(tmp_path):
    import json
    import tarfile

    path = write_raster(tmp_path / "a.tif", noise((1, 64, 64)))
    table = boxes(3, 64, 64).set_axis([2**53 + 1, 2**62 + 3, 7])
    table["parcel"] = [2**53 + 5, 2**60 + 7, 1]
    table["share"] = [0.5, 0.25, 1.0]
    plan = rasters.plan(path, table)
    written = plan.write(tmp_path / "tars", "webdataset", progress=False)
    with tarfile.open(written.path / "000000.tar") as tar:
        facts = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]
    assert sorted(row["sample"] for row in facts) == sorted(table.index)
    assert sorted(row["parcel"] for row in facts) == sorted(table["parcel"])
    assert written.manifest["parcel"].tolist() == table["parcel"].tolist()


def test_complex_rasters_go_to_zarr(tmp_path):
    import xarray as xr

    path = write_raster(tmp_path / "a.tif", noise((1, 64, 64), "complex64"))
    plan = rasters.plan(path, boxes(4, 64, 64, beyond=4))
    stored = xr.open_zarr(plan.write(tmp_path / "chips", progress=False).path).sortby("position")
    np.testing.assert_array_equal(stored.image, plan.load(progress=False).image)


def test_gdal_s_options_of_the_caller_hold_in_our_threads(tmp_path):
    pixels = noise((1, 64, 64))
    path = write_raster(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2])
    seen = []

    def ask():
        from workbench.rasters import decode

        real = decode.GdalReader.read

        def read(self, rows, columns):
            seen.append(rasterio.env.getenv().get("GTIFF_SRS_SOURCE"))
            return real(self, rows, columns)

        return read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.rasters.decode.GdalReader.read", ask())
        with rasterio.Env(GTIFF_SRS_SOURCE="EPSG"):
            rasters.plan(path, boxes(9, 64, 64), decoder="gdal").load(threads=2, progress=False)
    assert set(seen) == {"EPSG"}
