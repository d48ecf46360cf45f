"""Folders, tables and images of strangers: nothing hangs, starts, fetches or leaves its folder."""

import gzip
import io
import os
import socket
import subprocess
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workbench import datasets
from workbench.datasets import formats, images
from workbench.datasets.images import content, decode, header_size

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes and devices have no path there")


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (6, 4), "red").save(tmp_path / "ok.png")
    return tmp_path


def table(folder, *paths):
    lines = "".join(f"{path}\n" for path in ("ok.png", *paths))
    (folder / "t.csv").write_text("path\n" + lines)
    return folder / "t.csv"


def test_pipes_devices_sockets_and_folders_are_no_images(folder):
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s.png"))
        (folder / "sub.png").mkdir()
        path = table(folder, "pipe.png", "/dev/zero", "/dev/stdin", "s.png", "sub.png")
        with pytest.warns() as seen:
            ds = datasets.load(path)
    text = "\n".join(str(warning.message) for warning in seen)
    assert "5 images could not be read" in text
    assert "pipe.png: not a regular file" in text
    assert "/dev/zero: not a regular file" in text
    assert ds.sizes["sample"] == 1
    assert header_size(folder / "pipe.png") is None
    with pytest.warns(datasets.SkippedWarning):
        assert datasets.load(folder, size=4).sizes["sample"] >= 1


def test_a_pipe_called_like_a_table_is_no_table(folder):
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(datasets.DataNotFoundError):
        datasets.load(folder / "pipe.csv")
    (folder / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(datasets.DataNotFoundError):
        datasets.load(folder / "zero.csv")


def test_a_nul_in_a_path_is_an_image_that_cannot_be_read(folder):
    with pytest.warns(datasets.SkippedWarning, match="null byte"):
        assert datasets.load(table(folder, "a\0b.png")).sizes["sample"] == 1


def test_a_path_out_of_the_folder_is_named(folder, tmp_path):
    other = tmp_path / "deeper"
    other.mkdir()
    for path in ("../ok.png", str(folder / "ok.png"), "x/../../ok.png"):
        (other / "t.csv").write_text(f"path\n{path}\n")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                ds = datasets.load(other / "t.csv")
                assert ds.path.attrs["root"] == str(other)
            except datasets.BadDataError:
                assert path.startswith("x/")  # there is no folder x
        assert any("lie outside of" in str(warning.message) for warning in seen), path


def test_eps_under_the_name_of_a_png_starts_nothing(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"a program was started: {args}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (folder / "evil.png").write_bytes(eps)
    with pytest.raises(datasets.BadImageError, match="not an image in a format"):
        decode(eps, "evil.png")
    assert header_size(folder / "evil.png") is None
    assert not {"EPS", "WMF", "FITS", "MPEG", "PDF"} & set(images.formats())


def test_sixteen_bits_take_few_bytes_a_pixel():
    buffer = io.BytesIO()
    pixels = np.arange(1000 * 1000, dtype=np.uint32).reshape(1000, 1000).astype(np.uint16)
    Image.fromarray(pixels).save(buffer, "PNG")
    decode(buffer.getvalue(), "x", mode="L")  # imports what it needs
    tracemalloc.start()
    image = decode(buffer.getvalue(), "x", mode="L")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.shape == (1000, 1000, 1)
    assert peak < 10 * pixels.size, f"{peak / pixels.size:.1f} bytes a pixel"


def test_a_bomb_of_pixels_is_refused_by_its_size(folder):
    buffer = io.BytesIO()
    Image.new("1", (14_000, 14_000)).save(buffer, "PNG")
    with pytest.raises(datasets.BadImageError, match="196000000 pixels"):
        decode(buffer.getvalue(), "bomb.png")


def test_a_file_beyond_the_limit_is_refused(folder, monkeypatch):
    monkeypatch.setattr(images, "LARGEST_FILE", 50)
    with pytest.raises(datasets.BadImageError, match="larger than 50 bytes"):
        content(str(folder / "ok.png"), "ok.png")


def test_of_a_gzip_bomb_no_more_is_unpacked_than_it_announces(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2, 28, 28))
    path.write_bytes(gzip.compress(header + bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(datasets.BadDataError, match=r"announces 2 x 28 x 28 bytes"):
        formats.read_idx(path, dims=3)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12))
    with pytest.raises(datasets.BadDataError, match="at most 268,435,456 are read"):
        formats.read_idx(path, dims=3)


@pytest.mark.parametrize(
    "text",
    ["9" * 5000, "-" + "0" * 200_000, "1." + "0" * 200_000 + "x", "#offset=1&size=" * 20_000],
)
def test_long_texts_take_no_quadratic_time(folder, text):
    """That would be hours, and the limit of every test ends it."""
    lines = f"path,label\nok.png,{text}\nok.png,cat\n"
    (folder / "t.csv").write_text(lines)
    ds = datasets.load(folder / "t.csv")
    assert sorted(ds["class"].values.tolist()) == sorted([text, "cat"])
    with pytest.raises(datasets.BadImageError):
        content(text, "x")
    with pytest.raises(datasets.BadDataError, match="none of the given classes"):
        datasets.load(folder / "t.csv", classes=["cat", "c" * 1000])


def test_deep_json_is_refused(folder):
    (folder / "t.jsonl").write_text('{"path": "ok.png", "label": ' + "[" * 100_000 + "\n")
    with pytest.raises(datasets.BadDataError, match="line 1 is no JSON"):
        datasets.load(folder / "t.jsonl")
    (folder / "t.csv").write_text(f'path,label\nok.png,"{"[" * 50_000}{"]" * 50_000}"\n')
    assert datasets.load(folder / "t.csv").sizes["class"] == 1


def test_links_in_a_circle_and_out_of_the_folder_end(folder):
    (folder / "a").mkdir()
    (folder / "a" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "a" / "root.png").symlink_to("/dev/zero")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert datasets.load(folder).sizes["sample"] == 1
    assert Path("/dev/zero").exists()
