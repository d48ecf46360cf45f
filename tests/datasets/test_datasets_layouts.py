"""What a folder, or a table, means: splits, wrappers, junk, labels and where the images lie."""

import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from workbench import datasets


@pytest.fixture
def lay(tmp_path, picture):
    """``lay("a/cat/0.png", ...)``: small pictures below a folder, which is returned."""

    def make(*paths, root="root"):
        for number, path in enumerate(paths):
            picture(tmp_path / root / path, size=(6, 4), color=(number, 0, 0))
        return tmp_path / root

    return make


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return datasets.load(*args, **options)


@pytest.mark.parametrize(
    ("first", "second", "splits"),
    [
        ("Training", "Testing", ("train", "test")),
        ("TRAIN", "Val", ("train", "val")),
        ("seg_train", "seg_test", ("train", "test")),
        ("train_set", "dev_set", ("train", "val")),
        ("train2017", "val2017", ("train", "val")),
        ("valid", "evaluation", ("val", "test")),
        ("zip/train", "zip/eval", ("train", "test")),
        ("images/train", "images/val", ("train", "val")),
    ],
)
def test_split_folders_by_the_words_of_imagefolder(lay, first, second, splits):
    root = lay(f"{first}/cat/0.png", f"{first}/dog/0.png", f"{second}/cat/1.png")
    ds = quiet(root)
    assert datasets.splits(root) == splits
    assert ds["class"].values.tolist() == ["cat", "dog"]
    assert set(ds.split.values) == set(splits)
    assert ds.sel(sample=f"{second}/cat/1.png").label == 0


@pytest.mark.parametrize("alone", ["val", "Train"])
def test_one_split_alone(lay, alone):
    ds = quiet(lay(f"{alone}/cat/0.png", f"{alone}/dog/0.png"))
    assert set(ds.split.values) == {alone.lower()}
    assert ds["class"].values.tolist() == ["cat", "dog"]


def test_classes_that_sound_like_splits_stay_classes(lay):
    root = lay("train/0.png", "bus/0.png", "test tube/0.png")
    assert quiet(root)["class"].values.tolist() == ["bus", "test tube", "train"]
    assert datasets.splits(root) == ()


def test_a_third_folder_beside_the_splits_is_one(lay):
    root = lay("train/cat/0.png", "test/cat/0.png", "pred/0.png")
    with pytest.warns(datasets.SkippedWarning, match="label -1: pred/0.png"):
        ds = datasets.load(root)
    assert datasets.splits(root) == ("train", "test", "pred")
    assert ds.label.sel(sample="pred/0.png") == -1


def test_a_wrapper_is_skipped_and_a_preview_left_out(lay):
    assert quiet(lay("zip/rose/0.png", "zip/tulip/0.png"))["class"].values.tolist() == [
        "rose",
        "tulip",
    ]
    alone = lay("rose/red/0.png", "rose/white/0.png", root="alone")
    (alone / "tulip").mkdir()
    with pytest.warns(datasets.SkippedWarning, match="make no class: tulip"):
        assert datasets.load(alone)["class"].values.tolist() == ["rose"]
    root = lay("train/rose/0.png", "test/rose/0.png", "preview.png", root="other")
    with pytest.warns(datasets.SkippedWarning, match=r"left out: preview\.png"):
        ds = datasets.load(root)
    assert ds.sizes["sample"] == 2


def test_one_class_stays_one(lay):
    assert quiet(lay("cat/0.png", "cat/1.png"))["class"].values.tolist() == ["cat"]


def test_roboflow_and_coco_have_no_class_called_images(lay):
    assert quiet(lay("train/images/0.png", "valid/images/0.png")).sizes["class"] == 0
    root = lay("images/0.png", root="coco")
    (root / "annotations").mkdir()
    with pytest.warns(datasets.SkippedWarning, match=r"annotations.*workbench\.boxes\.load"):
        assert datasets.load(root).sizes["class"] == 0


def test_junk_is_passed_over(lay):
    root = lay("cat/0.png", "dog/0.png", "cat/@eaDir/0.png/thumb.png", "__pycache__/x.png")
    assert quiet(root).sizes["sample"] == 2


def test_images_that_cannot_be_read_are_counted_by_kind(lay, capsys):
    root = lay("cat/0.png", "dog/0.png")
    (root / "readme.txt").write_text("x")
    (root / "cat" / "1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (root / "cat" / "2").write_bytes((root / "cat" / "0.png").read_bytes())
    with pytest.warns(datasets.SkippedWarning, match=r"1 \.heic, 1 without a suffix"):
        ds = datasets.load(root)
    assert ds.attrs["ignored_kinds"] == ["1 .heic", "1 without a suffix", "1 .txt"]
    line = capsys.readouterr().err
    assert line.startswith("folder root: 2 images, 2 classes (cat, dog), other files: 1 .heic and")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets.load(root, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_name_that_is_not_utf8(lay):
    root = lay("cat/0.png", "dog/0.png")
    (root / "cat" / "0.png").rename(root / "cat" / os.fsdecode(b"caf\xe9.png"))
    ds = quiet(root)
    assert ds.sample.values[0] == "cat/caf\\xe9.png"
    ds.sample.values[0].encode()
    assert Path(ds.path.values[0]).exists()


def test_a_broken_exif_keeps_the_pixels(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (9, 8, 7)).save(buffer, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\xffbroken")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "0.png").write_bytes(buffer.getvalue())
    ds = quiet(tmp_path / "f")
    assert ds.image.shape == (1, 4, 6, 3)
    assert ds.image[0, 0, 0].values.tolist() == [9, 8, 7]


def test_metadata_of_huggingface_in_a_folder(lay):
    root = lay("train/0.png", "train/1.png", "test/2.png", "test/3.png")
    (root / "train" / "metadata.csv").write_text("file_name,label\n0.png,cat\n1.png,dog\n")
    (root / "test" / "metadata.csv").write_text("file_name,label\n2.png,dog\n3.png,\n")
    ds = quiet(root)
    assert datasets.splits(root) == ("train", "test")
    assert ds.sample.values.tolist() == ["train/0.png", "train/1.png", "test/2.png", "test/3.png"]
    assert ds.split.values.tolist() == ["train", "train", "test", "test"]
    assert ds["class"].values.tolist() == ["cat", "dog"]
    assert ds.label.values.tolist() == [0, 1, 1, -1]
    assert ds.image[:, 0, 0, 0].values.tolist() == [0, 1, 2, 3]
    (root / "test" / "metadata.csv").unlink()
    lines = [{"file_name": "2.png", "label": ["cat", "dog"]}, {"file_name": "3.png", "label": []}]
    (root / "test" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "train" / "metadata.csv").unlink()
    with pytest.warns(datasets.SkippedWarning, match="2 images of .* are in no metadata table"):
        ds = datasets.load(root)
    assert ds.labels.values.tolist() == [[True, True], [False, False]]


def shard(path, colours, labels, names=("owl", "cat")):
    cells = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.new("RGB", (9, 7), (colour, 0, 0)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": f"{colour}.png"})
    feature = {"_type": "ClassLabel", "names": list(names)}
    about = json.dumps({"info": {"features": {"label": feature}}})
    table = pa.table({"image": cells, "label": labels})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), path, row_group_size=2)


def test_parquet_shards_with_class_names_in_the_schema(tmp_path):
    root = tmp_path / "hub"
    root.mkdir()
    shard(root / "data" / "train-00000-of-00002.parquet", [1, 2, 3], [1, 0, 1])
    shard(root / "data" / "train-00001-of-00002.parquet", [4], [0])
    shard(root / "data" / "test-00000-of-00001.parquet", [5], [-1])
    ds = quiet(root, size=(7, 9))
    assert datasets.splits(root) == ("train", "test")
    assert ds["class"].values.tolist() == ["owl", "cat"]
    assert ds.label.values.tolist() == [1, 0, 1, 0, -1]
    assert ds.split.values.tolist() == ["train"] * 4 + ["test"]
    assert ds.image[:, 0, 0, 0].values.tolist() == [1, 2, 3, 4, 5]
    assert ds.file_name.values.tolist() == [f"{k}.png" for k in range(1, 6)]
    small = quiet(root, size=2, lazy=True)
    assert small.image[[4, 2]].values[:, 0, 0, 0].tolist() == [5, 3]
    assert datasets.boxes.image_of(small, 2, 512).shape == (7, 9, 3)


def test_embedded_images_are_exported_as_they_are(tmp_path):
    labels = pytest.importorskip("workbench.labels")
    (tmp_path / "hub").mkdir()
    shard(tmp_path / "hub" / "train.parquet", [1, 2, 3], [1, 0, 1])
    ds = quiet(tmp_path / "hub", size=2)
    labels.review_batch(ds, None, {2: 0}, tmp_path / "r.db", progress=False)
    out = labels.export(ds, tmp_path / "r.db", tmp_path / "out", progress=False)
    again = quiet(out)
    assert again.sample.values.tolist() == ["cat/1.png", "owl/2.png", "owl/3.png"]
    assert again.image.shape == (3, 7, 9, 3)


def table(root, text, name="t.csv", encoding="utf-8"):
    (root / name).write_bytes(text.encode(encoding))
    return root / name


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path;label\n0.png;cat\n1.png;dög\n", "utf-8"),
        ("path\tlabel\n0.png\tcat\n1.png\tdög\n", "utf-16"),
        ("Image_Path, Label\n0.png, cat\n1.png, dög\n", "utf-8-sig"),
        ("file_name,Category\n.\\0.png,cat\n.\\1.png,dög\n", "utf-8"),
        ("FILE,target \n0.png,cat\n1.png,dög\n", "utf-8"),
    ],
)
def test_tables_as_people_write_them(lay, text, encoding):
    ds = quiet(table(lay("0.png", "1.png"), text, encoding=encoding))
    assert ds["class"].values[ds.label].tolist() == ["cat", "dög"]
    assert ds.image[:, 0, 0, 0].values.tolist() == [0, 1]


def test_latin_1_is_read_and_said(lay):
    path = table(lay("0.png"), "path,label\n0.png,dög\n", encoding="latin-1")
    with pytest.warns(UserWarning, match="not in UTF-8; it is read as Windows-1252"):
        assert datasets.load(path)["class"].values.tolist() == ["dög"]


def test_kaggle_has_ids_without_suffix_beside_a_folder(lay):
    path = table(lay("train_images/0.png", "train_images/1.png"), "id,label\n0,cat\n1,dog\n")
    ds = quiet(path, image="id", root=path.parent / "train_images", suffix=".png")
    assert ds.image[:, 0, 0, 0].values.tolist() == [0, 1]
    assert ds.sample.values.tolist() == [0, 1]


def test_no_column_of_labels_is_said(lay):
    path = table(lay("0.png"), "path,kind,width\n0.png,cat,9\n")
    with pytest.warns(UserWarning, match="it has path, kind, width"):
        assert datasets.load(path).label.values.tolist() == [-1]
    assert quiet(path, label=[]).label.values.tolist() == [-1]


@pytest.mark.parametrize(
    "cells",
    [
        ["cat|dog", "dog", "", "cat"],
        ['["cat", "dog"]', '["dog"]', "[]", '["cat"]'],
        [["cat", "dog"], ["dog"], [], ["cat"]],
    ],
)
def test_several_labels_in_a_cell(lay, cells):
    root = lay(*[f"{k}.png" for k in range(4)])
    frame = pd.DataFrame({"path": [f"{k}.png" for k in range(4)], "label": cells})
    path = root / ("t.csv" if isinstance(cells[0], str) else "t.parquet")
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    ds = quiet(path)
    assert ds["class"].values.tolist() == ["cat", "dog"]
    assert ds.labels.values.astype(int).tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]


def test_minus_one_and_one(lay):
    root = lay("0.png", "1.png", "2.png")
    text = "path,label,sky,sea\n0.png,-1,1,-1\n1.png,1,-1,1\n2.png,-1,1,1\n"
    path = table(root, text)
    several = quiet(path, label=["sky", "sea"])
    assert several.labels.values.astype(int).tolist() == [[1, 0], [0, 1], [1, 1]]
    with pytest.warns(UserWarning, match="-1 and 1 only"):
        ds = datasets.load(path)
    assert ds["class"].values[ds.label].tolist() == ["-1", "1", "-1"]
    with pytest.raises(datasets.BadDataError, match=r"'-1' is neither 0 nor 1"):
        datasets.load(table(root, "path,a,b\n0.png,1,-1\n1.png,0,1\n"), label=["a", "b"])


def test_numbers_and_names_stay_what_they_are(lay):
    root = lay(*[f"{k}.png" for k in range(3)])

    def classes(*labels):
        rows = "".join(f"{k}.png,{label}\n" for k, label in enumerate(labels))
        return datasets.load(table(root, "path,label\n" + rows))["class"].values.tolist()

    assert classes("001", "002", "010") == ["001", "002", "010"]
    assert classes("1", "0", "nan") == ["0", "1"]
    with pytest.warns(UserWarning, match="stay apart: 'Dog', 'dog'"):
        assert classes("Dog", "dog", "cat") == ["Dog", "cat", "dog"]
    with pytest.warns(UserWarning, match="stay apart: 'cat '"):
        assert classes("cat ", "cat ", "dog") == ["cat ", "dog"]


def test_a_bare_name_beside_a_folder_of_that_name(lay, monkeypatch):
    monkeypatch.chdir(lay("cat/0.png", root="digits").parent)
    with pytest.warns(UserWarning, match=r'"\./digits" would be what lies here'):
        assert datasets.load("digits", n=5).attrs["name"] == "digits"


@pytest.mark.parametrize("n", [1, 2, 5, 20, 180])
@pytest.mark.parametrize("classes", ["one", "two", "one of one"])
def test_small_data(lay, n, classes):
    names = {"one": ["a"] * n, "two": ["a", "b"] * n, "one of one": ["a"] * (n - 1) + ["b"]}
    root = lay(*[f"{names[classes][k]}/{k}.png" for k in range(n)])
    ds = quiet(root)
    assert ds.sizes["sample"] == n
    assert datasets.load(root, n=1).sizes["sample"] == 1
    assert datasets.subset(ds, n).sizes["sample"] == n
    assert len(np.unique(ds.label)) == ds.sizes["class"] == len(set(names[classes][:n]))


def test_of_a_shuffled_lazy_folder_only_what_is_asked_for_is_decoded(lay, monkeypatch):
    ds = quiet(lay(*[f"c/{k:03}.png" for k in range(250)]), lazy=True)
    rows = np.random.default_rng(0).permutation(250)[:40]
    seen = []
    read = datasets.images.Pictures.read
    monkeypatch.setattr(
        datasets.images.Pictures, "read", lambda self, row: seen.append(row) or read(self, row)
    )
    shuffled = ds.isel(sample=rows)
    np.testing.assert_array_equal(shuffled.image[:, 0, 0, 0].values, rows)
    assert len(seen) == 40
    again = shuffled.isel(sample=np.arange(39, -1, -2))
    np.testing.assert_array_equal(again.image[:, 0, 0, 0].values, rows[::-2])
    assert len(seen) == 60
