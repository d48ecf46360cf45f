import io
import warnings

import numpy as np
import pytest
from PIL import Image

from workbench.datasets import BadDataError, load
from workbench.datasets.errors import BadImageError
from workbench.datasets.images import decode, header_size


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def first(content: bytes, **how: object) -> list[int]:
    return decode(content, "here", **how)[0, 0].tolist()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("mode", "color", "seen"),
    [
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("L", 77, [77, 77, 77]),
        ("1", 1, [255, 255, 255]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("RGBA", (0, 0, 0, 128), [127, 127, 127]),
        ("LA", (40, 255), [40, 40, 40]),
        ("LA", (40, 0), [255, 255, 255]),
        ("I;16", 65535, [255, 255, 255]),
        ("I;16", 257 * 100, [100, 100, 100]),
        ("I;16", 200, [1, 1, 1]),
    ],
)
def test_modes(mode, color, seen):
    assert first(encoded(Image.new(mode, (4, 3), color))) == seen


def test_palette_with_and_without_a_transparent_colour():
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert first(encoded(image)) == [200, 100, 50]
    assert first(encoded(image, transparency=1)) == [255, 255, 255]
    assert first(encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))) == [255] * 3


def test_cmyk():
    seen = first(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert seen[0] > 230
    assert max(seen[1:]) < 40


@pytest.mark.parametrize(
    ("values", "mode", "seen"),
    [
        ([[0.0, 0.5, 1.0]], "F", [0, 128, 255]),
        ([[0.0, 100.0, 255.0]], "F", [0, 100, 255]),
        ([[-10.0, 0.0, 10.0]], "F", [0, 128, 255]),
        ([[0, 70_000, 140_000]], "I", [0, 128, 255]),
        ([[5, 100, 255]], "I", [5, 100, 255]),
    ],
)
def test_numbers_beyond_bytes(values, mode, seen):
    dtype = np.float32 if mode == "F" else np.int32
    image = decode(encoded(Image.fromarray(np.array(values, dtype)), "TIFF"), "here", mode="L")
    assert image[0, :, 0].tolist() == seen


def test_not_a_number_becomes_black():
    values = np.array([[np.nan, 0.0, 1.0]], np.float32)
    image = decode(encoded(Image.fromarray(values), "TIFF"), "here", mode="L")
    assert image[0, :, 0].tolist() == [0, 0, 255]


def test_sixteen_bits_keep_their_order():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None]
    image = decode(encoded(Image.fromarray(ramp)), "here", mode="L")
    assert image[0, :, 0].tolist() == list(range(256))


def test_turned_by_exif():
    pixels = noise(6, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    content = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(decode(content, "here"), np.rot90(pixels, -1))
    assert header_size(content) == (4, 6)


def test_first_frame():
    frames = [Image.new("RGB", (3, 3), color) for color in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert first(content) == [255, 0, 0]


def test_fits():
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, 5:15] = 255
    content = encoded(Image.fromarray(pixels))
    assert (decode(content, "here", (10, 10), "crop") == 255).all()
    padded = decode(content, "here", (20, 20), "pad")
    assert padded[0].max() == 0
    assert (padded[8:12, 8:12] == 255).all()
    stretched = decode(content, "here", (10, 10), "stretch")
    assert stretched[:, 0].max() < 20
    assert (stretched[:, 4:6] > 250).all()


def test_own_size_is_untouched():
    pixels = noise(7, 9, 3)
    for fit in ("crop", "pad", "stretch"):
        np.testing.assert_array_equal(
            decode(encoded(Image.fromarray(pixels)), "h", (7, 9), fit), pixels
        )


def test_large_jpeg_is_reduced_well():
    big = Image.linear_gradient("L").resize((1600, 1200)).convert("RGB")
    image = decode(encoded(big, "JPEG", quality=95), "here", (30, 40))
    assert image.shape == (30, 40, 3)
    whole = np.asarray(big.resize((40, 30), Image.Resampling.BICUBIC))
    assert np.abs(image.astype(int) - whole).max() < 6


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_cut_off(kind):
    content = encoded(Image.fromarray(noise(64, 64, 3)), kind)
    with pytest.raises(BadImageError, match=r"cat/7.jpg: "):
        decode(content[: len(content) // 2], "cat/7.jpg")


def test_not_a_picture():
    with pytest.raises(BadImageError, match="here: not an image in a format that Pillow reads"):
        decode(b"<html></html>", "here")
    assert header_size(b"<html></html>") is None


def test_decompression_bomb():
    header = bytearray(encoded(Image.new("1", (8, 8))))
    header[16:24] = (60_000).to_bytes(4, "big") * 2  # a PNG that claims 3.6 billion pixels
    import zlib

    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    with pytest.raises(BadImageError, match="decompression bomb"):
        decode(bytes(header), "here")


RAMP = np.arange(64).reshape(8, 8) / 63


def saved(folder, values, suffix="tif"):
    (folder / "a").mkdir(parents=True)
    for row, image in enumerate(values):
        Image.fromarray(image).save(folder / "a" / f"{row}.{suffix}")
    return folder


@pytest.mark.parametrize(
    ("dtype", "low", "high", "suffix"),
    [
        ("u2", 0, 4095, "png"),
        ("u2", 291, 694, "tif"),
        ("i4", 291, 694, "tif"),
        ("f4", 291, 694, "tif"),
    ],
)
def test_a_camera_of_few_bits_is_announced(tmp_path, dtype, low, high, suffix):
    images = [(low + share * (high - low) * RAMP).astype(dtype) for share in (0.5, 1.0)]
    folder = saved(tmp_path / "camera", images, suffix)
    with pytest.warns(UserWarning, match=f"hold {low} to {high} of a possible 0 to 65535, less"):
        flat = load(folder, mode="L")
    assert flat.image.values.max() < 26
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wanted in ("data", (low, high)):
            ds = load(folder, mode="L", range=wanted)
            lazy = load(folder, mode="L", range=wanted, lazy=True)
            assert ds.attrs["range"] == [low, high]
            # one range for the whole dataset: the first image is half as bright as the second
            assert ds.image.values.max(axis=(1, 2, 3)).tolist() == pytest.approx([127, 255], abs=1)
            np.testing.assert_array_equal(lazy.image.values, ds.image.values)


def test_bytes_have_no_range_and_a_wrong_range_is_refused(tmp_path):
    folder = saved(tmp_path / "bytes", [(255 * RAMP).astype("u1")], "png")
    assert "range" not in load(folder, range="data").attrs
    for wrong in ("all", (3, 3), (1, 2, 3)):
        with pytest.raises(BadDataError, match="is none of 'dtype', 'data'"):
            load(folder, range=wrong)


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png"])
def test_a_turned_picture_is_cropped_nowhere(tmp_path, suffix):
    stored = np.zeros((40, 100, 3), np.uint8)
    stored[:, :50] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    Image.fromarray(stored).save(tmp_path / "a" / f"0.{suffix}", exif=exif)
    ds = load(tmp_path, mode="L")
    assert ds.image.shape[1:3] == (100, 40)
    assert (ds.image.values[0, :45] > 200).all()
    assert (ds.image.values[0, 55:] < 50).all()
