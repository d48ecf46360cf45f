"""Review of suspect boxes without a browser: verdicts, lots, and the missing boxes left."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench import boxes


def box(sample, x, label="cell", size=10, **others):
    corners = {"x_min": x, "y_min": 20, "x_max": x + size, "y_max": 20 + size}
    return {"sample": sample, "label": label, **corners, **others}


@pytest.fixture
def table(ds):
    given = [box("a", 0), box("a", 20, "dust"), box("b", 43), box("c", 60)]
    return boxes.as_table(given, ds)


@pytest.fixture
def issues(table):
    seen = [box("a", 0), box("a", 20), box("b", 40), box("d", 80)]
    return boxes.find_box_issues(table, [one | {"score": 0.9} for one in seen])


@pytest.fixture
def anna(ds, table, issues, tmp_path):
    return boxes.review(ds, table, issues, tmp_path / "b.db", reviewer="anna", audit=0)


def cards(review):
    """The kinds of question to their card."""
    return {review.card(at)["why"]: at for at in range(len(review.cards))}


def test_every_kind_is_taken_by_one_key(ds, table, anna):
    questions = cards(anna)
    assert len(questions) == 4
    assert len(anna.cards) == 5  # one of them is of a box that is right
    for why in ("is a cell missing here?", "is this dust a cell?", "is there no cell here?"):
        anna.answer({"do": "verdict", "seq": 1, "at": questions[why], "verdict": "take"})
    (shifted,) = [at for at in range(5) if anna.card(at)["object"].startswith("cell@43")]
    replies = anna.answer({"do": "verdict", "seq": 2, "at": shifted, "verdict": "take"})
    assert [reply["do"] for reply in replies] == ["card", "saved"]
    assert replies[0]["card"]["done"] == "changed"
    fixed = boxes.apply_boxes(ds, anna.store, table)
    rows = fixed[["sample", "x_min", "label", "source"]].to_numpy().tolist()
    assert rows == [
        ["a", 0, "cell", ""], ["a", 20, "cell", "anna"], ["b", 40, "cell", "anna"],
        ["d", 80, "cell", "anna"],
    ]  # fmt: skip


def test_right_as_it_is_changes_nothing_and_comes_no_more(ds, table, issues, anna, tmp_path):
    for at in range(len(anna.cards)):
        anna.judge(at, "right")
    assert anna.page() == []
    again = boxes.review(ds, table, issues, tmp_path / "b.db", reviewer="anna", audit=0)
    assert again.page() == []
    assert {again.held(at) for at in range(5)} == {"right", "not there"}
    fixed = boxes.apply_boxes(ds, anna.store, table)
    assert fixed["x_min"].tolist() == table["x_min"].tolist()
    assert list(fixed) == list(table)


def test_a_box_can_be_placed_by_the_mouse_deleted_or_be_unclear(ds, table, anna):
    at = cards(anna)["is this dust a cell?"]
    card = anna.card(at)
    moved = {"id": card["object"], "label": "dust", "box": [21, 20, 33, 30], "points": None}
    anna.answer({"do": "save", "seq": 1, "at": at, "changes": [moved], "done": False})
    assert anna.held(at) == "changed"
    other = cards(anna)["is there no cell here?"]
    anna.judge(other, "unclear")
    fixed = boxes.apply_boxes(ds, anna.store, table)
    assert fixed.loc[fixed["label"] == "dust", "x_min"].tolist() == [21]
    assert len(fixed) == 4


def test_undo_brings_the_card_back(anna):
    at = cards(anna)["is there no cell here?"]
    anna.judge(at, "take")
    assert at not in anna.page()
    (reply,) = anna.answer({"do": "undo"})
    assert reply["at"] == at
    assert reply["card"]["done"] == ""
    assert at in anna.page()


def test_what_is_asked_is_in_sight(anna):
    for at in range(len(anna.cards)):
        card = anna.card(at)
        x, y, width, height = card["focus"]
        assert min(x, y) >= 0
        assert x + width <= 100
        assert y + height <= 80
        for one in [card["suggestion"] or card["objects"][0]]:
            assert x <= one["box"][0] <= one["box"][2] <= x + width


def test_issues_of_other_boxes_are_refused(ds, table, issues, tmp_path):
    with pytest.raises(ValueError, match="is not of these boxes"):
        boxes.review(ds, table.iloc[::-1], issues, tmp_path / "b.db")
    with pytest.raises(ValueError, match=r"from 0 to 0\.5"):
        boxes.review(ds, table, issues, tmp_path / "b.db", audit=0.9)


def scenes(seed, n=16):
    """Images, their true boxes, the same with some missing, and a detector's predictions."""
    rng = np.random.default_rng(seed)
    image = (("sample", "y", "x", "channel"), np.zeros((n, 80, 400, 1), np.uint8))
    ds = xr.Dataset({"image": image}, coords={"sample": np.arange(n)}, attrs={"sha256": "made"})
    truth = [box(i, 30 * k) for i in range(n) for k in rng.choice(12, rng.integers(3, 9), False)]
    lost = rng.random(len(truth)) < 0.12
    seen = [one | {"score": rng.beta(6, 3)} for one in truth if rng.random() < 0.7]
    given = [one for one, is_lost in zip(truth, lost, strict=True) if not is_lost]
    return ds, pd.DataFrame(truth), boxes.as_table(given, ds), seen, int(lost.sum())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_missing_boxes_left_are_within_the_interval_at_every_look(tmp_path, seed):
    ds, truth, given, seen, missing = scenes(seed)
    issues = boxes.find_box_issues(given, seen)
    review = boxes.review(ds, given, issues, tmp_path / "b.db", reviewer="anna", most=8)
    held, drawn = [], 0
    while (page := review.page()) and drawn < 14:
        for at in page:
            is_lot = review.cards[at]["source"] == "audit"
            drawn += is_lot
            card = review.card(at)
            there = {one["box"][0] for one in card["objects"]}
            wanted = truth.loc[truth["sample"] == int(card["sample"]), "x_min"]
            if is_lot:
                new = [x for x in wanted if x not in there]
                changes = [
                    {"id": f"{at}-{x}", "label": "cell", "box": [x, 20, x + 10, 30], "points": None}
                    for x in new
                ]
                review.save(at, changes, done=True)
            else:
                place = (card["suggestion"] or {"box": [None]})["box"][0]
                is_new = place is not None and place in set(wanted) and place not in there
                review.judge(at, "take" if is_new else "right")
            if not is_lot:
                continue
            table = boxes.apply_boxes(ds, review.store, given)
            left = review.left()
            truly = len(truth) - len(table)
            held.append(left.low <= truly <= left.high)
            assert left.found == missing - truly
            assert left.audited + left.unseen == 16
    assert all(held)
    assert left.audited == drawn
    assert "boxes missing" in review.status()[-1]


def test_lots_are_mixed_in_and_settled_beforehand(ds, table, tmp_path):
    many = boxes.find_box_issues(table, [box("d", x, score=0.9) for x in range(0, 90, 2)])
    first = boxes.review(ds, table, many, tmp_path / "b.db", audit=0.2, seed=3)
    lots = [at for at in range(len(first.cards)) if first.cards[at]["source"] == "audit"]
    assert len(lots) == 4
    assert all(5 * i <= at < 5 * i + 5 for i, at in enumerate(lots))
    assert [first.cards[at]["place"] for at in lots] == first.lots
    again = boxes.review(ds, table, many, tmp_path / "b.db", audit=0.2, seed=9)
    assert again.cards == first.cards
