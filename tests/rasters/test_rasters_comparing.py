"""Every way to crop gives the same pixels; what is multiplied up says so; kill and resume."""

import numpy as np
import pytest
import rasterio

from workbench import rasters
from workbench.rasters import benchmark
from workbench.rasters.benchmark import WAYS, brute_force, compare_pairs

BOX = ["col", "row", "width", "height"]


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    rasters.write_example(path, size=1024, objects=100, progress=False)
    return str(path)


@pytest.mark.parametrize(
    "way", [benchmark.sorted_by_block, benchmark.dask_slices, benchmark.planned]
)
def test_all_ways_give_the_same_pixels(mosaic, way):
    boxes = benchmark.random_regions(mosaic, 20, 24, seed=1)[BOX].to_numpy()
    expected = benchmark.region_by_region(mosaic, boxes)
    assert expected.shape == (20, 24, 24, 3)
    np.testing.assert_array_equal(way(mosaic, boxes), expected)


def test_files_hold_the_pixels_and_their_place(mosaic, tmp_path):
    boxes = np.array([[100, 200, 16, 12]])
    expected = benchmark.region_by_region(mosaic, boxes, tmp_path)[0]
    with rasterio.open(tmp_path / "0.tif") as chip, rasterio.open(mosaic) as source:
        np.testing.assert_array_equal(chip.read().transpose(1, 2, 0), expected)
        assert chip.transform @ (0, 0) == source.transform @ (100, 200)


def test_random_regions_lie_inside(mosaic):
    table = benchmark.random_regions(mosaic, 500, 1000)
    assert table[["col", "row"]].min().min() >= 0
    assert (table[["col", "row"]].max() + 1000 <= 1024).all()
    with pytest.raises(ValueError, match="regions of 1025 pixels do not fit"):
        benchmark.random_regions(mosaic, 1, 1025)


def test_the_comparison_says_what_it_measured(mosaic):
    table = benchmark.compare(mosaic, [50, 80], 16, most=20, most_dask=5, cache=2**24)
    assert table.groupby("regions").size().to_dict() == {50: 6, 80: 6}
    ours = table[table["way"].str.startswith("one plan")]
    assert (ours["measured"] == ours["regions"]).all()
    assert set(table[table["way"].str.contains("dask")]["measured"]) == {5}
    assert table["written"].sum() == 4
    assert (table["seconds"] > 0).all()


def test_cold_and_warm(mosaic):
    table = benchmark.cold_and_warm(mosaic, 10, 16)
    assert table.columns.tolist() == ["cold", "warm"]
    assert (table["warm"] > 0).all()


def test_chips_that_differ_are_counted(mosaic):
    boxes = benchmark.random_regions(mosaic, 30, 16)
    boxes.loc[0, ["col", "row"]] = -8  # sticks out
    image = rasters.plan(mosaic, boxes).load(progress=False)["image"].values.copy()
    assert benchmark.differing(mosaic, image, boxes) == 0
    image[3, 5, 5, 0] += 1
    assert benchmark.differing(mosaic, image, boxes) == 1


@pytest.fixture(scope="module")
def plan(mosaic):
    return rasters.plan(mosaic, benchmark.random_regions(mosaic, 4000, 32), memory="16MiB")


class TestTrials:
    def test_a_killed_run_is_resumed_bit_for_bit(self, plan, tmp_path):
        whole = benchmark.write_apart(plan, tmp_path / "whole")
        assert whole.exit == 0
        assert whole.groups == plan.layout.groups > 4
        assert whole.memory["bytes"].max() > 0
        killed = benchmark.write_apart(plan, tmp_path / "killed", kill_at=0.3)
        assert killed.exit == -9
        assert 0 < killed.groups < whole.groups
        expected = benchmark.digests(tmp_path / "whole")
        assert benchmark.digests(tmp_path / "killed") != expected
        assert benchmark.write_apart(plan, tmp_path / "killed").exit == 0
        assert benchmark.digests(tmp_path / "killed") == expected

    def test_a_run_that_fails_says_why(self, plan, tmp_path):
        (tmp_path / "mine.txt").write_text("keep me")
        with pytest.raises(RuntimeError, match="not of our making"):
            benchmark.write_apart(plan, tmp_path)
        with pytest.raises(FileNotFoundError, match="no folder"):
            benchmark.digests(tmp_path / "nowhere")


class TestPairs:
    def test_all_ways_find_as_many(self):
        points = np.random.default_rng(0).uniform(0, 100, (700, 2))
        counts = {way: find(points, 7.0) for way, find in WAYS.items()}
        assert set(counts.values()) == {brute_force(points, 7.0)}

    def test_brute_force_is_multiplied_up_only_where_it_must(self):
        table = compare_pairs([200, 400], 300.0, most_brute=200, repeat=1)
        brute = table[table["way"] == "brute force"].set_index("points")
        assert brute["extrapolated"].to_dict() == {200: False, 400: True}
        assert brute.loc[200, "pairs"] == table[table["points"] == 200]["pairs"].max()
