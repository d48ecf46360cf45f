"""Rasters behind HTTP and S3, through GDAL, from a server on this machine."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from raster_making import boxes, expected, noise, write_raster

from workbench import rasters

SERVER = Path(__file__).with_name("range_server.py")


@pytest.fixture
def file(tmp_path):
    return write_raster(tmp_path / "a.tif", noise((3, 1200, 1200)), block=128, nodata=7)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "sent.txt"


@pytest.fixture
def host(file, log):
    command = [sys.executable, str(SERVER), file, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        yield f"127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


def check(path, file, log):
    """Regions around one corner are right, and cost little of the file; return what was asked."""
    table = boxes(20, 200, 200, side=30, beyond=10)
    ds = rasters.plan(path, table).load(progress=False)
    for i, region in enumerate(table.itertuples()):
        np.testing.assert_array_equal(ds.image[i], expected(file, region))
    sent = [line.split() for line in log.read_text().splitlines()]
    assert 0 < sum(int(length) for _, length in sent) < Path(file).stat().st_size / 2
    return {name for name, _ in sent}


def test_a_raster_behind_http(host, file, log):
    assert check(f"/vsicurl/http://{host}/a.tif", file, log) == {"/a.tif"}


def test_a_raster_in_a_bucket(host, file, log, monkeypatch):
    for name, value in {
        "AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with rasterio.Env(aws_unsigned=True):
        assert check("s3://bucket/deep/a.tif", file, log) == {"/bucket/deep/a.tif"}


def test_what_is_not_there_is_named(host):
    table = pd.DataFrame({"col": [0], "row": [0], "width": [4], "height": [4]})
    with pytest.raises(rasters.RasterError, match=r"b\.tif cannot be opened as a raster"):
        rasters.plan(f"/vsicurl/http://{host}/b.tif", table)
