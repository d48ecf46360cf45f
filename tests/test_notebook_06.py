"""The raster notebook runs in batch, on the made-up mosaic and on the reader's raster and table."""

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from notebook_running import run, run_in

SMALL = {"mosaic_size": 1024, "n_regions": 300, "size": 32, "memory": "32MiB"}


def test_on_the_made_up_mosaic(tmp_path):
    results, folder = run_in("06_raster_cropping", tmp_path, **SMALL)
    assert results["chips"]["regions"] == 300
    assert 150 < results["chips"]["compared"] <= 200
    assert results["raster"] == {"made_up": True, "size": [1024, 1024]}
    assert set(results["claims"].values()) == {"holds"}
    chips = xr.open_zarr(folder / "chips.zarr")
    back = geopandas.read_file(folder / "chips.gpkg").set_index("sample")
    assert sorted(back.index) == sorted(chips.sample.values)
    assert back["confidence"].between(0, 1).all()
    with rasterio.open(folder / "chips.tif") as source:
        first = chips.isel(sample=0)
        row, col = int(first.row + first.height // 2), int(first.col + first.width // 2)
        assert 0 <= source.read(1)[row, col] <= 1


def test_on_a_raster_and_a_table_of_ones_own(real_data, tmp_path):
    places = pd.DataFrame(
        {"lon of it": np.linspace(-77.5, -76.7, 40), "lat of it": 24.5, "kind": "sea"}
    )
    places.to_csv(tmp_path / "places.csv", index=False)
    results, folder = run_in(
        "06_raster_cropping",
        tmp_path / "runs",
        raster=str(real_data / "RGB.byte.tif"),
        table=str(tmp_path / "places.csv"),
        table_crs="EPSG:4326",
        x_column="lon of it",
        y_column="lat of it",
        label_column="kind",
        **{key: SMALL[key] for key in ("size", "memory")},
    )
    assert results["raster"] == {"made_up": False, "size": [718, 791]}
    assert results["chips"] == {"regions": 40, "compared": 40, "differ": 0}
    assert "DOES NOT HOLD" not in results["claims"].values()
    back = geopandas.read_file(folder / "chips.gpkg")
    assert back["label"].unique().tolist() == ["sea"]


def test_a_wrong_crs_is_named(real_data, tmp_path):
    pd.DataFrame({"x": [1.0], "y": [2.0]}).to_csv(tmp_path / "places.csv", index=False)
    with pytest.raises(AssertionError, match="has no CRS"):
        run(
            "06_raster_cropping",
            tmp_path / "runs",
            raster=str(real_data / "RGB.byte.tif"),
            table=str(tmp_path / "places.csv"),
        )
