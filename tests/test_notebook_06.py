"""The raster notebook runs in batch, on the made-up mosaic and on the reader's raster and table."""

import pandas as pd
import pytest
from notebook_running import run

SMALL = {
    "mosaic_size": 1024,
    "n_regions": 300,
    "size": 32,
    "counts": "300 2000",
    "most": 50,
    "points": "1000 2000",
    "memory": "32MiB",
}


def test_on_the_made_up_mosaic(tmp_path):
    results = run("06_raster_cropping", tmp_path, **SMALL)
    assert results["chips"] == {"regions": 300, "compared": 300, "differ": 0}
    assert results["raster"] == {"made_up": True, "size": [1024, 1024]}
    seconds = pd.DataFrame(**results["seconds"])
    assert set(seconds["regions"]) == {300, 2000}
    assert 0 < results["killed_at_group"] < results["memory"]["groups"]
    claims = results["claims"]
    assert claims["resumed, every byte is the same"] == "holds"
    assert claims["the process kept to its memory"] == "not about these data"
    assert "DOES NOT HOLD" not in claims.values()


def test_on_a_raster_and_a_table_of_ones_own(real_data, tmp_path):
    places = pd.DataFrame({"x": [-77.5], "y": [24.5], "kind": ["sea"]})
    places = pd.concat([places] * 40, ignore_index=True)
    places["x"] += pd.Series(range(40)) * 0.02
    places.to_csv(tmp_path / "places.csv", index=False)
    results = run(
        "06_raster_cropping",
        tmp_path / "runs",
        raster=str(real_data / "RGB.byte.tif"),
        table=str(tmp_path / "places.csv"),
        table_crs="EPSG:4326",
        **{key: SMALL[key] for key in ("size", "counts", "most", "points", "memory")},
    )
    assert results["raster"] == {"made_up": False, "size": [718, 791]}
    assert results["chips"] == {"regions": 40, "compared": 40, "differ": 0}
    assert results["claims"]["resumed, every byte is the same"] == "holds"


def test_a_wrong_crs_is_named(real_data, tmp_path):
    pd.DataFrame({"x": [1.0], "y": [2.0]}).to_csv(tmp_path / "places.csv", index=False)
    with pytest.raises(AssertionError, match="has no CRS"):
        run(
            "06_raster_cropping",
            tmp_path / "runs",
            raster=str(real_data / "RGB.byte.tif"),
            table=str(tmp_path / "places.csv"),
        )
