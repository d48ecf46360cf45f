"""Each format written and read again, data as people have it, and broken files."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import boxes, datasets
from workbench.datasets import BadDataError, SkippedWarning

HEIGHT, WIDTH = 301, 457  # no powers of two, so that fractions are not exact
IDS = ["a.jpg", "sub/a.jpg", "sub/b.png", "v1.2"]
NAMES = ["plate", "Blutkörperchen", "a b", ""]


def images(ids=IDS, **variables):
    image = np.zeros((len(ids), HEIGHT, WIDTH, 1), np.uint8)
    return xr.Dataset(
        {"image": (("sample", "y", "x", "channel"), image), **variables}, coords={"sample": ids}
    )


def row(sample, label):
    return dict(sample=sample, x_min=1, y_min=2, x_max=3, y_max=4, label=label)  # noqa: C408


def thousandths(most):
    return st.integers(0, most * 1000).map(lambda value: value / 1000)


@st.composite
def rows(draw, shapes):
    """A box, a polygon or a point within the image, in thousandths of a pixel."""
    shape = draw(st.sampled_from(shapes))
    n = {"box": 2, "polygon": draw(st.integers(3, 6)), "point": 1}[shape]
    xs = draw(st.lists(thousandths(WIDTH), min_size=n, max_size=n, unique=True))
    ys = draw(st.lists(thousandths(HEIGHT), min_size=n, max_size=n, unique=True))
    row = {"x_min": min(xs), "y_min": min(ys), "x_max": max(xs), "y_max": max(ys)}
    row |= {"points": None if shape == "box" else list(zip(xs, ys, strict=True))}
    row |= {"sample": draw(st.sampled_from(IDS)), "label": draw(st.sampled_from(NAMES))}
    row["score"] = draw(st.none() | st.floats(0, 1))
    return row | {"source": draw(st.sampled_from(["", "anna", "net v2"]))}


def same(one, other, by_image=False, without=()):
    """Tables that hold the same, whatever the order of the images."""
    if by_image:
        one = one.sort_values("sample", key=lambda s: s.map(lambda i: i), kind="stable")
        other = other.sort_values("sample", kind="stable")
    one, other = (t.drop(columns=list(without)).reset_index(drop=True) for t in (one, other))
    for a, b in zip(one.get("points", []), other.get("points", []), strict=True):
        np.testing.assert_equal(a, b)
    pd.testing.assert_frame_equal(
        one.drop(columns="points", errors="ignore"),
        other.drop(columns="points", errors="ignore"),
        check_exact=True,
    )


@settings(max_examples=40)
@given(st.lists(rows(["box", "polygon", "point"]), max_size=8))
def test_coco_and_annotorious_give_everything_back(given_rows):
    ds, table = images(), boxes.as_table(given_rows, images())
    same(boxes.from_coco(json.loads(json.dumps(boxes.to_coco(ds, table))), ds), table)
    content = json.loads(json.dumps(boxes.to_annotorious(ds, table)))
    same(boxes.from_annotorious(content, ds), table)


@settings(max_examples=25)
@given(st.lists(rows(["box", "polygon"]), max_size=8))
def test_yolo_gives_back_all_but_the_source(tmp_path_factory, given_rows):
    ds, table = images(), boxes.as_table(given_rows, images())
    folder = boxes.to_yolo(ds, table, tmp_path_factory.mktemp("yolo") / "out")
    same(boxes.from_yolo(folder, ds), table, by_image=True, without=["source"])


@settings(max_examples=25)
@given(st.lists(rows(["box"]), max_size=8))
def test_voc_gives_back_boxes(tmp_path_factory, given_rows):
    ds, table = images(), boxes.as_table(given_rows, images())
    folder = boxes.to_voc(ds, table, tmp_path_factory.mktemp("voc") / "out")
    same(boxes.from_voc(folder, ds), table, by_image=True)


def test_numbers_for_ids_come_back_as_numbers(tmp_path):
    ds = images([7, 17])
    table = boxes.as_table([row(17, "a")], ds)
    same(boxes.from_coco(boxes.to_coco(ds, table), ds), table)
    same(boxes.from_yolo(boxes.to_yolo(ds, table, tmp_path / "y"), ds), table)
    same(boxes.from_voc(boxes.to_voc(ds, table, tmp_path / "v"), ds), table)


def coco(*annotations, **others):
    return {
        "images": [{"id": 5, "file_name": "x/sub/a.jpg"}, {"id": 9, "file_name": "gone.jpg"}],
        "categories": [{"id": 90, "name": "cell"}],
        "annotations": [{"image_id": 5, "category_id": 90, **a} for a in annotations],
    } | others


def test_coco_as_people_have_it_is_read_with_counts():
    content = coco(
        {"bbox": [1.5, 2.25, 10, 20]},
        {"bbox": [10, 10, 30, 0]},
        {"bbox": [10, 10, -3, 5]},
        {"bbox": [450, -4, 30, 20]},
        {"bbox": [1, 1, 5, 5], "iscrowd": 1, "segmentation": {"counts": "x", "size": [9, 9]}},
        {"bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 2, 2, 3, 1], [4, 4, 5, 5, 6, 4]]},
        {"bbox": [0, 0, 9, 9], "segmentation": [[0, 0, 9, 0, 9, 9.5]]},
        {"bbox": [1, 1, 5, 5], "image_id": 9},
    )
    with pytest.warns(SkippedWarning) as caught:
        table = boxes.from_coco(content, images())
    said = " ".join(str(warning.message) for warning in caught)
    assert "1 crowds were skipped" in said
    assert "1 of images that are not in the dataset were skipped" in said
    assert "2 of a mask or several polygons keep their boxes" not in said
    assert "1 of a mask or several polygons keep their boxes" in said
    assert "of 6 boxes 1 stuck out of their image and were clipped, 2 were empty" in said
    assert set(table["sample"]) == {"sub/a.jpg"}
    assert table[["x_min", "y_min", "x_max", "y_max"]].to_numpy().tolist() == [
        [1.5, 2.25, 11.5, 22.25], [450, 0, 457, 16], [1, 1, 6, 6], [0, 0, 9, 9.5],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco({"bbox": [1, 2, 3]}), r"annotations\[0\]: not enough values"),
        (coco({"bbox": [1, 2, 3, 4]}, {}), r"annotations\[1\]: there is no 'bbox'"),
        (coco({"bbox": [1, 2, 3, 4], "category_id": 4}), r"annotations\[0\]: there is no 4"),
        (coco({"bbox": [1, 2, float("nan"), 4]}), r"annotations\[0\]: .*finite"),
        (coco({"bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3]]}), r"annotations\[0\]"),
        (
            coco({"bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4]]}),
            r"a polygon 3 or more",
        ),
        (coco(images=[{"id": 1}]), r"images\[0\]: there is no 'file_name'"),
        ([], "is no COCO data"),
        (coco({"bbox": [1, 2, 3, 4], "image_id": 9}), "none of its images is in the dataset"),
    ],
)
def test_broken_coco_is_named_by_its_entry(content, message):
    with pytest.raises(BadDataError, match=message):
        boxes.from_coco(content, images())


def test_broken_json_is_named_by_its_line(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"images": [],\n "annotations": [,]}')
    with pytest.raises(BadDataError, match=r"a\.json: .* line 2"):
        boxes.from_coco(file, images())


def test_broken_entries_of_coco_are_named(tmp_path):
    """Two images of one id would give the second one's name to the first one's boxes."""
    ds = images(["a.jpg", "b.jpg"])
    content = boxes.to_coco(ds, boxes.as_table([row("a.jpg", "y")], ds))
    broken = {
        r"images\[1\]: the id 1 is another": {
            "images": [content["images"][0], {**content["images"][1], "id": 1}]
        },
        "annotations: .*not iterable": {"annotations": None},
        "categories: .*not iterable": {"categories": None},
        r"annotations\[0\]: .*unpack": {"annotations": [{"bbox": [1, 2]}]},
    }
    for message, part in broken.items():
        with pytest.raises(BadDataError, match=message):
            boxes.from_coco(content | part, ds)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(BadDataError, match=r"deep\.json: .*recursion"):
        boxes.from_coco(tmp_path / "deep.json", ds)


@pytest.mark.parametrize("names", ["names: [", "names:", "names: 3", "names: {1: b}"])
def test_a_broken_list_of_yolo_s_classes_is_named(tmp_path, names):
    (tmp_path / "data.yaml").write_text(names)
    with pytest.raises(BadDataError, match=r"data\.yaml does not name the classes"):
        boxes.from_yolo(tmp_path, images())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .5 .5 .1", "line 2: .*cx cy w h"),
        ("4 .5 .5 .1 .1", "line 2: .*a class from 0 to 1"),
        ("0.5 .5 .5 .1 .1", "line 2: .*a class from 0 to 1"),
        ("plate .5 .5 .1 .1", "line 2: could not convert"),
        ("0 .5 nan .1 .1", "line 2: .*finite"),
    ],
)
def test_a_broken_line_of_yolo_is_named(tmp_path, line, message):
    (tmp_path / "labels" / "sub").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("plate\ncell\n")
    file = tmp_path / "labels" / "sub" / "a.txt"
    file.write_text("1 .5 .5 .1 .1\n")
    assert boxes.from_yolo(tmp_path, images())["label"].tolist() == ["cell"]
    file.write_text(f"1 .5 .5 .1 .1\n{line}\n")
    with pytest.raises(BadDataError, match=rf"sub.a\.txt, {message}"):
        boxes.from_yolo(tmp_path, images())
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(BadDataError, match=r"no data\.yaml or classes\.txt"):
        boxes.from_yolo(tmp_path, images())


def test_a_broken_file_of_voc_is_named(tmp_path):
    file = tmp_path / "v1.2.xml"
    file.write_text("<annotation>\n<object>\n</annotation>")
    with pytest.raises(BadDataError, match=r"v1\.2\.xml: .*line 3"):
        boxes.from_voc(tmp_path, images())
    file.write_text("<annotation><object/></annotation>")
    with pytest.raises(BadDataError, match=r"v1\.2\.xml, object 1: .*'nothing'"):
        boxes.from_voc(tmp_path, images())


def test_a_broken_annotation_of_annotorious_is_named():
    ds = images()
    good = boxes.to_annotorious(ds, boxes.as_table([{"sample": "v1.2", "points": [[1, 2]]}], ds))
    broken = [*good, {"src": "v1.2", "shapes": [{"type": "rect", "geometry": {"x": 1}}]}]
    with pytest.raises(BadDataError, match=r"\[1\]: there is no 'y'"):
        boxes.from_annotorious(broken, ds)
    with pytest.raises(BadDataError, match="a list of annotations"):
        boxes.from_annotorious({"a": 1}, ds)


def test_what_a_format_has_no_place_for_is_said(tmp_path):
    ds = images()
    table = boxes.as_table([{"sample": "v1.2", "points": p} for p in ([[1, 2]], np.eye(3, 2))], ds)
    with pytest.warns(SkippedWarning, match="1 points have no place in YOLO"):
        boxes.to_yolo(ds, table, tmp_path / "yolo")
    with pytest.warns(SkippedWarning, match="2 polygons and points are written as their boxes"):
        boxes.to_voc(ds, table, tmp_path / "voc")


def test_nothing_is_overwritten_and_nothing_left_half(tmp_path):
    ds, none = images(), boxes.as_table()
    boxes.to_yolo(ds, none, tmp_path / "a")
    boxes.to_coco(ds, none, tmp_path / "a.json")
    for write, name in ((boxes.to_voc, "a"), (boxes.to_coco, "a.json")):
        with pytest.raises(FileExistsError, match="is there already"):
            write(ds, none, tmp_path / name)
    with pytest.raises(BadDataError, match=r"'b\.png' has no file of its own"):
        boxes.to_voc(images(["b.jpg", "b.png"]), none, tmp_path / "c")
    with pytest.raises(BadDataError, match="has no file of its own"):
        boxes.to_voc(images(["../b.jpg"]), none, tmp_path / "c")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.json"}


def test_an_image_that_may_be_either_is_refused(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("a")
    (tmp_path / "labels" / "b.txt").write_text("0 .5 .5 .1 .1")
    with pytest.raises(
        BadDataError, match=r"image 'b' may be any of the samples \['b.jpg', 'b.png'\]"
    ):
        boxes.from_yolo(tmp_path, images(["b.jpg", "b.png"]))


def test_the_blood_smears_are_read_whole(real_data):
    if not (real_data / "bccd").is_dir():
        pytest.skip("needs the blood smears: WORKBENCH_DATA/bccd")
    with pytest.warns(SkippedWarning, match="2 are one pixel large"):
        ds, table = boxes.load(real_data / "bccd", size=32)
    assert table["label"].value_counts().to_dict() == {"RBC": 4155, "WBC": 372, "Platelets": 361}
    assert table[["x_min", "y_min"]].min().min() >= 0
    assert table[["x_max", "y_max"]].max().tolist() == [640, 480]
    assert ds["class"].values.tolist() == ["Platelets", "RBC", "WBC"]
    assert set(ds["split"].values) == {"train", "val", "test"}
    same(boxes.from_coco(boxes.to_coco(ds, table), ds), table)


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco", "annotorious"])
def test_load_finds_the_images_of_each_format(tmp_path, kind):
    from PIL import Image

    folder = tmp_path / "JPEGImages" if kind == "voc" else tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)
    ds = images(["a.jpg", "b.jpg"]).assign_coords({"class": ["z", "y"]})
    table = boxes.as_table([row("b.jpg", "y")])
    out = tmp_path / "out"
    if kind in ("voc", "yolo"):
        getattr(boxes, f"to_{kind}")(ds, table, out)
        folder.rename(out / folder.name)
    else:
        getattr(boxes, f"to_{kind}")(ds, table, out := tmp_path / "all.json")
    loaded, read = boxes.load(out)
    assert loaded["class"].values.tolist() == {"yolo": ["z", "y"], "coco": ["z", "y"]}.get(
        kind, ["y"]
    )
    assert "label" not in loaded
    same(read, table)


def test_datasets_load_says_who_reads_boxes(tmp_path):
    from PIL import Image

    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    Image.new("L", (5, 5)).save(tmp_path / "JPEGImages" / "a.png")
    with pytest.warns(datasets.SkippedWarning, match=r"workbench\.boxes\.load\(path\) reads"):
        assert datasets.load(tmp_path).sizes["class"] == 0
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(
        BadDataError, match=r"workbench\.boxes\.load\(path\) reads images with boxes"
    ):
        datasets.load(tmp_path / "a.json")
    with pytest.raises(BadDataError, match="neither Annotations/"):
        boxes.load(tmp_path / "JPEGImages")
