import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workbench import datasets
from workbench.datasets import formats

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def data(tmp_path, monkeypatch, offline):
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    monkeypatch.setenv("WORKBENCH_DATA", str(folder.parent))
    return folder


class Payload:
    """A pickle of it creates a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def batch(seed: int) -> tuple[bytes, np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (20, 3072), np.uint8)
    labels = [int(value) for value in rng.integers(0, 10, 20)]
    content = {b"data": pixels, b"labels": labels, b"batch_label": b"x", b"filenames": [b"a.png"]}
    return pickle.dumps(content, protocol=2), pixels, labels


@pytest.fixture
def batches(monkeypatch):
    """Six small batches, whose checksums take the place of the official ones."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    made = {name: batch(seed) for seed, name in enumerate(names)}
    sums = {name: f"md5:{hashlib.md5(made[name][0]).hexdigest()}" for name in names}
    train = {name: sums[name] for name in names[:5]}
    monkeypatch.setattr(formats, "BATCHES", {"train": train, "test": {names[5]: sums[names[5]]}})
    return made


def unpack(data: Path, files: dict[str, bytes]) -> None:
    (data / formats.FOLDER).mkdir()
    for name, content in files.items():
        (data / formats.FOLDER / name).write_bytes(content)


def archive(data: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(data / formats.ARCHIVE, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{formats.FOLDER}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("put", [unpack, archive])
def test_official_batches(data, batches, put):
    put(data, {name: made[0] for name, made in batches.items()})
    ds = datasets.load("cifar10")
    assert ds.image.shape == (120, 32, 32, 3)
    assert ds.label[-20:].values.tolist() == batches["test_batch"][2]
    # official layout: 1,024 reds, then greens, then blues, row by row
    pixels = batches["data_batch_2"][1][3]
    assert ds.image[23, 5, 7].values.tolist() == [pixels[167 + 1024 * c] for c in range(3)]
    assert (ds.split == "train").sum() == 100
    assert datasets.load("cifar10", n=30).sizes["sample"] == 30


@pytest.mark.parametrize("put", [unpack, archive])
def test_a_pickle_with_a_wrong_checksum_is_never_opened(data, batches, put, tmp_path):
    trap = tmp_path / "trap"
    evil = pickle.dumps(Payload(trap), protocol=2)
    put(data, {name: evil if name == "test_batch" else made[0] for name, made in batches.items()})
    with pytest.raises(datasets.BadDataError, match=r"test_batch has md5 .* official file has"):
        datasets.load("cifar10", split="test")
    assert not trap.exists()
    pickle.loads(evil)
    assert trap.is_dir(), "the payload works, so it was the loader that did not open it"


def test_a_forged_checksum_still_makes_nothing_but_arrays(data, monkeypatch, tmp_path):
    evil = pickle.dumps(Payload(tmp_path / "trap"), protocol=2)
    sums = {"test_batch": f"md5:{hashlib.md5(evil).hexdigest()}"}
    monkeypatch.setitem(formats.BATCHES, "test", sums)
    unpack(data, {"test_batch": evil})
    with pytest.raises(pickle.UnpicklingError, match="mkdir has no place"):
        datasets.load("cifar10", split="test")
    assert not (tmp_path / "trap").exists()


def test_official_checksums_guard_the_real_name(data, tmp_path):
    unpack(data, {"test_batch": batch(0)[0]})
    with pytest.raises(datasets.BadDataError, match="40351d587109b95175f43aff81a1287e"):
        datasets.load("cifar10", split="test")


def test_a_batch_is_missing(data, batches):
    unpack(data, {"data_batch_1": batches["data_batch_1"][0]})
    with pytest.raises(datasets.BadDataError, match=r"but not cifar-10-batches-py/data_batch_2"):
        datasets.load("cifar10", split="train")
    archive(data, {"data_batch_1": batches["data_batch_1"][0]})
    with pytest.raises(datasets.BadDataError, match="has no test_batch"):
        datasets.load("cifar10", split="test")


def test_cut_archive(data, batches):
    archive(data, {name: made[0] for name, made in batches.items()})
    path = data / formats.ARCHIVE
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(datasets.BadDataError, match=r"not a whole tar.gz"):
        datasets.load("cifar10", split="test")


def png(colour, size=(32, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write(data, images, labels, **columns):
    pq.write_table(pa.table({"image": images, "label": labels, **columns}), data / "test.parquet")


def test_parquet_of_bytes_or_structs(data):
    write(data, [png((9, 8, 7)), png((1, 2, 3))], [3, 5])
    ds = datasets.load("cifar10", split="test")
    assert ds.image[:, 0, 0].values.tolist() == [[9, 8, 7], [1, 2, 3]]
    assert ds.label.values.tolist() == [3, 5]
    write(data, [{"bytes": png((9, 8, 7)), "path": "a.png"}], [3])
    assert datasets.load("cifar10", split="test").image[0, 5, 5].values.tolist() == [9, 8, 7]


def test_parquet_decodes_only_the_chosen_rows(data):
    write(data, [png("red")] * 5 + [b"broken"] * 5, [0] * 10)
    seeds = [seed for seed in range(60) if _drawn(seed) is not None]
    assert seeds, "some draw misses every broken row"
    with pytest.raises(datasets.BadImageError, match=r"test.parquet, row 5: not an image"):
        datasets.load("cifar10", split="test")


def _drawn(seed):
    try:
        return datasets.load("cifar10", split="test", n=2, seed=seed)
    except datasets.BadImageError:
        return None


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([png("red", (30, 32))], [0], r"row 0 is \(32, 30, 3\); CIFAR-10 is"),
        ([png("red")], [10], "label 10 in row 0"),
        ([png("red")], [None], "label None in row 0"),
        ([png("red")], ["cat"], "label 'cat' in row 0"),
    ],
)
def test_bad_parquet(data, images, labels, message):
    write(data, images, labels)
    with pytest.raises(datasets.BadDataError, match=message):
        datasets.load("cifar10", split="test")


def test_parquet_without_the_columns(data):
    pq.write_table(pa.table({"img": [png("red")], "label": [0]}), data / "test.parquet")
    with pytest.raises(datasets.BadDataError, match="no column image; it has img, label"):
        datasets.load("cifar10", split="test")


def test_not_parquet(data):
    (data / "test.parquet").write_bytes(b"PAR1 but no")
    with pytest.raises(datasets.BadDataError, match="not a readable Parquet"):
        datasets.load("cifar10", split="test")
