"""What is written into a store is what comes out of it, also after a kill."""

import json
import os
import shutil
import signal
import tarfile
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from store_scenes import scenes

from workbench import datasets, store
from workbench.datasets.errors import BadDataError, BadImageError, SkippedWarning


def content(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_a_store_gives_back_the_dataset_and_its_boxes(written):
    ds, boxes, path = written
    for found in (store.open(path), datasets.load(path)):
        np.testing.assert_array_equal(found["image"].values, ds["image"].values)
        for name in ("sample", "label", "class", "row"):
            np.testing.assert_array_equal(found[name].values, ds[name].values)
    assert store.open(path)["image"].chunks is not None
    assert (found["height"] == 24).all()
    assert (found["width"] == 32).all()
    pd.testing.assert_frame_equal(store.read_boxes(path), boxes)
    assert datasets.boxes.image_sizes(found).tolist() == [[24, 32]] * 40
    part = datasets.load(path, n=10, size=8, mode="RGB")
    assert dict(part["image"].sizes) == {"sample": 10, "y": 8, "x": 8, "channel": 3}


def test_any_tool_reads_the_shards(written, tmp_path):
    ds, boxes, path = written
    index = pd.read_parquet(path / "index.parquet")
    assert len(index) == 40
    assert set(index["label"].dropna()) == {"cat", "dog"}
    with tarfile.open(path / "shard-00001.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    assert len(list(tmp_path.iterdir())) == 32
    pixels = np.asarray(Image.open(tmp_path / "00000016.png"))
    np.testing.assert_array_equal(pixels, ds["image"].values[16, ..., 0])
    note = json.loads((tmp_path / "00000016.json").read_text())
    mine = boxes[boxes["sample"] == note["sample"]]
    assert note["sample"] == "dir/16"
    assert [box["x_min"] for box in note["boxes"]] == mine["x_min"].tolist()


def test_files_are_stored_as_they_are_at_full_size_and_upright(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "photos").mkdir()
    image.save(tmp_path / "photos" / "a.jpg", exif=exif, quality=80)
    ds = datasets.load(tmp_path / "photos", size=16)
    path = store.write(ds, tmp_path / "store", progress=False)
    row = pd.read_parquet(path / "index.parquet").iloc[0]
    assert (row["height"], row["width"]) == (500, 300)
    stored = (path / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
    assert stored == (tmp_path / "photos" / "a.jpg").read_bytes()
    # a store of a store is the same pictures
    again = store.write(store.open(path), tmp_path / "again", progress=False)
    np.testing.assert_array_equal(datasets.load(again, size=16)["image"].values, ds["image"].values)


@pytest.mark.long
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path):
    ds, boxes = scenes(80)
    start = time.perf_counter()
    expected = content(store.write(ds, tmp_path / "whole", boxes, shard_images=12, progress=False))
    usual = time.perf_counter() - start
    rng = np.random.default_rng(0)
    path = tmp_path / "killed"
    killed = finished = 0
    while killed < 50:
        child = os.fork()
        if child == 0:
            store.write(ds, path, boxes, shard_images=12, progress=False)
            os._exit(0)
        time.sleep(rng.uniform(0, 0.6 * usual))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status) or rng.random() < 0.2:
            store.write(ds, path, boxes, shard_images=12, progress=False)
            assert content(path) == expected
            shutil.rmtree(path)
            finished += 1
    assert finished >= 5


def test_an_unfinished_or_foreign_folder_is_refused(written, tmp_path):
    ds, boxes, path = written
    before = content(path)
    assert store.write(ds, path, boxes, shard_images=16, progress=False) == path
    assert content(path) == before
    with pytest.raises(FileExistsError, match="a store of other data, boxes or options"):
        store.write(ds, path, boxes, shard_images=17, progress=False)
    shutil.copytree(path, tmp_path / "copy")
    (tmp_path / "copy" / "index.parquet").unlink()
    with pytest.raises(FileExistsError, match="something else"):
        store.write(ds, tmp_path / "copy", boxes, progress=False)
    (tmp_path / "copy" / "unfinished").write_text("other")
    with pytest.raises(BadDataError, match="not written to its end"):
        datasets.load(tmp_path / "copy")
    with pytest.raises(FileExistsError, match="unfinished store of other data"):
        store.write(ds, tmp_path / "copy", boxes, progress=False)


def test_one_writer_at_a_time(written, tmp_path):
    import fcntl

    ds, boxes, _ = written
    (tmp_path / "store").mkdir()
    handle = os.open(tmp_path / "store", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError, match="another process is writing the store"):
        store.write(ds, tmp_path / "store", boxes, progress=False)
    os.close(handle)


def test_a_changed_byte_is_found(written, tmp_path):
    _, _, path = written
    shutil.copytree(path, tmp_path / "copy")
    assert store.verify(path).empty
    index = pd.read_parquet(path / "index.parquet")
    with (tmp_path / "copy" / "shard-00002.tar").open("r+b") as file:
        file.seek(index["offset"][37] + 20)
        file.write(b"!")
    assert store.verify(tmp_path / "copy")["sample"].tolist() == ["dir/37"]


def test_a_hundred_thousand_images_are_opened_without_their_shards(written, tmp_path):
    from pyarrow import parquet

    _, _, path = written
    table = parquet.read_table(path / "index.parquet")
    many = table.take(np.arange(100_000) % 40)
    many = many.set_column(0, "sample", [np.arange(100_000)])
    parquet.write_table(many, tmp_path / "index.parquet")
    ds = store.open(tmp_path, size=32)
    assert ds.sizes["sample"] == 100_000
    with pytest.raises(BadImageError, match="No such file"):
        store.open(tmp_path, size=32, on_bad="raise")["image"].isel(sample=[0]).values  # noqa: B018


def test_bad_input_is_named(written, tmp_path):
    ds, boxes, _ = written
    with pytest.raises(BadDataError, match="samples that are not in the dataset"):
        store.write(ds.isel(sample=slice(3)), tmp_path / "a", boxes, progress=False)
    floats = ds.assign(image=ds["image"].astype("f4"))
    with pytest.raises(BadImageError, match="dir/0: float32 pixels of shape"):
        store.write(floats, tmp_path / "b", progress=False)
    with pytest.raises(ValueError, match="encoding='gif'"):
        store.write(ds, tmp_path / "c", encoding="gif")
    masked = ds.assign(valid=(("sample", "y", "x"), np.ones((40, 24, 32), bool)))
    with pytest.warns(SkippedWarning, match="not stored, .* valid"):
        store.write(masked, tmp_path / "d", progress=False)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "index.parquet").write_bytes(b"no table")
    with pytest.raises(BadDataError, match="no index of a store"):
        datasets.load(tmp_path / "e")
