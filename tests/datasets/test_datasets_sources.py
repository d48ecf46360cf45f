import gzip
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pooch
import pytest

from workbench import datasets
from workbench.datasets import sources

TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture
def data(tmp_path, monkeypatch, offline):
    """An empty $WORKBENCH_DATA/mnist."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    monkeypatch.setenv("WORKBENCH_DATA", str(folder.parent))
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(folder, files, compress=False):
    for name, content in files.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_compressed_or_not(data, idx_files, compress):
    write(data, idx_files(train=30, test=10), compress)
    ds = datasets.load("mnist")
    assert ds.sizes["sample"] == 40
    assert ds.label.values.tolist() == [*range(10), *range(10), *range(10), *range(10)]
    first = np.random.default_rng(30).integers(0, 256, (30, 28, 28))
    np.testing.assert_array_equal(ds.image[:30, ..., 0], first)


def test_same_content_has_the_same_sha_whether_compressed_or_not(data, idx_files):
    write(data, idx_files())
    raw = datasets.load("mnist").attrs["sha256"]
    for file in data.iterdir():
        file.unlink()
    write(data, idx_files(), compress=True)
    assert datasets.load("mnist").attrs["sha256"] == raw


def test_relative_workbench_data_and_one_split(data, idx_files, monkeypatch):
    write(data, {name: idx_files()[name] for name in TEST_FILES})
    monkeypatch.chdir(data.parent.parent)
    monkeypatch.setenv("WORKBENCH_DATA", "data")
    assert datasets.load("mnist", split="test").sizes["sample"] == 10
    with pytest.raises(datasets.BadDataError, match=r"has t10k-images.* but not train-images"):
        datasets.load("mnist")


def test_a_folder_without_the_files_is_passed_over_and_named(data):
    with pytest.warns(datasets.StandInWarning, match=r"mnist has no t10k-images-idx3-ubyte.gz or"):
        datasets.load("mnist", split="test")


def test_labels_missing(data, idx_files):
    write(data, {TEST_FILES[0]: idx_files()[TEST_FILES[0]]})
    with pytest.raises(datasets.BadDataError, match=r"but not t10k-labels-idx1-ubyte.gz"):
        datasets.load("mnist", split="test")


def test_counts_disagree(data, idx_files):
    files = idx_files(test=10)
    files[TEST_FILES[1]] = idx_files(test=9)[TEST_FILES[1]]
    write(data, files)
    with pytest.raises(datasets.BadDataError, match=r"10 images and .* has 9 labels"):
        datasets.load("mnist", split="test")


def test_images_and_labels_exchanged(data, idx_files):
    files = idx_files()
    write(data, {TEST_FILES[0]: files[TEST_FILES[1]], TEST_FILES[1]: files[TEST_FILES[0]]})
    with pytest.raises(datasets.BadDataError, match=r"begins with 00000801; .* 00000803"):
        datasets.load("mnist", split="test")


def test_cut_idx(data, idx_files):
    files = idx_files()
    files[TEST_FILES[0]] = files[TEST_FILES[0]][:-5]
    write(data, files)
    with pytest.raises(datasets.BadDataError, match=r"10 x 28 x 28 bytes and holds 7835, not 7840"):
        datasets.load("mnist", split="test")


@pytest.mark.parametrize("keep", [0, 5, 3000])
def test_cut_gzip(data, idx_files, keep):
    write(data, idx_files(), compress=True)
    path = data / f"{TEST_FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(datasets.BadDataError, match="t10k-images"):
        datasets.load("mnist", split="test")


def test_label_out_of_range(data, idx_files):
    files = idx_files()
    files[TEST_FILES[1]] = files[TEST_FILES[1]][:-1] + b"\x0b"
    write(data, files)
    with pytest.raises(datasets.BadDataError, match="label 11 of image 9"):
        datasets.load("mnist", split="test")


@pytest.fixture
def online(offline, serve, monkeypatch, idx_files):
    """A server with a small MNIST that the registry points at. Returns a function to start it."""
    files = {f"{name}.gz": gzip.compress(raw) for name, raw in idx_files().items()}

    def start(cut=frozenset(), sent=None):
        names = list(files)
        sums = {name: f"md5:{hashlib.md5(files[name]).hexdigest()}" for name in names}
        parts = {
            "train": {name: sums[name] for name in names[:2]},
            "test": {name: sums[name] for name in names[2:]},
        }
        url = serve(sent or files, cut)
        monkeypatch.setitem(sources.REGISTRY, "mnist", sources.Origin(url, parts))
        return url

    return start


def test_download_then_cache(online, offline):
    url = online()
    ds = datasets.load("mnist", split="test")
    assert ds.attrs["source"] == f"download from {url}"
    assert ds.sizes["sample"] == 10
    assert names(offline / "mnist") == [f"{name}.gz" for name in TEST_FILES]
    again = datasets.load("mnist", split="test")
    assert again.attrs["source"] == "cache"
    assert datasets.load("mnist").sizes["sample"] == 40


def test_download_cut_in_the_middle_leaves_nothing(online, offline):
    online(cut={f"{TEST_FILES[1]}.gz"})
    with pytest.raises(datasets.DataNotFoundError, match=r"download: .*t10k-labels.* failed with"):
        datasets.load("mnist", split="test", fallback=False)
    # the first file came whole and stays; of the second there is nothing
    assert names(offline / "mnist") == [f"{TEST_FILES[0]}.gz"]
    with pytest.warns(datasets.StandInWarning, match="t10k-labels"):
        datasets.load("mnist", split="test")
    online()
    assert datasets.load("mnist", split="test").sizes["sample"] == 10


def test_file_missing_on_the_server(online):
    online(sent={"other": b""})
    with pytest.raises(datasets.DataNotFoundError, match="404"):
        datasets.load("mnist", fallback=False)


def test_wrong_checksum_of_a_download(online, offline):
    login = {f"{name}.gz": b"<html>please log in</html>" for name in TEST_FILES}
    online(sent=login)
    with pytest.raises(datasets.BadDataError, match="sent another file than the official one"):
        datasets.load("mnist", split="test")
    assert names(offline / "mnist") == []


def test_broken_cache_is_fetched_again_or_named(online, offline):
    url = online()
    datasets.load("mnist", split="test")
    broken = offline / "mnist" / f"{TEST_FILES[0]}.gz"
    broken.write_bytes(b"half")
    assert datasets.load("mnist", split="test").attrs["source"] == f"download from {url}"
    broken.write_bytes(b"half")
    closed = replace(sources.REGISTRY["mnist"], base_url="http://127.0.0.1:9/")
    sources.REGISTRY["mnist"] = closed  # restored by the fixture's monkeypatch
    with pytest.raises(datasets.DataNotFoundError, match=r"cache: .* has md5 .* official file has"):
        datasets.load("mnist", split="test", fallback=False)


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_read_only_cache(online, offline):
    online()
    offline.mkdir()
    offline.chmod(0o500)
    with pytest.raises(datasets.DataNotFoundError, match="PermissionError"):
        datasets.load("mnist", split="test", fallback=False)


def test_cache_that_is_a_file(online, offline):
    online()
    offline.write_text("in the way")
    with pytest.raises(datasets.DataNotFoundError, match=r"download: .* failed with"):
        datasets.load("mnist", split="test", fallback=False)


def test_processes_that_want_the_same_files_fetch_them_once(online, offline, monkeypatch):
    online()
    fetched = []
    fetch = pooch.HTTPDownloader.__call__
    monkeypatch.setattr(
        pooch.HTTPDownloader, "__call__", lambda self, *a: fetched.append(a[0]) or fetch(self, *a)
    )
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(lambda _: datasets.load("mnist", split="test"), range(3)))
    assert [ds.sizes["sample"] for ds in loaded] == [10, 10, 10]
    assert len(fetched) == len(set(fetched)) == 2
