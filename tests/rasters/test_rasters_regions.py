"""Points, boxes and geometries become the pixels that an independent way of finding them says."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from raster_making import NORTH_UP, noise, write_raster
from rasterio.warp import transform_geom

from workbench import rasters

ROTATED = rasterio.Affine(8, 3, 5e5, 2, -9, 5e6)
SOUTH_UP = rasterio.Affine(10, 0, 5e5, 0, 10, 4e6)


@pytest.fixture(params=[NORTH_UP, SOUTH_UP, ROTATED], ids=["north up", "south up", "rotated"])
def raster(request, tmp_path):
    return write_raster(tmp_path / "a.tif", noise((1, 90, 70)), transform=request.param)


def test_a_point_is_where_rasterio_says(raster):
    with rasterio.open(raster) as source:
        rows, columns = np.array([5, 40, 89]), np.array([0, 33, 69])
        x, y = source.xy(rows, columns)
    found = rasters.regions(pd.DataFrame({"x": x, "y": y, "name": list("abc")}), raster,
                            size=(8, 5), crs="EPSG:32633")  # fmt: skip
    assert (found["row"] + 4).tolist() == rows.tolist()
    assert (found["col"] + 2).tolist() == columns.tolist()
    assert found[["height", "width"]].to_numpy().tolist() == [[8, 5]] * 3
    assert found["name"].tolist() == list("abc")


def test_sizes_in_map_units(raster):
    with rasterio.open(raster) as source:
        (x, y), a = source.xy(40, 33), source.transform
    found = rasters.regions(pd.DataFrame({"x": [x], "y": [y]}), raster, size=100, units="map",
                            crs="raster")  # fmt: skip
    assert found["width"].tolist() == [round(100 / np.hypot(a.a, a.d))]
    assert found["height"].tolist() == [round(100 / np.hypot(a.b, a.e))]


def test_map_boxes_hold_every_pixel_they_touch(raster):
    with rasterio.open(raster) as source:
        corners = [source.transform @ (20, 30), source.transform @ (28, 42)]
        inverse = ~source.transform
    (x0, y0), (x1, y1) = corners
    left, right, bottom, top = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    table = pd.DataFrame({"left": [left], "bottom": [bottom], "right": [right], "top": [top]})
    found = rasters.regions(table, raster, crs=32633).iloc[0]
    around = [inverse @ point for point in [(left, top), (right, top), (left, bottom),
                                            (right, bottom)]]  # fmt: skip
    columns, rows = np.array(around).T
    assert found["col"] == np.floor(columns.min() + 1e-3)
    assert found["row"] == np.floor(rows.min() + 1e-3)
    assert found["col"] + found["width"] == np.ceil(columns.max() - 1e-3)
    assert found["row"] + found["height"] == np.ceil(rows.max() - 1e-3)


def test_geometries_are_reprojected_along_their_edges(tmp_path):
    far = rasterio.Affine(2000, 0, -2e6, 0, -2000, 8e6)
    path = write_raster(tmp_path / "a.tif", noise((1, 2000, 2000)), transform=far, crs="EPSG:32633")
    box = shapely.box(0, 55, 30, 60)
    table = gpd.GeoDataFrame({"label": ["sea"]}, geometry=[box], crs=4326)
    found = rasters.regions(table, path).iloc[0]
    fine = shapely.segmentize(box, 0.01)
    truth = shapely.geometry.shape(transform_geom("EPSG:4326", "EPSG:32633", fine))
    left, bottom, _, top = truth.bounds
    assert found["col"] == pytest.approx((left + 2e6) / 2000, abs=1.5)
    assert found["row"] == pytest.approx((8e6 - top) / 2000, abs=1.5)
    assert found["row"] + found["height"] == pytest.approx((8e6 - bottom) / 2000, abs=1.5)
    # four corners alone would miss kilometres of the bulging edge
    corners = shapely.geometry.shape(transform_geom("EPSG:4326", "EPSG:32633", box)).bounds
    assert corners[1] - bottom > 20_000


def test_a_missing_crs_is_an_error_on_either_side(tmp_path):
    plain = write_raster(tmp_path / "a.tif", noise((1, 90, 70)), crs=None)
    points = pd.DataFrame({"x": [500100.0], "y": [4999900.0]})
    with pytest.raises(rasters.RegionError, match="has no CRS to reproject to"):
        rasters.regions(points, plain, size=8, crs=4326)
    with pytest.raises(rasters.RegionError, match="the table has no CRS"):
        rasters.regions(points, plain, size=8)
    found = rasters.regions(points, plain, size=8, crs="raster")
    assert found[["col", "row"]].to_numpy().tolist() == [[6, 6]]
