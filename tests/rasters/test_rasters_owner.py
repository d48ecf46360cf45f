"""An output folder belongs to one plan of one state of the raster, and to one process at a time."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from raster_making import boxes, noise, tree, write_raster

from workbench import rasters
from workbench.rasters import write as writing


def plan_of(path, memory="16MiB"):
    return rasters.plan(path, boxes(90, 300, 300, side=64, beyond=8), memory=memory)


@pytest.fixture
def raster(tmp_path):
    return write_raster(tmp_path / "a.tif", noise((3, 300, 300)), block=64, compress="deflate")


@pytest.fixture
def stopped(monkeypatch):
    """Let a plan write two groups and stop."""

    def stop(plan, out, form="zarr"):
        real = writing.WriteGroup.__call__
        with monkeypatch.context() as patch:
            patch.setattr(
                writing.WriteGroup, "__call__",
                lambda self, job, cells: 1 / 0 if job.group == 2 else real(self, job, cells),
            )  # fmt: skip
            with pytest.raises(ZeroDivisionError):
                plan.write(out, form, threads=1, progress=False)

    return stop


# One plan, one state of the raster -----------------------------------------------------------


@pytest.mark.parametrize("form", ["zarr", "geotiff"])
def test_another_memory_and_another_spelling_go_on(raster, tmp_path, stopped, form, monkeypatch):
    reference = plan_of(raster).write(tmp_path / "reference", form, progress=False)
    stopped(plan_of(raster), tmp_path / "out", form)
    monkeypatch.chdir(tmp_path)
    again = plan_of("./a.tif", "64MiB")
    assert again.layout.groups != plan_of(raster).layout.groups
    assert again.write(tmp_path / "out", form, progress=False)
    mine, theirs = tree(tmp_path / "out"), tree(reference.path)
    del mine["plan.json"], theirs["plan.json"]  # how the path was spelled
    assert mine == theirs


def test_a_chip_in_pieces_goes_on_with_another_memory(tmp_path, stopped):
    path = write_raster(tmp_path / "b.tif", noise((3, 2000, 2100)), block=256)
    table = boxes(1, 100, 200, side=1900).assign(height=1900)
    plan = rasters.plan(path, table, memory="16MiB")
    stopped(plan, tmp_path / "out")
    larger = rasters.plan(path, table, memory="1GiB")
    assert larger.chip_format.pieces != plan.chip_format.pieces
    import xarray as xr

    stored = xr.open_zarr(larger.write(tmp_path / "out", progress=False).path)
    np.testing.assert_array_equal(stored.image, larger.load(progress=False).image)


def nested_vrt(folder):
    """A VRT of a VRT of a file."""
    source = write_raster(folder / "source.tif", noise((1, 300, 300)), block=64)
    text = (
        '<VRTDataset rasterXSize="300" rasterYSize="300"><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1'
        "</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (folder / "inner.vrt").write_text(text.format("source.tif"))
    (folder / "outer.vrt").write_text(text.format("inner.vrt"))
    return source, folder / "outer.vrt"


def test_a_vrt_s_state_is_that_of_all_its_files(tmp_path, stopped):
    source, vrt = nested_vrt(tmp_path)
    plan = plan_of(vrt)
    assert {Path(file).name for file in plan.raster.files} == {
        "outer.vrt", "inner.vrt", "source.tif"}  # fmt: skip
    stopped(plan, tmp_path / "out")
    write_raster(source, noise((1, 300, 300), seed=1), block=64)
    with pytest.raises(rasters.RasterError, match=r"source\.tif has changed since the plan"):
        plan.load(progress=False)
    with pytest.raises(rasters.RasterError, match="has changed"):
        plan.write(tmp_path / "out", progress=False)
    with pytest.raises(rasters.RasterError, match="has changed"):
        plan.to_xarray().compute(scheduler="sync")
    with pytest.raises(rasters.OutputError, match="the raster's files have changed"):
        plan_of(vrt).write(tmp_path / "out", progress=False)


def test_a_mask_file_belongs_to_the_raster_s_state_and_statistics_do_not(raster):
    plan = plan_of(raster)
    with rasterio.open(raster) as source:
        source.statistics(1, clear_cache=True)
    Path(f"{raster}.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert plan_of(raster).raster.state_digest == plan.raster.state_digest
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(raster, "r+") as target:
        target.write_mask(np.ones((300, 300), bool))
    assert Path(f"{raster}.msk").exists()
    assert plan_of(raster).raster.state_digest != plan.raster.state_digest


# One process ---------------------------------------------------------------------------------


def lock_of(out, owner, age=0):
    lock = out.with_name(f".{out.name}.lock")
    lock.write_text(json.dumps(owner))
    os.utime(lock, (time.time() - age,) * 2)
    return lock


WAITING = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_rasters_owner import plan_of
from workbench.rasters.write import WriteGroup
real = WriteGroup.__call__
def wait(self, job, cells):
    print("writing", flush=True)
    sys.stdin.readline()
    return real(self, job, cells)
WriteGroup.__call__ = wait
plan_of({raster!r}).write({out!r}, threads=1, progress=False)
"""


def test_a_second_process_is_refused_and_a_dead_one_s_folder_taken_over(raster, tmp_path):
    out, tests = tmp_path / "out", str(Path(__file__).parent)
    code = WAITING.format(tests=tests, raster=raster, out=str(out))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"writing\n"
        with pytest.raises(rasters.OutputError, match=f"process {first.pid} on .* is writing to"):
            plan_of(raster).write(out, progress=False)
        first.kill()
    assert (tmp_path / ".out.lock").exists()
    assert plan_of(raster).write(out, progress=False)
    assert not (tmp_path / ".out.lock").exists()
    reference = plan_of(raster).write(tmp_path / "reference", progress=False)
    assert tree(out) == tree(reference.path)


def test_an_owner_elsewhere_counts_as_dead_after_a_minute_of_silence(raster, tmp_path):
    owner = {"host": "elsewhere", "pid": os.getpid(), "started": 0}
    lock = lock_of(tmp_path / "out", owner, age=20)
    with pytest.raises(rasters.OutputError, match=f"on elsewhere is writing .* delete {lock}"):
        plan_of(raster).write(tmp_path / "out", progress=False)
    lock_of(tmp_path / "out", owner, age=100)
    assert plan_of(raster).write(tmp_path / "out", progress=False)


def test_a_process_that_has_another_s_number_is_not_the_owner(raster, tmp_path):
    import socket

    lock_of(tmp_path / "out", {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0})
    assert plan_of(raster).write(tmp_path / "out", progress=False)


def test_an_address_is_refused(raster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(rasters.OutputError, match=r"is an address.*copy the folder"):
        plan_of(raster).write("s3://bucket/chips.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif"]


@pytest.mark.parametrize("form", ["geotiff", "png", "webdataset"])
def test_a_group_that_two_workers_were_given_is_written_once(raster, tmp_path, form):
    """As a scheduler does when it takes a worker for lost: leftovers, and the same group again."""
    plan = plan_of(raster)
    written = plan.write(tmp_path / "out", form, progress=False)
    before = tree(written.path)
    folder = writing.OutputFolder(plan, written.path, form)
    writer = writing._WRITERS[form](plan, written.path)
    task = writing.WriteGroup(writer, folder, "list")
    (written.path / ".000001.partial").mkdir()
    (written.path / "manifest").mkdir()
    from workbench.rasters.crop import run

    run(plan, np.array([1, 2]), task, progress=False)
    (written.path / ".000001.partial").rmdir()
    after = {name: sha for name, sha in tree(written.path).items() if "manifest/" not in name}
    assert after == before


@pytest.mark.slow
def test_a_worker_killed_half_way_is_named_or_its_groups_done_again(raster, tmp_path):
    distributed = pytest.importorskip("distributed")
    plan = plan_of(raster)
    reference = plan.write(tmp_path / "reference", "geotiff", progress=False)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as one,
        distributed.Client(one) as client,
    ):
        pid = client.submit(os.getpid).result()
        flag = tmp_path / "killed once"
        writer = writing._WRITERS["geotiff"]
        doomed = type("Doomed", (writer,), {"write": killing(flag, writer.write)})
        writing._WRITERS["geotiff"] = doomed
        try:
            there = plan.write(tmp_path / "out", "geotiff", client=client, progress=False)
        finally:
            writing._WRITERS["geotiff"] = writer
        assert client.submit(os.getpid).result() != pid
    assert flag.exists()
    assert there
    assert tree(there.path) == tree(reference.path)


@pytest.mark.slow
def test_a_cluster_that_loses_every_worker_says_so_and_that_one_can_go_on(raster, tmp_path):
    distributed = pytest.importorskip("distributed")
    plan, out = plan_of(raster), tmp_path / "out"
    writer = writing._WRITERS["geotiff"]
    doomed = type("Doomed", (writer,), {"write": lambda *_: os.kill(os.getpid(), 9)})
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as one,
        distributed.Client(one) as client,
    ):
        writing._WRITERS["geotiff"] = doomed
        try:
            with pytest.raises(RuntimeError, match=r"lost workers while it cut .* goes on from"):
                plan.write(out, "geotiff", client=client, progress=False)
        finally:
            writing._WRITERS["geotiff"] = writer
    assert plan.write(out, "geotiff", progress=False)
    assert tree(out) == tree(plan.write(tmp_path / "reference", "geotiff", progress=False).path)


def killing(flag, real):
    """Kill the process, once, in the middle of a group's files."""

    def write(self, group, image, valid, failed):
        if group == 1 and not flag.exists():
            flag.touch()
            (self._path / ".000001.leftover.partial").mkdir()
            (self._path / ".000001.leftover.partial" / "half.tif").write_bytes(b"half")
            os.kill(os.getpid(), 9)
        return real(self, group, image, valid, failed)

    return write


def test_a_header_knows_when_its_file_is_another(raster):
    header = plan_of(raster).raster
    header.check_unchanged()
    with pytest.raises(rasters.RasterError, match="Plan again"):
        replace(header, state=((1, 1),)).check_unchanged()
