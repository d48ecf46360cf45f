"""Tables of regions from every kind of file."""

import geopandas
import pandas as pd
import pytest
import shapely

from workbench.rasters import RegionError, read_table


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
