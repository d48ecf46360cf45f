"""The made-up mosaic is where and what its table says."""

import numpy as np
import pytest
import rasterio

from workbench.rasters import example
from workbench.rasters.example import CLASSES, write_example


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    path = tmp_path_factory.mktemp("mosaic") / "small.tif"
    table = write_example(path, size=1100, objects=400, seed=5, progress=False)
    with rasterio.open(path) as source:
        return path, table, source.read().transpose(1, 2, 0), source.profile, source.transform


def test_the_form_of_the_raster(mosaic):
    _, _, pixels, profile, transform = mosaic
    assert pixels.shape == (1100, 1100, 3)
    wanted = {"dtype": "uint8", "tiled": True, "blockxsize": 512, "compress": "deflate"}
    assert wanted.items() <= profile.items()
    assert profile["crs"].to_epsg() == 32632
    assert (transform.a, transform.e) == (0.5, -0.5)


def test_boxes_lie_around_the_objects(mosaic):
    path, table, pixels, _, _ = mosaic
    # the same ground with one other object: what differs from it are the objects
    bare = path.with_name("bare.tif")
    other = write_example(bare, size=1100, objects=1, seed=5, progress=False)
    with rasterio.open(bare) as source:
        ground = source.read().transpose(1, 2, 0)
    drawn = (pixels != ground).any(axis=2)
    inside = np.zeros_like(drawn)
    for box in [*table.itertuples(), *other.itertuples()]:
        rows, columns = slice(box.row, box.row + box.height), slice(box.col, box.col + box.width)
        inside[rows, columns] = True
        assert drawn[rows, columns].mean() > 0.2
        for edge in (drawn[rows, columns][[0, -1]], drawn[rows, columns][:, [0, -1]]):
            assert edge.any()
    reach = example.SHADOW
    outside = np.zeros_like(inside)
    outside[reach:, reach:] = inside[:-reach, :-reach]
    assert not (drawn & ~inside & ~outside).any()  # nothing but shadows


def test_no_object_lies_over_another(mosaic):
    table = mosaic[1]
    seen = np.zeros((1100, 1100), int)
    for box in table.itertuples():
        seen[box.row : box.row + box.height, box.col : box.col + box.width] += 1
    assert seen.max() == 1
    assert table[["col", "row"]].min().min() >= 0
    assert set(table["label"]) == set(CLASSES)


def test_map_coordinates_are_those_of_the_middle(mosaic):
    _, table, _, _, transform = mosaic
    column, row = ~transform @ (table["x"].to_numpy(), table["y"].to_numpy())
    np.testing.assert_allclose(column, table["col"] + table["width"] / 2, atol=1)
    np.testing.assert_allclose(row, table["row"] + table["height"] / 2, atol=1)


def test_the_seed_decides(mosaic, tmp_path):
    path, table, _, _, _ = mosaic
    again = write_example(tmp_path / "again.tif", size=1100, objects=400, seed=5, progress=False)
    assert (tmp_path / "again.tif").read_bytes() == path.read_bytes()
    assert again.equals(table)
    other = write_example(tmp_path / "other.tif", size=1100, objects=400, seed=6, progress=False)
    assert not other.equals(table)


def test_nothing_is_overwritten_and_nothing_half_done_is_left(mosaic, tmp_path, monkeypatch):
    with pytest.raises(FileExistsError, match=r"small\.tif exists"):
        write_example(mosaic[0])

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "draw", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_example(tmp_path / "half.tif", size=512, objects=4, progress=False)
    assert not (tmp_path / "half.tif").exists()


@pytest.mark.parametrize(("size", "objects"), [(100, 1), (1024, 0), (1024, 5000)])
def test_what_has_no_room(tmp_path, size, objects):
    with pytest.raises(ValueError, match=r"too small|has room for 1 to 900"):
        write_example(tmp_path / "a.tif", size=size, objects=objects)
    assert not list(tmp_path.iterdir())
