"""What lies under the regions that a plan draws."""

import numpy as np
import pytest
import rasterio
from raster_making import boxes, noise, write_raster

from workbench import rasters
from workbench.rasters.preview import small


@pytest.fixture
def path(tmp_path):
    """Darker from above to below; more than a fourth of the least memory."""
    pixels = np.empty((1, 2500, 2500), np.uint8)
    pixels[...] = (np.arange(2500) // 10)[:, None]
    return write_raster(tmp_path / "a.tif", pixels, block=256, compress="deflate")


def test_blocks_here_and_there_where_the_whole_is_too_much(path):
    plan = rasters.plan(path, boxes(20, 2500, 2500), memory="16MiB")
    picture, share = small(plan, 250)
    assert picture.shape == (250, 250)
    assert 0.2 < share < 0.67
    unread = picture == 200
    assert abs(unread.mean() - (1 - share)) < 0.05
    rows = np.arange(250)[:, None] * np.ones((1, 250))
    assert (np.abs(picture.astype(float) - rows)[~unread] <= 2).all()
    text = plan.preview().get_supxlabel()
    assert "of all: gdaladdo" in text.replace("\n", " ")


def test_an_overview_or_memory_shows_it_whole(path):
    plan = rasters.plan(path, boxes(20, 2500, 2500), memory="64MiB")
    assert small(plan, 250)[1] == 1
    with rasterio.open(path, "r+") as target:
        target.build_overviews([4, 8])
    picture, share = small(rasters.plan(path, plan.table, memory="16MiB"), 250)
    assert share == 1
    assert (np.abs(picture.astype(float) - np.arange(250)[:, None]) <= 2).all()


def test_a_block_that_is_too_much_is_left_out(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((1, 2500, 2500)), block=2512)
    plan = rasters.plan(path, boxes(20, 2500, 2500), memory="16MiB")
    assert small(plan, 250) == (None, 0)
    assert plan.preview()
