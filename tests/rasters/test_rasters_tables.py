"""Tables of regions from every kind of file."""

import zipfile

import geopandas
import pandas as pd
import pytest
import rasterio
import shapely
from raster_making import noise, write_raster

from workbench.rasters import NoOverlapError, RasterWarning, RegionError, read_table, regions
from workbench.rasters import plan as make_plan


@pytest.fixture
def plain():
    return pd.DataFrame({"x": [1.5, 2.5], "y": [3.0, 4.0], "label": ["a", "b"]})


@pytest.fixture
def located(plain):
    shapes = shapely.points(plain["x"], plain["y"])
    return geopandas.GeoDataFrame(plain[["label"]], geometry=shapes, crs="EPSG:32632")


def test_csv_and_parquet(plain, tmp_path):
    plain.to_csv(tmp_path / "a.csv", index=False)
    plain.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name), plain)


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.parquet"])
def test_geometries_keep_their_crs(located, tmp_path, name):
    if name.endswith("parquet"):
        located.to_parquet(tmp_path / name)
    else:
        located.to_file(tmp_path / name)
    table = read_table(tmp_path / name)
    assert table.crs.to_epsg() == 32632
    assert table["label"].tolist() == ["a", "b"]
    assert table.geometry.geom_equals(located.geometry).all()


def test_what_is_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="no table at"):
        read_table(tmp_path / "gone.csv")
    for name in ("a.parquet", "a.gpkg"):
        (tmp_path / name).write_text("no table at all")
        with pytest.raises(RegionError, match="cannot be read as a table"):
            read_table(tmp_path / name)


TEXTS = {
    "semicolon": ("places.csv", "x;y;label\n1.5;3;a\n2.5;4;b\n", {}),
    "tab": ("places.tsv", "x\ty\tlabel\n1.5\t3\ta\n2.5\t4\tb\n", {}),
    "named": ("places.txt", "x:y:label\n1.5:3:a\n2.5:4:b\n", {"separator": ":"}),
    "byte order mark": ("places.csv", "\ufeffx,y,label\n1.5,3,a\n2.5,4,b\n", {}),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_of_every_separator(plain, tmp_path, kind):
    name, text, options = TEXTS[kind]
    (tmp_path / name).write_text(text, encoding="utf-8")
    pd.testing.assert_frame_equal(read_table(tmp_path / name, **options), plain, check_dtype=False)


def test_other_encodings_are_named_or_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,label\n1,2,Grün\n", encoding="latin-1")
    with pytest.raises(RegionError, match="is not in utf-8-sig; give encoding="):
        read_table(tmp_path / "a.csv")
    assert read_table(tmp_path / "a.csv", encoding="latin-1")["label"].tolist() == ["Grün"]


def test_zipped_tables(plain, located, tmp_path):
    for name in ("a.csv.gz", "a.csv.zip"):
        plain.to_csv(tmp_path / name, index=False)
        pd.testing.assert_frame_equal(read_table(tmp_path / name), plain)
    located.to_file(tmp_path / "a.gpkg")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(tmp_path / "a.gpkg", "a.gpkg")
    assert read_table(tmp_path / "b.zip").crs.to_epsg() == 32632


def test_a_layer_and_well_known_text(located, tmp_path):
    located.to_file(tmp_path / "a.gpkg", layer="first")
    located.iloc[:1].to_file(tmp_path / "a.gpkg", layer="second")
    assert len(read_table(tmp_path / "a.gpkg", layer="second")) == 1
    pd.DataFrame({"label": ["a", "b"], "WKT": located.geometry.to_wkt()}).to_csv(
        tmp_path / "a.csv", index=False
    )
    table = read_table(tmp_path / "a.csv")
    assert table.geometry.geom_equals(located.geometry.set_crs(None, allow_override=True)).all()


# What a table says of its places -------------------------------------------------------------


@pytest.fixture
def raster(tmp_path):
    """Two degrees square at 10 to 12 east, 50 to 52 north."""
    transform = rasterio.Affine(0.01, 0, 10, 0, -0.01, 52)
    return write_raster(tmp_path / "a.tif", noise((1, 200, 200)), transform=transform, crs=4326)


@pytest.mark.parametrize("names", [("lon", "lat"), ("Longitude", "LATITUDE"), ("lng", "lat")])
def test_longitudes_and_latitudes_are_recognised(raster, names):
    table = pd.DataFrame({names[0]: [11.0], names[1]: [51.0], "label": ["a"]})
    found = regions(table, raster, size=8)
    assert found.loc[0].to_dict() == {"col": 96, "row": 96, "width": 8, "height": 8, "label": "a"}


def test_a_multipoint_of_one_point_is_a_point(raster):
    shapes = geopandas.GeoDataFrame(
        geometry=[shapely.MultiPoint([(11, 51)]), shapely.Point(11, 51)], crs=4326
    )
    assert regions(shapes, raster, size=8)["width"].tolist() == [8, 8]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", None, "c"], r"the column 'id' has no id in row 1 .*rename it"),
        (["a", "b", "a"], r"in the column 'id' 'a' occurs twice .*rename it"),
    ],
)
def test_ids_that_cannot_be_name_the_column_and_the_remedy(raster, ids, message):
    table = pd.DataFrame({"x": 11.0, "y": 51.0, "id": ids})
    with pytest.raises(RegionError, match=message):
        regions(table, raster, size=8, crs=4326)
    with pytest.raises(RegionError, match=r"index 'a' occurs twice .*reset_index"):
        regions(table.drop(columns="id").set_axis(list("aba")), raster, size=8, crs=4326)


PLACES = {
    "swapped": ({"x": [51, 50.5, 10.5], "y": [11, 11.5, 50.5]}, "with x and y swapped 2 of them"),
    "no hint": ({"x": [40, 41, 10.5], "y": [60, 60, 50.5]}, r"\(0, 1\)$"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_places_outside_are_counted_named_and_skipped(raster, kind):
    places, hint = PLACES[kind]
    found = regions(pd.DataFrame(places), raster, size=8, crs="raster")
    with pytest.warns(RasterWarning, match=r"2 of 3 regions lie wholly outside .*" + hint):
        plan = make_plan(raster, found)
    assert plan.table.index.tolist() == [2]
    assert plan.skipped.index.tolist() == [0, 1]
    assert make_plan(raster, found, outside="keep").load(progress=False).sizes["sample"] == 3


def test_longitudes_from_0_to_360(tmp_path):
    transform = rasterio.Affine(0.1, 0, -20, 0, -0.1, 52)
    west = write_raster(tmp_path / "w.tif", noise((1, 99, 99)), transform=transform, crs=4326)
    found = regions(pd.DataFrame({"lon": [345.0, 346.0], "lat": [50.0, 50]}), west, size=4)
    with pytest.raises(NoOverlapError, match="from -180 to 180 instead of 0 to 360 2 of them"):
        make_plan(west, found)
