"""Zonal statistics against areas that shapely intersects, pixel by pixel."""

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from raster_making import corrupt, noise, write_raster

from workbench import rasters
from workbench._cover import shares

corner = st.tuples(st.floats(-3, 14), st.floats(-3, 14))


@settings(max_examples=50, deadline=None)
@given(st.lists(corner, min_size=3, max_size=8), corner, st.floats(0.1, 4))
def test_shares_are_the_areas_that_shapely_intersects(outer, hole, radius):
    disc = shapely.Point(hole).buffer(radius, quad_segs=2)
    shape = shapely.make_valid(shapely.Polygon(outer)).difference(disc)
    columns, rows = np.meshgrid(np.arange(10), np.arange(12))
    pixels = shapely.box(columns, rows, columns + 1, rows + 1)
    wanted = shapely.area(shapely.intersection(pixels, shape))
    # slivers can be too much for shapely
    assume(abs(wanted.sum() - shapely.intersection(shape, shapely.box(0, 0, 10, 12)).area) < 1e-7)
    box = np.array([[0, 0, 10, 12]])
    (got,) = shares([shape], box)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    some = next(shares([shape], np.array([[2, 3, 4, 5]])))
    np.testing.assert_allclose(some, wanted[3:8, 2:6], atol=1e-6)


def _places(n, seed, side=900):
    rng = np.random.default_rng(seed)
    centres = shapely.points(5e5 + rng.uniform(-20, side, n), 5e6 - rng.uniform(-20, side, n))
    shapes = shapely.buffer(centres, rng.uniform(3, 150, n))
    return geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32633")


def _plan(path, places, **options):
    regions = rasters.regions(places, path, polygon_mask=True)
    return rasters.plan(path, regions, **options)


def _truth(pixels, shape, nodata):
    """By every pixel's own intersection: count, sum, mean, min, max, majority."""
    rows, columns = pixels.shape
    x, y = np.meshgrid(5e5 + 10.0 * np.arange(columns), 5e6 - 10.0 * np.arange(rows))
    cover = shapely.area(shapely.intersection(shapely.box(x, y - 10, x + 10, y), shape)) / 100
    there = (cover > 1e-9) & (pixels != nodata)
    v, w = pixels[there].astype(float), cover[there]
    if not len(v):
        return [0, 0, *[np.nan] * 4]
    kinds = np.unique(v)
    sums = np.array([w[v == kind].sum() for kind in kinds]).round(7)
    majority = kinds[sums == sums.max()].max()
    return [w.sum(), (v * w).sum(), (v * w).sum() / w.sum(), v.min(), v.max(), majority]


@pytest.mark.parametrize("edge", ["pad", "clip"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_statistics_are_those_of_shares_and_data(tmp_path, edge, dtype):
    pixels = np.random.default_rng(0).integers(0, 9, (2, 90, 90)).astype(dtype)
    path = write_raster(tmp_path / "a.tif", pixels, block=32, nodata=3)
    places = _places(15, 1)
    plan = _plan(path, places, edge=edge)
    names = ["count", "sum", "mean", "min", "max", "majority"]
    table = plan.zonal(names, progress=False)
    assert table.index.tolist() == plan.table.index.tolist()
    for band in (1, 2):
        got = table[[f"{name}_{band}" for name in names]].to_numpy()
        wanted = [_truth(pixels[band - 1], s, 3) for s in places.geometry.loc[table.index]]
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_a_polygon_of_whole_pixels_has_their_median_and_one_in_pieces_its_mean(tmp_path):
    pixels = noise((1, 600, 700), "float32")
    path = write_raster(tmp_path / "a.tif", pixels, block=128)
    squares = [
        shapely.box(5e5 + 100, 5e6 - 2000, 5e5 + 1000, 5e6 - 800),
        shapely.box(5e5 + 100, 5e6 - 5900, 5e5 + 6900, 5e6),
    ]
    places = geopandas.GeoDataFrame(geometry=squares, crs="EPSG:32633")
    table = _plan(path, places).zonal(["median", "mean"], progress=False)
    inner = pixels[0, 80:200, 10:100].astype(float)
    assert table["median"][0] == pytest.approx(np.median(inner))
    assert table["mean"][0] == pytest.approx(inner.mean())
    small = write_raster(tmp_path / "b.tif", noise((1, 3000, 3000), "float32"), block=128)
    wide = geopandas.GeoDataFrame(geometry=[shapely.box(5e5, 4.97e6, 5.3e5, 5e6)], crs=places.crs)
    plan = _plan(small, wide, memory="16MiB")
    assert plan.chip_format.pieces > 1
    found = plan.zonal(["mean", "max", "sum", "count"], progress=False).loc[0]
    whole = noise((1, 3000, 3000), "float32").astype(float)
    wanted = [whole.mean(), whole.max(), whole.sum(), whole.size]
    np.testing.assert_allclose(found, wanted, rtol=1e-7)
    with pytest.raises(rasters.RegionError, match="with more memory="):
        plan.zonal(["median"])


def test_what_cannot_be_measured_is_named(tmp_path):
    path = tmp_path / "a.tif"
    write_raster(path, noise((1, 96, 96)), block=32, compress="deflate")
    places = _places(20, 3)
    corrupt(path, 1, 1)
    plan = _plan(path, places)
    with pytest.warns(rasters.FailedRegionsWarning, match="could not be read"):
        table = plan.zonal(progress=False)
    box = plan.boxes
    bad = ((box[:, :2] < 64) & (box[:, :2] + box[:, 2:] > 32)).all(axis=1)
    assert table["mean"].isna().tolist() == bad.tolist()
    with pytest.raises(ValueError, match="'mode' is none of count"):
        plan.zonal(["mode"])
    with pytest.raises(rasters.RegionError, match="there are no polygons"):
        rasters.plan(path, rasters.grid(path, 32)).zonal()
    with pytest.raises(rasters.RegionError, match="without size="):
        _plan(path, places, size=8).zonal()
