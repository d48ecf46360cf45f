"""A network over a whole raster: no seam, each block once, and proof against being killed."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import torch
from raster_making import noise, write_raster
from scipy import ndimage
from torch import nn

from workbench import rasters
from workbench.rasters import decode


def make_network(seed=0, classes=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.Conv2d(6, classes, 3, padding=2, dilation=2)
    ).eval()


#: Pixels on each side that the network sees.
CONTEXT = 4


def smooth(chips):
    """A mean of five columns, which takes no torch to import; below it is written out again."""
    return ndimage.uniform_filter1d(chips.astype("float32"), 5, axis=2, mode="constant")


def make_plan(folder, size=64, **options):
    path = folder / "a.tif"
    if not path.exists():
        write_raster(path, noise((3, 400, 330)), block=64, compress="deflate")
    return rasters.plan(path, rasters.grid(path, size), memory="16MiB", **options)


def whole_scene(network, path):
    with rasterio.open(path) as source, torch.inference_mode():
        return network(torch.from_numpy(source.read()[None] / np.float32(255)))[0].numpy()


@pytest.mark.parametrize("size", [64, 50])
def test_regions_meet_without_a_seam_and_each_block_is_decoded_once(tmp_path, monkeypatch, size):
    plan, network = make_plan(tmp_path, size), make_network()
    read, reading = [], decode.TiffReader._block
    monkeypatch.setattr(
        decode.TiffReader,
        "_block",
        lambda self, row, column: read.append((row, column)) or reading(self, row, column),
    )
    out = plan.map(network, tmp_path / "out.tif", context=CONTEXT, progress=False)
    assert sorted(read) == [(row, column) for row in range(7) for column in range(6)]
    with rasterio.open(out) as found, rasterio.open(plan.raster.path) as source:
        np.testing.assert_allclose(found.read(), whole_scene(network, source.name), atol=1e-5)
        assert found.transform == source.transform
        assert np.isnan(found.nodata)
    assert {path.name for path in tmp_path.glob("out*")} == {"out.tif", "out.tif.parts"}
    with rasterio.open(out) as found:
        cut = plan.map(network, tmp_path / "less.tif", context=CONTEXT - 2, progress=False)
        with rasterio.open(cut) as less:
            assert abs(less.read() - found.read()).max() > 1e-3


def test_classes_of_a_function_and_pixels_without_data(tmp_path):
    pixels = noise((3, 150, 150))
    pixels[:, 20:50, 60:100] = 9
    path = write_raster(tmp_path / "a.tif", pixels, block=32, nodata=9)
    missing = (pixels == 9).all(axis=0)
    plan = rasters.plan(path, rasters.grid(path, 40))

    def brightest(chips):
        assert chips.dtype == np.uint8
        return chips.astype(np.int32)

    out = plan.map(brightest, tmp_path / "out.tif", classes=True, progress=False)
    with rasterio.open(out) as found:
        assert found.nodata == 255
        np.testing.assert_array_equal(found.read(1), np.where(missing, 255, pixels.argmax(axis=0)))
    again = plan.map(brightest, tmp_path / "out.tif", classes=True, progress=False)
    assert again == out
    some = rasters.plan(path, plan.table.loc[[1, 2]])
    with pytest.warns(rasters.RasterWarning, match="pixels lie in no chip"):
        sums = some.map(
            lambda chips: chips.astype("int32").sum(3), tmp_path / "s.tif", progress=False
        )
    with rasterio.open(sums) as found:
        wanted = pixels.astype("int32").sum(0)
        wanted[40:], wanted[:, :40], wanted[:, 120:] = 0, 0, 0
        np.testing.assert_array_equal(found.read(1), wanted)


def test_only_the_regions_that_were_asked_for(tmp_path):
    plan = make_plan(tmp_path)
    some = rasters.plan(plan.raster.path, plan.table.loc[[0, 8]])
    out = some.map(make_network(), tmp_path / "out.tif", context=CONTEXT, progress=False)
    truth = whole_scene(make_network(), plan.raster.path)
    truth[:, 64:] = np.nan
    truth[:, :, 64:] = np.nan
    with rasterio.open(plan.raster.path) as source:
        full = whole_scene(make_network(), source.name)
    truth[:, 64:128, 128:192] = full[:, 64:128, 128:192]
    with rasterio.open(out) as found:
        np.testing.assert_allclose(found.read(), truth, atol=1e-5)


def test_another_network_and_wrong_answers_are_refused(tmp_path):
    plan = make_plan(tmp_path)
    plan.map(make_network(), tmp_path / "out.tif", progress=False)
    content = (tmp_path / "out.tif").read_bytes()
    with pytest.raises(rasters.OutputError, match="its format is 'prediction"):
        plan.map(make_network(1), tmp_path / "out.tif", progress=False)
    assert (tmp_path / "out.tif").read_bytes() == content
    with pytest.raises(ValueError, match=r"map\(\) wants"):
        plan.map(lambda chips: chips.mean(axis=(1, 2)), tmp_path / "b.tif", progress=False)
    with pytest.raises(TypeError, match="must be a torch module or a function"):
        plan.map("unet", tmp_path / "c.tif")
    with pytest.raises(rasters.RegionError, match="plan without size="):
        rasters.plan(plan.raster.path, plan.table, 8).map(make_network(), tmp_path / "d.tif")


KILLED = """
import os, signal, sys
from scipy import ndimage
from workbench import rasters

def smooth(chips):
    return ndimage.uniform_filter1d(chips.astype("float32"), 5, axis=2, mode="constant")

plan = rasters.plan({raster!r}, rasters.grid({raster!r}, 64), memory="16MiB")
seen = 0

def hook(event, args):
    global seen
    if event in ("open", "os.rename", "os.mkdir", "os.remove") and "out.tif" in str(args[0]):
        seen += 1
        if seen == {kill_at}:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
plan.map(smooth, {out!r}, context=2, progress=False, threads=1)
"""


@pytest.mark.long
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    plan = make_plan(tmp_path)
    whole = plan.map(smooth, tmp_path / "reference.tif", context=2, progress=False)
    out = tmp_path / "out.tif"
    for kill_at in (12, 7, 25):
        code = KILLED.format(raster=plan.raster.path, out=str(out), kill_at=kill_at)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    plan.map(smooth, out, context=2, progress=False)
    assert out.read_bytes() == whole.read_bytes()
    assert not list((tmp_path / "out.tif.parts").glob("*.npy"))
