import io

import numpy as np
import pytest
import xarray as xr
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from workbench import datasets
from workbench.datasets.near_duplicates import near_pairs, signature


@pytest.fixture(scope="module")
def photos():
    """Different patches of photographs, RGB images of 96 x 96."""
    ds = datasets.load("photos", n=100)
    images = ds.image.values[ds.image.mean(["y", "x", "channel"]).values > 70]
    return [Image.fromarray(image).resize((96, 96), Image.BICUBIC) for image in images[:80]]


def jpeg(image, quality=40):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


COPIES = {
    "recompressed": jpeg,
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "cropped": lambda image: image.crop((2, 3, 94, 95)).resize((96, 96)),
    "turned": lambda image: image.rotate(90),
    "mirrored": ImageOps.mirror,
    "all of it": lambda image: jpeg(ImageOps.flip(image.crop((1, 1, 96, 95))).resize((96, 96)), 70),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_nearer_than_any_other(photos, kind):
    stacked = np.stack(
        [signature(np.asarray(image)) for image in [*photos, COPIES[kind](photos[1])]]
    )
    pairs, within = near_pairs(stacked)
    assert [1, len(photos)] in pairs.tolist(), (kind, within)
    assert len(pairs) <= 4, "different patches of one photograph pass for copies"


def test_turning_changes_no_distance(photos):
    one = signature(np.asarray(photos[3]))
    for turn in Image.Transpose:
        other = signature(np.asarray(photos[3].transpose(turn)))
        pairs, within = near_pairs(np.stack([one, other]))
        assert pairs.tolist() == [[0, 1]]
        assert within < 1e-4


def test_digits_that_look_alike_are_no_copies():
    ds = datasets.load("digits", n=600)
    found = datasets.check(ds, progress=False)
    assert found.attrs["flaws"]["near_copy"] <= 12


@pytest.fixture
def flawed(tmp_path, photos):
    """A folder with one image of each flaw, and copies within and between the splits."""

    def save(name, image, **how):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **how)

    for k, image in enumerate(photos[:30]):
        save(f"train/a/{k:02}.png", image)
    for k, image in enumerate(photos[30:40]):
        save(f"test/a/{k:02}.png", image)
    save("test/a/leak.png", ImageOps.mirror(photos[4]))
    save("train/a/same.bmp", photos[5])
    save("train/a/dark.png", ImageEnhance.Brightness(photos[70]).enhance(0.1))
    save("train/a/bright.png", Image.new("RGB", (96, 96), "white"))
    save("train/a/blurry.png", photos[71].filter(ImageFilter.GaussianBlur(6)))
    save("train/a/large.png", photos[72].resize((400, 400)))
    save("train/a/wide.png", photos[73].resize((400, 80)))
    (tmp_path / "train/a/broken.png").write_bytes(b"no")
    return tmp_path


def test_every_flaw_is_found_and_nothing_else(flawed):
    ds = datasets.load(flawed, lazy=True, progress=False)
    found = datasets.check(ds, progress=False)
    assert found.index.tolist() == ds.sample.values.tolist()

    def having(flaw):
        return [name.rpartition("/")[2] for name in found.index[found[flaw]]]

    assert having("leak") == ["leak.png", "04.png"]
    assert having("exact_copy") == ["05.png", "same.bmp"]
    assert sorted(having("near_copy")) == ["04.png", "05.png", "leak.png", "same.bmp"]
    assert having("unreadable") == ["broken.png"]
    assert having("dark") == ["dark.png"]
    assert having("bright") == ["bright.png"]
    assert "blurry.png" in having("blurry")
    assert having("low_information") == ["bright.png", "dark.png"]
    assert having("odd_size") == ["large.png"]
    assert having("odd_aspect") == ["wide.png"]
    assert found.attrs["flaws"]["leak"] == 2
    assert found.loc["train/a/wide.png", ["height", "width"]].tolist() == [80, 400]


def test_with_a_graph_only_neighbours_are_compared(flawed):
    ds = datasets.load(flawed, lazy=True, progress=False)
    names = ds.sample.values.tolist()
    index = np.zeros((len(names), 1), np.int64)
    index[names.index("test/a/leak.png")] = names.index("train/a/04.png")
    graph = xr.Dataset({"index": (("sample", "neighbor"), index)}, coords={"sample": names})
    found = datasets.check(ds, graph, progress=False)
    assert found.attrs["flaws"]["leak"] == 2
    shuffled = graph.isel(sample=np.random.default_rng(0).permutation(len(names)))
    with pytest.raises(ValueError, match="other samples"):
        datasets.check(ds, shuffled.assign_coords(sample=[f"x{k}" for k in names]), progress=False)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_small_datasets_and_blank_images(photos, n):
    pixels = np.stack([np.asarray(image) for image in photos[:n]])
    pixels[0] = 0
    ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), pixels)})
    found = datasets.check(ds, progress=False)
    assert found["low_information"].tolist() == [True] + [False] * (n - 1)
    assert not found["near_copy"].any()
    pixels[-1] = 0
    assert datasets.check(ds, progress=False)["exact_copy"].sum() == (2 if n > 1 else 0)
    with pytest.raises(datasets.BadDataError, match="nothing to check"):
        datasets.check(ds.isel(sample=[]))
