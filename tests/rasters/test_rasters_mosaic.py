"""The way back: chips laid together are the raster, and boxes and masks lie where they should."""

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_making import boxes, corrupt, noise, write_raster
from rasterio import features

from workbench import rasters

small = st.integers(1, 40)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["uint8", "int16", "int32", "float32", "float64", "complex64"]),
    st.tuples(small, small),
    st.tuples(small, small),
    st.sampled_from(["mean", "last", "feather"]),
    st.booleans(),
    st.data(),
)
def test_chips_written_back_are_the_raster(tmp_path_factory, dtype, shape, size, blend, lazy, data):
    folder = tmp_path_factory.mktemp("back")
    overlap = data.draw(st.tuples(st.integers(0, size[0] - 1), st.integers(0, size[1] - 1)))
    pixels = noise((2, *shape), dtype)
    path = write_raster(folder / "a.tif", pixels, block=16)
    plan = rasters.plan(path, rasters.grid(path, size, overlap))
    ds = plan.to_xarray() if lazy else plan.load(progress=False)
    out = rasters.to_raster(folder / "b.tif", ds, ds.image, path, blend, progress=False)
    with rasterio.open(out) as back, rasterio.open(path) as source:
        np.testing.assert_array_equal(back.read(), pixels)
        assert back.transform == source.transform
        assert back.crs == source.crs


def test_a_real_raster_comes_back_with_its_nodata(real_data, tmp_path):
    path = real_data / "RGB.byte.tif"
    plan = rasters.plan(path, rasters.grid(path, 100, overlap=30))
    ds = plan.load(progress=False)
    out = rasters.to_raster(tmp_path / "b.tif", ds, ds.image, path, progress=False)
    with rasterio.open(out) as back, rasterio.open(path) as source:
        np.testing.assert_array_equal(back.read(), source.read())
        assert back.nodatavals == source.nodatavals


def _table(rows):
    return pd.DataFrame(rows, columns=["col", "row", "width", "height"])


def test_blends_of_two_chips(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 4, 10)))
    ds = rasters.plan(path, _table([(0, 0, 6, 4), (4, 0, 6, 4)])).load(progress=False)
    values = np.array([1.0, 4.0])

    def row(blend, values=values, **options):
        rasters.to_raster(tmp_path / "b.tif", ds, values, path, blend, progress=False, **options)
        with rasterio.open(tmp_path / "b.tif") as back:
            return back.read(1)[1].tolist()

    assert row("mean") == [1, 1, 1, 1, 2.5, 2.5, 4, 4, 4, 4]
    assert row("last") == [1, 1, 1, 1, 4, 4, 4, 4, 4, 4]
    # in the second row pixels count 2 towards the middle, and 1 at the edge
    assert row("feather") == [1, 1, 1, 1, 2, 3, 4, 4, 4, 4]
    with pytest.warns(rasters.RasterWarning, match="chips disagree on 8 pixels"):
        assert row("mean", np.array([1, 4]))[4] == 2
    with pytest.raises(ValueError, match="blend='first' is none of"):
        row("first")
    with pytest.raises(rasters.RegionError, match="there are 3 values for 2 chips"):
        row("mean", np.zeros(3))
    with pytest.raises(rasters.RasterError, match="is the raster that the chips were cut from"):
        rasters.to_raster(path, ds, values, path)


def test_gaps_are_nodata_or_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 600, 600)), block=128)
    ds = rasters.plan(path, _table([(0, 0, 6, 4), (300, 300, 50, 70)])).load(progress=False)
    rasters.to_raster(tmp_path / "b.tif", ds, [0.5, 1.5], path, progress=False)
    with rasterio.open(tmp_path / "b.tif") as back:
        pixels = back.read(1)
    assert np.isnan(pixels).sum() == 360_000 - 24 - 3500
    assert (pixels[300:370, 300:350] == 1.5).all()
    with pytest.warns(rasters.RasterWarning, match="356,476 pixels lie in no chip"):
        rasters.to_raster(tmp_path / "c.tif", ds, [1, 2], path, progress=False)
    rasters.to_raster(tmp_path / "c.tif", ds, [1, 2], path, nodata=9, progress=False)
    with rasterio.open(tmp_path / "c.tif") as back:
        assert (back.read(1) == 9).sum() == 356_476
        assert back.nodata == 9


def test_values_are_aligned_named_and_brought_to_their_regions_size(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 64, 64)), block=16)
    table = rasters.grid(path, 32)
    ds = rasters.plan(path, table, size=8).load(progress=False)
    scores = xr.DataArray(
        np.arange(8.0).reshape(4, 2),
        {"sample": [3, 2, 1, 0], "class": ["a", "b"]},
        ("sample", "class"),
    )
    rasters.to_raster(tmp_path / "b.tif", ds, scores, path, progress=False)
    with rasterio.open(tmp_path / "b.tif") as back:
        assert back.descriptions == ("a", "b")
        assert back.read()[:, ::32, ::32].tolist() == [[[6, 4], [2, 0]], [[7, 5], [3, 1]]]
    coarse = np.arange(4 * 16.0).reshape(4, 4, 4)
    rasters.to_raster(tmp_path / "b.tif", ds, coarse, path, progress=False)
    with rasterio.open(tmp_path / "b.tif") as back:
        wanted = np.block([[coarse[0], coarse[1]], [coarse[2], coarse[3]]])
        np.testing.assert_array_equal(back.read(1), wanted.repeat(8, 0).repeat(8, 1))
    with pytest.raises(rasters.RegionError, match="values lack 1 chips"):
        rasters.to_raster(tmp_path / "b.tif", ds, scores.assign_coords(sample=[3, 2, 1, 9]), path)
    with pytest.raises(rasters.RegionError, match="has no col, row"):
        rasters.to_raster(tmp_path / "b.tif", ds.drop_vars(["col", "row"]), scores, path)


def test_what_is_not_valid_is_left_out(tmp_path):
    path = tmp_path / "a.tif"
    pixels = noise((1, 64, 64))
    write_raster(path, pixels, block=16, compress="deflate")
    corrupt(path, 1, 1)
    plan = rasters.plan(path, rasters.grid(path, 16))
    with pytest.warns(rasters.FailedRegionsWarning):
        ds = plan.load(progress=False)
    rasters.to_raster(tmp_path / "b.tif", ds, ds.image * 1.0, path, progress=False)
    with rasterio.open(tmp_path / "b.tif") as back:
        there = back.read(1)
    assert np.isnan(there[16:32, 16:32]).all()
    there[16:32, 16:32] = pixels[0, 16:32, 16:32]
    np.testing.assert_array_equal(there, pixels[0])


def test_lazy_chips_in_a_scattered_order_end_in_an_error_that_says_what_to_do(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 2000, 2000)), block=256)
    table = rasters.grid(path, 100).sample(frac=1, random_state=0)
    ds = rasters.plan(path, table).load(progress=False).chunk(sample=10)
    with pytest.raises(MemoryError, match="give chips in the order in which they lie"):
        rasters.to_raster(tmp_path / "b.tif", ds, ds.image, path, memory="4MiB", progress=False)
    assert not list(tmp_path.glob("*b.tif*"))


@pytest.mark.parametrize("turned", [0, 25])
@pytest.mark.parametrize("size", [None, 16])
def test_boxes_lie_on_the_map_where_they_lie_on_the_chips(tmp_path, turned, size):
    transform = rasterio.Affine(10, 0, 5e5, 0, -10, 5e6) @ rasterio.Affine.rotation(turned)
    path = write_raster(tmp_path / "a.tif", noise((1, 90, 90)), transform=transform)
    ds = rasters.plan(path, _table([(10, 20, 32, 32), (5, 5, 32, 32)]), size).load(progress=False)
    found = pd.DataFrame(
        {
            "sample": [1, 0, 1],
            "x_min": [2, 0, 0],
            "y_min": [4, 0, 0],
            "x_max": [6, 1, 0],
            "y_max": [8, 1, 0],
            "label": ["a", "b", "c"],
            "points": [None, None, [[3, 3]]],
        }
    )
    table = rasters.to_features(ds, found, tmp_path / "found.gpkg")
    step = 1 if size is None else 2
    corner = transform @ (5 + 2 * step, 5 + 4 * step)
    np.testing.assert_allclose(table.geometry[0].exterior.coords[0], corner)
    assert table.geometry[0].area == pytest.approx(16 * step**2 * 100)
    np.testing.assert_allclose(
        table.geometry[2].coords[0], transform @ (5 + 3 * step, 5 + 3 * step)
    )
    back = geopandas.read_file(tmp_path / "found.gpkg")
    assert back.crs == "EPSG:32633"
    assert back.geometry.geom_equals_exact(table.geometry, 1e-6).all()
    assert back["label"].tolist() == ["a", "b", "c"]
    whole = rasters.to_features(ds, path=tmp_path / "chips.geojson")
    assert whole.geometry.area.tolist() == pytest.approx([32 * 32 * 100] * 2)
    degrees = geopandas.read_file(tmp_path / "chips.geojson")
    assert degrees.crs == "EPSG:4326"
    assert degrees.to_crs("EPSG:32633").geometry.geom_equals_exact(whole.geometry, 0.1).all()


def _shapes(n, seed):
    rng = np.random.default_rng(seed)
    x, y = 5e5 + rng.uniform(-50, 950, n), 5e6 - rng.uniform(-50, 950, n)
    shapes = [
        shapely.Point(a, b).buffer(r, quad_segs=2)
        for a, b, r in zip(x, y, rng.uniform(5, 120, n), strict=True)
    ]
    shapes[0] = shapely.LineString([(x[0], y[0]), (x[1], y[1])])
    kinds = rng.choice(["wood", "field", "lake"], n)
    return geopandas.GeoDataFrame(
        {"kind": kinds, "number": rng.integers(1, 300, n)}, geometry=shapes, crs="EPSG:32633"
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([None, "kind", "number"]))
def test_burned_masks_are_rasterios(tmp_path_factory, seed, all_touched, column):
    folder = tmp_path_factory.mktemp("burn")
    path = write_raster(folder / "a.tif", noise((1, 90, 90)))
    table = boxes(20, 90, 90, side=24, beyond=12, seed=seed % 1000)
    plan = rasters.plan(path, table, outside="keep")
    shapes = _shapes(12, seed)
    mask = rasters.burn(plan, shapes, column, all_touched=all_touched, background=0, progress=False)
    if column == "kind":
        assert mask.attrs["classes"] == ["", *sorted(set(shapes["kind"]))]
        values = [mask.attrs["classes"].index(kind) for kind in shapes["kind"]]
    else:
        values = shapes["number"] if column else [1] * len(shapes)
    with rasterio.open(path) as source:
        transform = source.transform @ rasterio.Affine.translation(-40, -40)
    whole = features.rasterize(
        list(zip(shapes.geometry, values, strict=True)),
        (170, 170),
        transform=transform,
        all_touched=all_touched,
        dtype="int32",
    )
    for chip, region in zip(mask.values, plan.table.itertuples(), strict=True):
        row, col = region.row + 40, region.col + 40
        np.testing.assert_array_equal(chip, whole[row : row + 24, col : col + 24])


def test_what_cannot_be_burned_is_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 90, 90)))
    plan = rasters.plan(path, rasters.grid(path, 30))
    shapes = _shapes(3, 0)
    with pytest.raises(rasters.RegionError, match="have no column 'crop'; they have kind, number"):
        rasters.burn(plan, shapes, "crop")
    with pytest.raises(rasters.RegionError, match=r"number holds 0\.5, no whole number"):
        rasters.burn(plan, shapes.assign(number=0.5), "number")
    shapes.loc[1, "kind"] = None
    with pytest.raises(rasters.RegionError, match="kind of feature 1 is missing"):
        rasters.burn(plan, shapes, "kind")
    elsewhere = shapes.to_crs("EPSG:4326")
    mask = rasters.burn(plan, elsewhere, "number", background=7, progress=False)
    assert mask.dtype == np.min_scalar_type(int(shapes["number"].max()))
    assert (mask == 7).any()
