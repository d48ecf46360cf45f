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
