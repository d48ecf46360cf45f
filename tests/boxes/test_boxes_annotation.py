"""Annotation without a browser: what is sent and saved, two at once, and 200 kills."""

import base64
import io
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from workbench import boxes
from workbench.datasets import BadDataError
from workbench.labels import StoreError

BOX = {"sample": "a", "x_min": 10, "y_min": 20, "x_max": 30, "y_max": 50, "label": "cell"}


def drawn(name="n1", box=(1, 2, 30, 40), label="cell", points=None):
    return {"id": name, "label": label, "box": box and list(box), "points": points}


def corners(table):
    return table[["x_min", "y_min", "x_max", "y_max"]].to_numpy().tolist()


@pytest.fixture
def anna(ds, tmp_path):
    return boxes.annotate(ds, ["cell", "dust"], tmp_path / "b.db", reviewer="anna")


def test_what_was_drawn_is_in_the_table_to_a_hundredth_of_a_pixel(ds, anna, tmp_path):
    anna.save(0, [drawn(box=(1.004, 2.126, 30, 40))])
    anna.save(1, [drawn("n2", None, "dust", [[5, 5], [9, 5], [9, 12.5]])])
    anna.save(1, [drawn("n3", None, "dust", [[50, 60]])])
    table = boxes.apply_boxes(ds, tmp_path / "b.db")
    assert corners(table) == [[1, 2.13, 30, 40], [5, 5, 9, 12.5], [50, 60, 50, 60]]
    assert table["sample"].tolist() == ["a", "b", "b"]
    assert table["label"].tolist() == ["cell", "dust", "dust"]
    assert set(table["source"]) == {"anna"}
    assert table["points"].map(lambda p: 0 if p is None else len(p)).tolist() == [0, 3, 1]


def test_change_delete_and_undo(ds, anna):
    anna.save(0, [drawn(), drawn("n2", label="dust")])
    anna.save(0, [drawn(box=(5, 5, 9, 9))])
    anna.save(0, [{"id": "n2"}])
    assert corners(boxes.apply_boxes(ds, anna.store)) == [[5, 5, 9, 9]]
    for expected in ([[5, 5, 9, 9], [1, 2, 30, 40]], [[1, 2, 30, 40]] * 2, [[1, 2, 30, 40]], []):
        (reply,) = anna.answer({"do": "undo"})
        assert (reply["do"], reply["at"]) == ("undone", 0)
        assert sorted(o["box"] for o in reply["card"]["objects"]) == sorted(expected)
        assert sorted(corners(boxes.apply_boxes(ds, anna.store))) == sorted(expected)
    assert anna.answer({"do": "undo"}) == [{"do": "undone", "at": None}]


def test_shapes_stay_within_the_image_and_none_is_empty(anna):
    anna.save(0, [drawn(box=(-9, 70, 500, 90))])
    assert anna.card(0)["objects"][0]["box"] == [0, 70, 100, 80]
    for bad in ((5, 5, 5, 9), (200, 5, 300, 9), (5, float("nan"), 9, 9), ("x", 1, 2, 3)):
        with pytest.raises(ValueError, match=r"box|finite|float"):
            anna.save(0, [drawn("n2", bad)])
    with pytest.raises(BadDataError):
        anna.save(0, [drawn("n2", None, points=[[1, 1], [2, 2]])])
    assert len(anna.objects(0)) == 1


def test_proposals_count_only_when_they_are_confirmed(ds, tmp_path):
    proposals = boxes.as_table([BOX, {**BOX, "x_min": 12, "score": 0.5}], ds)
    anna = boxes.annotate(ds, ["cell"], tmp_path / "b.db", proposals, reviewer="anna")
    card = anna.card(0)
    assert [o["open"] for o in card["objects"]] == [True, True]
    assert boxes.apply_boxes(ds, anna.store).empty
    first, second = card["objects"]
    anna.save(0, [{**first, "open": False}, {"id": second["id"]}], done=True)
    again = boxes.annotate(ds, ["cell"], tmp_path / "b.db", proposals, reviewer="anna")
    assert [o["open"] for o in again.card(0)["objects"]] == [False]
    assert corners(boxes.apply_boxes(ds, anna.store)) == [[10, 20, 30, 50]]


def test_pages_are_what_is_not_complete_and_the_work_goes_on(ds, anna, tmp_path):
    (reply,) = anna.answer({"do": "open"})
    assert [[card["sample"] for card in page] for page in reply["pages"]] == [
        ["a", "b", "c", "d"],
        [],
    ]
    anna.answer({"do": "save", "seq": 1, "at": 1, "changes": [drawn()], "done": True})
    anna.answer({"do": "save", "seq": 2, "at": 3, "changes": [], "done": True})
    assert anna.answer({"do": "status"})[0]["parts"] == ["2 of 4 images complete", "1 boxes"]
    again = boxes.annotate(ds, ["cell"], tmp_path / "b.db", rows=1, columns=1, reviewer="anna")
    assert again.page() == [0]
    assert again.page(skip=[0]) == [2]
    assert boxes.annotated(ds, anna.store).values.tolist() == [False, True, False, True]
    assert repr(again) == "<Annotation: 2 of 4 images complete, 1 boxes>"


def test_images_are_upright_and_small_while_coordinates_are_not(ds, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (3000, 1200), "red").save(tmp_path / "t.jpg", exif=exif)
    files = [str(tmp_path / "t.jpg")] * 3 + [str(tmp_path / "gone.jpg")]
    ds = ds.assign(path=("sample", files))
    anna = boxes.annotate(ds, ["cell"], tmp_path / "b.db")
    card = anna.card(0)
    assert card["size"] == [1200, 3000]
    assert sent(card["image"]) == (410, 1024)
    assert sent(anna.answer({"do": "close", "at": 0})[0]["image"]) == (1200, 3000)
    anna.save(0, [drawn(box=(1100, 2900, 1300, 2950))])
    assert anna.card(0)["objects"][0]["box"] == [1100, 2900, 1200, 2950]
    with pytest.raises(BadDataError, match=r"gone\.jpg"):
        anna.card(3)


def sent(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size


def test_an_error_is_said_in_the_browser_and_nothing_is_called_saved(anna):
    replies = []
    anna.widget.send = replies.append
    message = {"do": "save", "seq": 7, "at": 0, "changes": [drawn(box=(5, 5, 5, 5))], "view": "v"}
    anna._on_message(anna.widget, message, None)
    (reply,) = replies
    assert (reply["do"], reply["seq"], reply["view"]) == ("failed", 7, "v")
    assert "a width and a height" in reply["why"]
    assert anna.answer({"do": "card", "at": 0})[0]["card"]["objects"] == []


def test_a_still_page_names_what_is_drawn(anna):
    anna.save(0, [drawn(), drawn("n2", None, "<dust>", [[5, 5], [9, 5], [9, 9]])])
    parts, html = anna.still()
    assert parts[0] == "0 of 4 images complete"
    assert html.count("<img") == 4
    assert 'alt="a: 1 cell, 1 &lt;dust&gt;"' in html
    assert "<dust>" not in html


def test_what_makes_no_sense_is_refused(ds, tmp_path):
    for wrong, message in (
        ({"classes": []}, "must be one name or more"),
        ({"classes": "cell"}, "must be one name or more"),
        ({"classes": ["a"], "shapes": ["circle"]}, "circle"),
        ({"classes": ["a"], "shapes": []}, "must be one or more of box, polygon, point"),
        ({"classes": ["a"], "rows": 0}, "holds no image"),
        ({"classes": ["a"], "proposals": [{**BOX, "sample": "z"}]}, "not in the dataset"),
    ):
        with pytest.raises(ValueError, match=message):
            boxes.annotate(ds, store=tmp_path / "b.db", **wrong)
    with pytest.raises(StoreError, match="no store of decisions"):
        boxes.apply_boxes(ds, tmp_path / "none.db")


class TestSeveral:
    @pytest.fixture
    def people(self, ds, tmp_path):
        names = ("anna", "ben", "cleo")
        return [boxes.annotate(ds, ["cell", "dust"], tmp_path / "b.db", reviewer=n) for n in names]

    def test_a_box_is_kept_where_enough_have_it(self, ds, people):
        for i, person in enumerate(people):
            person.save(0, [drawn(f"n{i}", (10 + i, 10, 40 + i, 40))], done=True)
        people[0].save(0, [drawn("only", (60, 60, 70, 70), "dust")])
        table = boxes.apply_boxes(ds, people[0].store)
        assert corners(table) == [[11, 10, 41, 40]]
        assert table["source"].tolist() == ["anna+ben+cleo"]
        assert len(boxes.apply_boxes(ds, people[0].store, least=0.3)) == 2

    def test_the_label_of_most_holds(self, ds, people):
        for person, label in zip(people, ("dust", "cell", "dust"), strict=True):
            person.save(0, [drawn(person.reviewer, label=label)])
        assert boxes.apply_boxes(ds, people[0].store)["label"].tolist() == ["dust"]

    def test_agreement_is_by_overlap_and_label(self, ds, people):
        anna, ben, _ = people
        anna.save(0, [drawn("1", (0, 0, 10, 10)), drawn("2", (50, 50, 60, 60))])
        ben.save(0, [drawn("3", (0, 0, 10, 8)), drawn("4", (50, 50, 60, 60), "dust")])
        ben.save(1, [drawn("5")])
        row = boxes.box_agreement(ds, anna.store).iloc[0]
        assert row[["first", "second", "images", "boxes"]].tolist() == ["anna", "ben", 1, 3]
        assert row["f1"] == 0.5
        assert row["iou"] == pytest.approx(0.8)
        assert "F1 with ben: 0.50 on 1 images" in anna.status()

    def test_who_did_not_decide_on_a_given_box_has_no_vote(self, ds, people):
        given = boxes.as_table([BOX, {**BOX, "x_min": 60, "x_max": 90}], ds)
        gone, kept = boxes.annotate(ds, ["cell"], people[0].store, given).card(0)["objects"]
        people[0].save(0, [{"id": gone["id"]}])
        people[1].save(0, [{**kept, "label": "dust"}])
        table = boxes.apply_boxes(ds, people[0].store, given)
        assert corners(table) == [[60, 20, 90, 50]]
        assert table["label"].tolist() == ["dust"]
        assert len(boxes.apply_boxes(ds, people[0].store, given.iloc[:0])) == 1


def annotate_until_killed(ds, path, name, acknowledged):
    """Draw box after box; each that is called saved is written to the pipe."""
    person = boxes.annotate(ds, ["cell"], path, reviewer="anna")
    for i in range(10_000):
        person.save(i % 4, [drawn(f"{name}-{i}")])
        os.write(acknowledged, f"{name}-{i}\n".encode())


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_lose_no_box_that_was_called_saved(ds, tmp_path, kills):
    fork, rng = multiprocessing.get_context("fork"), np.random.default_rng(0)
    path, acknowledged = tmp_path / "b.db", []
    boxes.annotate(ds, ["cell"], path).store.close()
    for name in range(kills):
        reading, writing = os.pipe()
        process = fork.Process(target=annotate_until_killed, args=(ds, path, name, writing))
        process.start()
        os.close(writing)
        seen = os.read(reading, 1)  # the first box is saved
        time.sleep(rng.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        while part := os.read(reading, 65536):
            seen += part
        os.close(reading)
        acknowledged += seen.decode().split("\n")[:-1]
    held = boxes.annotate(ds, ["cell"], path).store.current(objects=True)
    assert len(acknowledged) >= kills
    assert set(acknowledged) <= set(held["object"])
    assert all(json.loads(data)["x_max"] == 30 for data in held["data"])
    assert len(held) <= len(acknowledged) + kills  # saved, and killed before that was said


def annotate_all(ds, path, name):
    person = boxes.annotate(ds, ["cell"], path, reviewer=name)
    for i in range(50):
        person.save(i % 4, [drawn(f"{name}-{i}", (i, i, i + 9, i + 9))])


def test_two_annotators_at_once_lose_nothing(ds, tmp_path):
    fork = multiprocessing.get_context("fork")
    people = [fork.Process(target=annotate_all, args=(ds, tmp_path / "b.db", n)) for n in "ab"]
    for person in people:
        person.start()
    for person in people:
        person.join(60)
    held = boxes.annotate(ds, ["cell"], tmp_path / "b.db").store.current(objects=True)
    assert held.groupby("reviewer").size().to_dict() == {"a": 50, "b": 50}
