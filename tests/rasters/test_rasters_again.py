"""What `write` leaves is a dataset, in every format."""

import tarfile

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from raster_making import boxes, corrupt, noise, write_raster

from workbench import datasets, rasters

FORMATS = ["zarr", "geotiff", "png", "webdataset", "tar"]


def _written(plan, folder, form):
    path = folder / ("chips.tar" if form == "tar" else f"chips-{form}")
    plan.write(path, "zarr" if form == "tar" else form, progress=False)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_chips_come_back_with_labels_ids_and_places(tmp_path, form):
    path = write_raster(tmp_path / "a.tif", noise((3, 300, 300)), block=32)
    table = boxes(150, 300, 300, beyond=8)
    table["height"] = np.where(np.arange(150) % 3, 16, 12)
    table["label"] = np.where(np.arange(150) % 2, "tree", "house").astype(object)
    table.loc["r7", "label"] = None
    table["height above sea"] = np.arange(150) / 2
    table["name"] = [f"place {i}" for i in range(150)]
    plan = rasters.plan(path, table, memory="16MiB")
    there = _written(plan, tmp_path, form)
    ds = datasets.load(there)
    wanted = plan.load(progress=False)
    xr.testing.assert_equal(ds.drop_vars(["position", "mask"], errors="ignore"), wanted)
    for key in ("name", "crs", "fill", "color"):
        assert str(ds.attrs[key]) == str(wanted.attrs[key])
    assert datasets.load(there, n=10).sizes["sample"] == 10
    with pytest.raises(TypeError, match="cannot be chosen for chips"):
        datasets.load(there, size=8, mode="L")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_pixels_of_any_type_are_the_rasters_own(tmp_path, form, dtype):
    if form == "png" and dtype == "float32":
        pytest.skip("PNG holds whole numbers")
    path = write_raster(tmp_path / "a.tif", noise((1, 90, 90), dtype), block=32)
    plan = rasters.plan(path, rasters.grid(path, 32))
    ds = datasets.load(_written(plan, tmp_path, form))
    xr.testing.assert_equal(
        ds.drop_vars(["position", "mask"], errors="ignore"), plan.load(progress=False)
    )
    assert ds.image.dtype == dtype


def test_a_lazy_store_is_read_as_it_lies(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((3, 300, 300)), block=32)
    plan = rasters.plan(path, boxes(150, 300, 300))
    there = _written(plan, tmp_path, "zarr")
    lazy = datasets.load(there, lazy=True)
    assert lazy.image.chunks is not None
    xr.testing.assert_equal(lazy.load().sortby("position"), datasets.load(there, lazy=False))


@pytest.mark.parametrize("form", ["geotiff", "png"])
def test_what_failed_comes_back_as_failed(tmp_path, form):
    path = tmp_path / "a.tif"
    write_raster(path, noise((3, 96, 96)), block=32, compress="deflate")
    corrupt(path, 1, 1)
    plan = rasters.plan(path, rasters.grid(path, 32))
    with pytest.warns(rasters.FailedRegionsWarning):
        there = _written(plan, tmp_path, form)
    ds = datasets.load(there)
    assert ds.attrs["failed"] == [4]
    assert not ds.valid[4].any()
    assert ds.valid.sum() == 8 * 32 * 32


def test_unfinished_and_foreign_files_are_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((3, 96, 96)), block=32)
    there = _written(rasters.plan(path, rasters.grid(path, 32)), tmp_path, "png")
    (there / "manifest.parquet").unlink()
    with pytest.raises(ValueError, match=r"not written to its end"):
        datasets.load(there)
    pd.Series([1]).to_csv(tmp_path / "a.csv")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.add(tmp_path / "a.csv", "a.csv")
    with pytest.raises(ValueError, match=r"a has no \.json"):
        datasets.load(tmp_path / "b.tar")


@pytest.mark.parametrize(
    "named", ["../secret.png", "{tmp}/secret.png", "/vsicurl/http://127.0.0.1:9/a.png"]
)
def test_a_manifest_names_no_file_outside_its_folder(tmp_path, named):
    path = write_raster(tmp_path / "a.tif", noise((3, 96, 96)), block=32)
    there = _written(rasters.plan(path, rasters.grid(path, 32)), tmp_path, "png")
    table = pd.read_parquet(there / "manifest.parquet")
    table.loc[table.index[3], "path"] = named.format(tmp=tmp_path)
    table.to_parquet(there / "manifest.parquet")
    with pytest.raises(ValueError, match="lies outside the folder"):
        datasets.load(there)
