"""What is written is what is loaded, in every format, after any kill, and over nothing else."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from PIL import Image
from raster_making import boxes, corrupt, noise, tree, write_raster

from workbench import datasets, rasters

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


def make_plan(folder, **options):
    path = folder / "a.tif"
    if not path.exists():
        write_raster(path, noise((3, 700, 600)), block=64, compress="deflate", nodata=5)
    table = boxes(900, 700, 600, side=20, beyond=8)
    table["label"] = np.resize(["ash", "oak"], 900)
    table["score"] = np.linspace(0, 1, 900)
    return rasters.plan(path, table, **{"memory": "16MiB"} | options)


def make_small_plan(folder):
    """Few regions and many groups."""
    path = folder / "a.tif"
    if not path.exists():
        write_raster(path, noise((3, 300, 300)), block=64, compress="deflate")
    return rasters.plan(path, boxes(90, 300, 300, side=64, beyond=8), memory="16MiB")


@pytest.fixture
def plan(tmp_path):
    return make_plan(tmp_path)


@pytest.fixture
def loaded(plan):
    return plan.load(progress=False)


def same(one, other):
    """Equal in values, dtypes, dims, coordinates and attributes."""
    xr.testing.assert_identical(one, other)
    assert {n: v.dtype for n, v in one.variables.items()} == {
        n: v.dtype for n, v in other.variables.items()
    }


def test_several_groups_are_at_work(plan):
    assert plan.layout.groups >= 4
    assert plan.stats()["decodes_per_block"] == 1


def test_zarr_holds_what_load_returns(plan, loaded, tmp_path):
    written = plan.write(tmp_path / "chips.zarr", progress=False)
    assert written
    stored = xr.open_zarr(written.path)
    assert (stored.position.values == plan.layout.order).all()
    same(stored.sortby("position").compute().drop_vars("position"), loaded)
    import zarr

    image = zarr.open_group(written.path, mode="r")["image"]
    assert image.shards == (plan.layout.size, 20, 20, 3)
    assert image.metadata.zarr_format == 3
    shards = [path for path in (written.path / "image" / "c").rglob("*") if path.is_file()]
    assert len(shards) == plan.layout.groups


def test_the_manifest_tells_where_each_region_is(plan, loaded, tmp_path):
    written = plan.write(tmp_path / "chips.zarr", progress=False)
    write = pd.read_parquet(written.path / "manifest.parquet")
    assert write["sample"].tolist() == plan.table.index.tolist()
    assert write["label"].tolist() == plan.table["label"].tolist()
    stored = xr.open_zarr(written.path).sample.values
    assert (stored[write["stored"]] == write["sample"]).all()
    assert written.failed.empty


def test_geotiffs_carry_their_place(plan, loaded, tmp_path):
    written = plan.write(tmp_path / "tifs", "geotiff", progress=False)
    for i in range(0, 900, 37):
        with rasterio.open(written.path / written.manifest["path"][i]) as chip:
            np.testing.assert_array_equal(np.moveaxis(chip.read(), 0, 2), loaded.image[i])
            assert chip.transform.to_gdal() == tuple(loaded.geotransform[i].values)
            assert chip.crs.to_epsg() == 32633
            assert chip.nodata == 5
            if not loaded.valid[i].all():
                np.testing.assert_array_equal(chip.read_masks(1) > 0, loaded.valid[i])


def test_pngs_load_as_an_image_dataset(plan, loaded, tmp_path):
    written = plan.write(tmp_path / "pngs", "png", progress=False)
    names = written.manifest["path"]
    for i in range(0, 900, 37):
        np.testing.assert_array_equal(np.asarray(Image.open(written.path / names[i])),
                                      loaded.image[i])  # fmt: skip
    ds = datasets.load(written.path / "manifest.parquet", size=20)
    assert (ds.label.values == loaded.label.values).all()
    np.testing.assert_array_equal(ds.image.values, loaded.image.values)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_webdataset_tars(tmp_path, dtype):
    write_raster(tmp_path / "a.tif", noise((3, 700, 600), dtype), block=64)
    plan = make_plan(tmp_path)
    loaded = plan.load(progress=False)
    written = plan.write(tmp_path / "tars", "webdataset", progress=False)
    seen = {}
    for tar in sorted(written.path.glob("*.tar")):
        with tarfile.open(tar) as file:
            for member in file:
                key, kind = member.name.split(".", 1)
                seen.setdefault(key, {})[kind] = file.extractfile(member).read()
    assert set(seen) == set(plan.table.index)
    for i in range(0, 900, 37):
        parts = seen[f"r{i}"]
        facts = json.loads(parts["json"])
        pixels = (
            np.asarray(Image.open(io.BytesIO(parts["png"])))
            if dtype == "uint8"
            else np.load(io.BytesIO(parts["npy"]))
        )
        np.testing.assert_array_equal(pixels, loaded.image[i])
        assert facts["geotransform"] == loaded.geotransform[i].values.tolist()
        assert facts["label"] == plan.table["label"].iloc[i]
        assert int(parts["cls"]) == int(loaded.label[i])
        assert ("valid.npy" in parts) == (not bool(loaded.valid[i].all()))


def test_png_refuses_what_it_cannot_hold(tmp_path):
    write_raster(tmp_path / "a.tif", noise((3, 700, 600), "float32"), block=64)
    with pytest.raises(rasters.RegionError, match=r"PNG holds .* not 3 of float32"):
        make_plan(tmp_path).write(tmp_path / "out", "png")
    assert not (tmp_path / "out").exists()


def test_files_keep_regions_of_different_sizes(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 90, 90)), block=16)
    table = pd.DataFrame(
        {"col": [0, 5], "row": [0, 80], "width": [30, 8], "height": [12, 20]}, index=["a/b", ".."]
    )
    plan = rasters.plan(path, table)
    loaded = plan.load(progress=False)
    written = plan.write(tmp_path / "tifs", "geotiff", progress=False)
    assert written.manifest["path"].tolist() == ["000000/a%2Fb.tif", "000000/%2E..tif"]
    for i, (width, height) in enumerate([(30, 12), (8, 20)]):
        with rasterio.open(written.path / written.manifest["path"][i]) as chip:
            assert chip.shape == (height, width)
            np.testing.assert_array_equal(chip.read(1), loaded.image[i, :height, :width, 0])


@pytest.mark.long
def test_a_chip_larger_than_the_memory_is_cut_in_pieces(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((3, 2000, 2100)), block=256)
    table = pd.DataFrame(
        {"col": [-100, 900, 40], "row": [50, 700, 0], "width": [1900, 1200, 300],
         "height": [1900, 1333, 200]})  # fmt: skip
    plan = rasters.plan(path, table, memory="16MiB")
    assert plan.chip_format.pieces > 1
    loaded = plan.load(progress=False)
    whole = rasters.plan(path, table, memory="1GiB")
    assert whole.chip_format.pieces == 1
    xr.testing.assert_equal(loaded, whole.load(progress=False))
    same(plan.to_xarray().compute(), loaded)
    written = plan.write(tmp_path / "out", progress=False)
    same(xr.open_zarr(written.path).compute().drop_vars("position"), loaded)
    with pytest.raises(rasters.RegionError, match="too large to be encoded as one file"):
        plan.write(tmp_path / "tifs", "geotiff")


# Resuming -----------------------------------------------------------------------------------

# Kills itself, by SIGKILL, when it is about to touch the output for the n-th time.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_rasters_write import make_small_plan
plan, seen = make_small_plan(Path({folder!r})), 0

def hook(event, args):
    global seen
    if event in ("open", "os.rename", "os.mkdir", "os.remove"):
        if "out-" in str(args[0]):
            seen += 1
            if seen == {kill_at}:
                os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
plan.write({out!r}, {form!r}, progress=False)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("form", "kill_at"), [("zarr", 30), ("zarr", 80), ("zarr", 90), ("geotiff", 20),
                          ("geotiff", 70), ("webdataset", 9)])  # fmt: skip
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, form, kill_at):
    plan, out = make_small_plan(tmp_path), tmp_path / "out-killed"
    assert plan.layout.groups > 4
    reference = plan.write(tmp_path / "reference", form, progress=False).path
    code = KILLED.format(
        tests=str(Path(__file__).parent), folder=str(tmp_path), out=str(out), form=form,
        kill_at=kill_at,
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert plan.write(out, form, progress=False)
    assert tree(out) == tree(reference)
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]


def test_resuming_reads_no_block_of_what_is_written(plan, tmp_path, monkeypatch):
    from workbench.rasters import decode, formats

    out, real = tmp_path / "chips.zarr", formats.ZarrWriter.write
    monkeypatch.setattr(
        formats.ZarrWriter, "write",
        lambda self, group, *rest: 1 / 0 if group == 2 else real(self, group, *rest),
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        plan.write(out, threads=1, progress=False)
    monkeypatch.undo()
    read, reading = [], decode.TiffReader._block
    monkeypatch.setattr(
        decode.TiffReader, "_block",
        lambda self, row, column: read.append((row, column)) or reading(self, row, column),
    )  # fmt: skip
    plan.write(out, progress=False)
    left = plan.layout.inside(slice(plan.layout.members(2).start, None))
    needed = {
        (row, column)
        for first, last, start, stop in left[left[:, 1] > 0].tolist()
        for row in range(first // 64, (last - 1) // 64 + 1)
        for column in range(start // 64, (stop - 1) // 64 + 1)
    }
    assert len(read) == len(set(read))
    assert set(read) == needed
    read.clear()
    assert plan.write(out, progress=False)
    assert not read


def test_a_run_killed_when_only_the_manifest_is_missing(tmp_path, monkeypatch):
    from workbench.rasters import write

    plan, out = make_small_plan(tmp_path), tmp_path / "chips.zarr"
    reference = plan.write(tmp_path / "reference", progress=False).path
    monkeypatch.setattr(write, "write_manifest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plan.write(out, progress=False)
    monkeypatch.undo()
    assert plan.write(out, progress=False)
    assert tree(out) == tree(reference)


def test_a_group_that_lies_outside_is_all_that_is_left(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", noise((3, 300, 300)), block=64)
    table = boxes(60, 300, 300, side=64)
    table.iloc[:40, 0] = -500
    plan = rasters.plan(path, table, memory="16MiB", outside="keep")
    out = tmp_path / "out"
    assert (plan.layout.inside(plan.layout.members(0))[:, 1] == 0).all()
    reference = plan.write(tmp_path / "reference", progress=False).path
    from workbench.rasters.write import OutputFolder

    monkeypatch.setattr(OutputFolder, "missing", lambda self: np.arange(1, plan.layout.groups))
    monkeypatch.setattr(OutputFolder, "finish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plan.write(out, progress=False)
    monkeypatch.undo()
    assert plan.write(out, progress=False)
    assert tree(out) == tree(reference)


def test_ctrl_c_keeps_what_is_written(plan, tmp_path, monkeypatch):
    from workbench.rasters import formats

    real = formats.ZarrWriter.write

    def interrupted(self, group, *rest):
        if group == 3:
            raise KeyboardInterrupt
        return real(self, group, *rest)

    monkeypatch.setattr(formats.ZarrWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plan.write(tmp_path / "out", threads=1, progress=False)
    parts = sorted(path.stem for path in (tmp_path / "out" / "manifest").glob("*.parquet"))
    assert parts[:3] == ["000000", "000001", "000002"]
    monkeypatch.undo()
    plan.write(tmp_path / "out", progress=False)
    assert tree(tmp_path / "out") == tree(plan.write(tmp_path / "other", progress=False).path)


def test_nothing_of_the_users_is_overwritten(plan, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for form in ("zarr", "geotiff"):
        with pytest.raises(rasters.OutputError, match="not of our making"):
            plan.write(mine, form)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    with pytest.raises(rasters.OutputError, match="not of our making"):
        plan.write(mine / "thesis.txt")
    out = plan.write(tmp_path / "out", progress=False).path
    before = tree(out)
    with pytest.raises(rasters.OutputError, match="delete it or give another path"):
        plan.write(out, resume=False)
    with pytest.raises(rasters.OutputError, match="its format is 'zarr', now it is 'png'"):
        plan.write(out, "png")
    with pytest.raises(rasters.OutputError, match="its bands is"):
        make_plan(tmp_path, bands=[1]).write(out)
    other = rasters.plan(plan.raster, plan.table.iloc[::-1], memory="16MiB")
    with pytest.raises(rasters.OutputError, match="the regions or options differ"):
        other.write(out)
    assert tree(out) == before


def test_an_empty_folder_is_used(plan, tmp_path):
    (tmp_path / "out").mkdir()
    assert plan.write(tmp_path / "out", progress=False)


def test_a_raster_that_changed_is_noticed(plan, tmp_path):
    out = plan.write(tmp_path / "out", progress=False).path
    write_raster(tmp_path / "a.tif", noise((3, 700, 600), seed=1), block=64, compress="deflate",
                 nodata=5)  # fmt: skip
    with pytest.raises(
        rasters.OutputError, match=r"the raster's files have changed.*retry_failed=True if"
    ):
        make_plan(tmp_path).write(out)


@pytest.mark.parametrize("form", ["zarr", "geotiff", "webdataset"])
@pytest.mark.parametrize("at", ["its end", "half-way"])
def test_what_failed_is_read_again_once_the_raster_is_repaired(tmp_path, form, at, monkeypatch):
    whole = make_small_plan(tmp_path).write(tmp_path / "whole", form, progress=False)
    good = (tmp_path / "a.tif").read_bytes()
    corrupt(tmp_path / "a.tif", 1, 1)
    out, broken = tmp_path / "out", make_small_plan(tmp_path)
    with pytest.warns(rasters.FailedRegionsWarning):
        failed = broken.write(out, form, progress=False).failed
    assert 0 < len(failed) < 60
    paths = failed["path"]
    assert (paths == "").all()
    with pytest.warns(rasters.FailedRegionsWarning):  # nothing is repaired, nothing gets better
        again = broken.write(out, form, retry_failed=True, progress=False)
    assert again.failed["sample"].tolist() == failed["sample"].tolist()
    (tmp_path / "a.tif").write_bytes(good)
    plan = make_small_plan(tmp_path)
    if at == "half-way":
        from workbench.rasters.write import WriteGroup

        real = WriteGroup.__call__
        monkeypatch.setattr(WriteGroup, "__call__", lambda self, job, cells: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            plan.write(out, form, retry_failed=True, progress=False)
        monkeypatch.setattr(WriteGroup, "__call__", real)
        repaired = plan.write(out, form, progress=False)
    else:
        repaired = plan.write(out, form, retry_failed=True, progress=False)
    assert repaired
    mine, reference = tree(out), tree(whole.path)
    del mine["plan.json"], reference["plan.json"]  # the raster's time
    assert mine == reference


def test_columns_that_no_file_has_or_that_are_ours(plan, tmp_path):
    table = plan.table.assign(
        path="mine", error=1.5, position=7, mixed=np.resize(np.array([1, "a", None], object), 900)
    )
    other = rasters.plan(plan.raster, table, memory="16MiB")
    written = other.write(tmp_path / "out", progress=False)
    assert (written.manifest["path_"] == "mine").all()
    assert (written.manifest["error_"] == 1.5).all()
    assert written.manifest["mixed"][:2].tolist() == ["1", "a"]
    assert (written.manifest["position"] == np.arange(900)).all()
    stored = xr.open_zarr(written.path)
    assert (stored["position_"] == 7).all()
    assert (stored.position.values == other.layout.order).all()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to mount a disk")
@pytest.mark.parametrize("form", ["zarr", "geotiff"])
def test_a_full_disk_is_named_and_resumed(plan, tmp_path, form):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(small)])
    if mounted.returncode:
        pytest.skip("this system does not let us mount a disk")
    try:
        with pytest.raises(OSError, match=r"the disk is full; . of . groups are written"):
            plan.write(small / "out", form, progress=False)
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        plan.write(small / "out", form, progress=False)
        reference = plan.write(tmp_path / "reference", form, progress=False)
        assert tree(small / "out") == tree(reference.path)
    finally:
        subprocess.run(["umount", str(small)], check=True)
