"""Streams: folds, order, and boxes that go where the pixels go."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench import datasets, store
from workbench.datasets.boxes import CORNERS, as_table
from workbench.store.perturb import affine, clipped_boxes, moved_boxes, warped


def ids(stream):
    return [sample for batch in stream for sample in batch["sample"].values]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(1, 9))
def test_folds_are_even_in_every_class_and_in_all(label, k):
    fold = store.folds(np.array(label), k)
    counts = pd.crosstab(np.array(label), fold).reindex(columns=range(k), fill_value=0)
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    assert counts.sum().max() - counts.sum().min() <= 1


def test_folds_are_disjoint_and_complete(written):
    ds, _, path = written
    held_out = []
    for fold in range(5):
        options = {"split": 5, "split_fold": fold}
        left = ids(store.stream(path, 7, **options, seed=fold))
        out = ids(store.stream(path, 7, **options, validation=True, seed=99))
        assert set(left) | set(out) == set(ds["sample"].values)
        assert not set(left) & set(out)
        assert set(out) == set(ids(store.stream(path, 7, **options, negate=True)))
        held_out += out
    assert sorted(held_out) == sorted(ds["sample"].values)


def test_the_seed_alone_decides_what_comes(written):
    _, _, path = written
    perturb = store.Perturb(angle=20, min_scale=0.8, max_scale=1.2, color=(10,), hflip=True)
    several = [
        list(store.stream(path, 7, perturb=perturb, threads=threads, seed=3))
        for threads in (1, 2, 7)
    ]
    for others in several[1:]:
        for one, other in zip(several[0], others, strict=True):
            assert one.drop_vars("box_points").identical(other.drop_vars("box_points"))
            pd.testing.assert_frame_equal(store.boxes_of(one), store.boxes_of(other))
    stream = store.stream(path, 7, seed=3)
    assert ids(stream) == ids(stream) == ids(several[0])
    assert ids(stream.epoch(1)) != ids(stream) != ids(store.stream(path, 7, seed=4))
    assert sorted(ids(stream)) == sorted(ids(stream.epoch(1)))
    assert len(stream) == len(several[0]) == 6


def test_a_loop_shows_every_image_once_a_pass(written):
    ds, _, path = written
    batches = iter(store.stream(path, 16, loop=True))
    seen = [sample for _ in range(6) for sample in next(batches)["sample"].values]
    assert sorted(seen[:40]) == sorted(seen[40:]) == sorted(ds["sample"].values)
    assert seen[:40] != seen[40:]


def test_a_batch_is_an_image_dataset_with_its_boxes(written):
    ds, boxes, path = written
    for batch in store.stream(path, 7, masks=True):
        mine = ds.sel(sample=batch["sample"])
        np.testing.assert_array_equal(batch["image"], mine["image"])
        np.testing.assert_array_equal(batch["label"], mine["label"])
        assert batch["valid"].all()
        table = store.boxes_of(batch)
        expected = boxes[boxes["sample"].isin(batch["sample"].values)]
        key = ["sample", *CORNERS]
        pd.testing.assert_frame_equal(
            table.sort_values(key, ignore_index=True), expected.sort_values(key, ignore_index=True)
        )
        marked = np.isin(batch["mask"], [0, 1]).any(axis=(1, 2))
        np.testing.assert_array_equal(marked, np.isin(batch["sample"], table["sample"]))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    at=st.tuples(st.integers(8, 40), st.integers(8, 40), st.integers(6, 16), st.integers(6, 16)),
)
def test_a_moved_box_is_the_box_of_its_corners_and_holds_its_pixels(seed, at):
    x, y, width, height = at
    box = as_table([dict(zip(CORNERS, [x, y, x + width, y + height], strict=True), sample=0)])
    rng = np.random.default_rng(seed)
    perturb = store.Perturb(angle=180, min_scale=0.7, max_scale=1.5, hflip=True, vflip=True)
    matrix = perturb.matrix(64, 64, rng)
    corners = [[x, y, 1], [x + width, y, 1], [x + width, y + height, 1], [x, y + height, 1]]
    there = (np.array(corners) @ matrix.T)[:, :2]
    found = moved_boxes(box, matrix)[CORNERS].to_numpy()[0]
    np.testing.assert_allclose(found, [*there.min(axis=0), *there.max(axis=0)])
    # the pixels go the same way, to within an interpolated pixel
    image = np.zeros((64, 64, 1), np.uint8)
    image[y : y + height, x : x + width] = 255
    moved, _ = warped(image, matrix, 64, 64)
    rows, columns = np.nonzero(moved[..., 0])
    if (found > 0).all() and (found < 64).all():
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(seen, found, atol=2)


def test_polygons_and_points_are_moved_corner_by_corner():
    quarter = affine([[0, -1], [1, 0]], [10, 0])
    triangle = [[0, 0], [4, 0], [4, 2]]
    table = as_table([{"sample": 0, "points": triangle}, {"sample": 0, "points": [[3, 5]]}])
    moved = moved_boxes(table, quarter)
    assert moved["points"][0].tolist() == [[10, 0], [10, 4], [8, 4]]
    assert moved[CORNERS].values.tolist() == [[8, 0, 10, 4], [5, 3, 5, 3]]
    assert len(clipped_boxes(moved, 10, 10)) == 2
    assert len(clipped_boxes(moved, 4, 6)) == 1


def test_images_of_several_sizes_are_padded_or_fitted_and_their_boxes_with_them(tmp_path):
    sides = [(40, 60), (30, 20)]
    for i, side in enumerate(sides):
        pixels = np.full((*side, 3), 200, np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    ds = datasets.load(tmp_path / "photos")
    box = {"x_min": 10, "y_min": 10, "x_max": 20, "y_max": 20}
    boxes = as_table([{"sample": name, **box} for name in ds["sample"].values])
    path = store.write(ds, tmp_path / "store", boxes, progress=False)
    (batch,) = store.stream(path, 2, shuffle=False)
    assert batch["valid"].sum(["y", "x"]).values.tolist() == [2400, 600]
    np.testing.assert_array_equal(batch["image"][..., 0] == 200, batch["valid"])
    (batch,) = store.stream(path, 2, shuffle=False, size=20)
    assert batch["image"].shape == (2, 20, 20, 3)
    np.testing.assert_allclose(
        store.boxes_of(batch)[CORNERS], np.array([[10, 10, 20, 20]] * 2) * [[1 / 3], [2 / 3]]
    )


def test_torch_workers_share_the_batches_in_order(written):
    torch = pytest.importorskip("torch")
    _, boxes, path = written
    stream = store.stream(path, 7, seed=2)
    loaded = [
        list(torch.utils.data.DataLoader(stream.torch(), batch_size=None, num_workers=workers))
        for workers in (0, 2)
    ]
    for one, other, ds in zip(*loaded, stream, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], torch.from_numpy(ds["label"].values))
        assert one["image"].shape[1:] == (1, 24, 32)
        assert one["image"].max() <= 1
        assert len(one["boxes"]) == len(ds["sample"])
    assert sum(len(table) for batch in loaded[0] for table in batch["boxes"]) == len(boxes)


def test_bad_options_are_named(written):
    _, _, path = written
    with pytest.raises(ValueError, match="batch=0"):
        store.stream(path, 0)
    with pytest.raises(ValueError, match="split_fold=5 must be 0 to split=5"):
        store.stream(path, 4, split=5, split_fold=5)
    with pytest.raises(ValueError, match="give split"):
        store.stream(path, 4, validation=True)
    with pytest.raises(ValueError, match="'breed' is no column"):
        store.stream(path, 4, split=5, stratify="breed")
    with pytest.raises(ValueError, match="angle=200"):
        store.Perturb(angle=200)
    with pytest.raises(ValueError, match="min_scale=2"):
        store.Perturb(min_scale=2)
