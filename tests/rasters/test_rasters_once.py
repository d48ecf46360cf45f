"""Each block is decoded once, by threads and by tasks; lazy and eager agree."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from raster_making import boxes, noise, tree, write_raster

from workbench import rasters
from workbench.rasters import decode


@pytest.fixture
def plan(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((3, 700, 600)), block=64, compress="deflate")
    return rasters.plan(path, boxes(900, 700, 600, side=20, beyond=8), memory="16MiB")


@pytest.fixture
def read(monkeypatch):
    """The blocks that are decoded, one entry a decode."""
    seen, reading = [], decode.TiffReader._block
    monkeypatch.setattr(
        decode.TiffReader, "_block",
        lambda self, row, column: seen.append((row, column)) or reading(self, row, column),
    )  # fmt: skip
    return seen


def touched(plan, block):
    inside = plan.layout.inside(slice(None))
    inside = inside[inside[:, 1] > 0].tolist()
    return {
        (row, column)
        for first, last, start, stop in inside
        for row in range(first // block, (last - 1) // block + 1)
        for column in range(start // block, (stop - 1) // block + 1)
    }


def test_threads_decode_each_touched_block_once(plan, read):
    assert plan.layout.groups >= 4
    plan.load(progress=False, threads=4)
    assert sorted(read) == sorted(touched(plan, 64))
    stats = plan.stats()
    assert (stats["blocks"], stats["decodes_per_block"]) == (len(read), 1)


def test_tasks_decode_each_touched_block_once(plan, read):
    plan.to_xarray().compute(scheduler="threads")
    assert sorted(read) == sorted(touched(plan, 64))


def test_a_network_that_goes_through_chunk_by_chunk_decodes_each_touched_block_once(plan, read):
    torch = pytest.importorskip("torch")
    from workbench import models

    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    streamed = plan.to_xarray()
    found = models.predict(network, streamed, progress=False)
    assert sorted(read) == sorted(touched(plan, 64))
    truth = models.predict(network, plan.load(progress=False), progress=False)
    assert found.sample.values.tolist() == streamed.sample.values.tolist()
    xr.testing.assert_allclose(found.sel(sample=truth.sample), truth)


def test_a_sparse_table_reads_only_touched_strips(tmp_path, read):
    path = write_raster(tmp_path / "a.tif", noise((1, 4000, 50)), blockysize=2)
    table = pd.DataFrame({"col": 3, "row": [10, 3001], "width": 9, "height": 4})
    rasters.plan(path, table).load(progress=False)
    assert sorted(read) == [(5, 0), (6, 0), (1500, 0), (1501, 0), (1502, 0)]


def test_lazy_and_eager_agree(plan):
    loaded = plan.load(progress=False)
    streamed = plan.to_xarray()
    assert streamed.image.data.numblocks[0] == plan.layout.groups
    xr.testing.assert_identical(streamed.compute().sel(sample=loaded.sample), loaded)
    xr.testing.assert_identical(streamed.sel(sample=loaded.sample).compute(), loaded)


def test_stats_count_what_naive_reading_would_decode(plan):
    stats, inside = plan.stats(), plan.layout.inside(slice(None))
    inside = inside[inside[:, 1] > 0]
    rows = (inside[:, 1] - 1) // 64 - inside[:, 0] // 64 + 1
    columns = (inside[:, 3] - 1) // 64 - inside[:, 2] // 64 + 1
    assert stats["naive_decodes"] == int((rows * columns).sum())
    assert stats["bytes_to_decode"] == stats["blocks"] * 64 * 64 * 3


def test_a_small_budget_decodes_again_rather_than_keep(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise((4, 1500, 1500), "uint16"), block=256)
    table = boxes(150, 1500, 1500, side=300)
    plan = rasters.plan(path, table, memory="16MiB")
    assert plan.schedule().shared_peak <= 2**24 // 4
    assert plan.stats()["decodes_per_block"] > 1
    whole = rasters.plan(path, table, memory="4GiB")
    assert whole.stats()["decodes_per_block"] == 1
    xr.testing.assert_equal(plan.load(progress=False), whole.load(progress=False))


@pytest.mark.long
def test_a_cluster_writes_the_same_bytes(plan, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as local,
        distributed.Client(local) as client,
    ):
        there = plan.write(tmp_path / "cluster", client=client, progress=False)
    assert tree(there.path) == tree(plan.write(tmp_path / "threads", progress=False).path)
    assert len(np.unique(there.manifest["sample"])) == 900
