"""The review from Python: the queue is walked, resumed, undone; what comes of the decisions."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import cohen_kappa_score
from toys import toys

from workbench import datasets, labels
from workbench.labels.session import Session
from workbench.labels.store import Store


@pytest.fixture
def ds():
    return toys(60)


@pytest.fixture
def issues(ds):
    score = np.linspace(0.99, 0.01, 60)
    return pd.DataFrame(
        {
            "given": ds.label.values,
            "suggested": np.where(score > 0.7, (ds.label.values + 1) % 3, ds.label.values),
            "self_confidence": 1 - score,
            "cleanlab_flag": score > 0.8,
            "neighbor_vote": ds.label.values,
            "ood_score": score,
            "duplicate_group": np.where(np.arange(60) < 2, 0, -1),
            "score": score,
            "is_issue": score > 0.7,
        },
        index=pd.Index(ds.sample.values, name="sample"),
    )


@pytest.fixture
def store(tmp_path):
    return tmp_path / "review.db"


def truth(ds, wrong=10):
    """The first ten labels are wrong by one."""
    label = ds.label.values.copy()
    label[:wrong] = (label[:wrong] + 1) % 3
    return pd.Series(label, index=ds.sample.values)


def batch(ds, issues, answers, store, **options):
    return labels.review_batch(ds, issues, answers, store, progress=False, **options)


class TestSession:
    def test_a_page_is_the_next_undecided_of_the_queue(self, ds, issues, store):
        session = Session(ds, issues, store, "anna")
        first = session.page(6)
        assert first == session.queue.order[:6].tolist()
        assert session.page(6, skip=first) == session.queue.order[6:12].tolist()
        session.decide({first[1]: "given"})
        assert first[1] not in session.page(6)
        assert session.page(6) == [first[0], *first[2:], int(session.queue.order[6])]

    def test_answers_become_what_they_say(self, ds, issues, store):
        session = Session(ds, issues, store, "anna")
        session.decide(
            {0: "given", 1: "suggested", 2: "none", 3: "unclear", 4: "cow", 5: 2, 6: "ant"}
        )
        log = session.store.log()
        assert log["action"].tolist() == [
            "confirm", "change", "none", "unclear", "change", "confirm", "confirm",
        ]  # fmt: skip
        assert log["label"].tolist() == [0, 2, -1, 0, 2, 2, 0]
        assert log["previous"].tolist() == ds.label.values[:7].tolist()
        session.decide({0: "bee"})
        session.decide({0: "cow"})
        assert session.store.log()["previous"].tolist()[-2:] == [0, 1]
        np.testing.assert_allclose(log["score"], issues["score"][:7])

    def test_undo_and_reopening_go_on_where_it_stopped(self, ds, issues, store):
        session = Session(ds, issues, store, "anna")
        first = session.page(3)
        session.decide({first[0]: "given"})
        session.decide({first[1]: "none"})
        again = Session(ds, issues, store, "anna")
        assert again.page(1) == [first[2]]
        assert again.undo() == first[1]
        assert again.page(2) == first[1:]
        assert again.held(first[1]) is None
        again.decide({first[0]: "unclear"})
        assert again.undo() == first[0]
        assert again.held(first[0]) == ("confirm", int(ds.label[first[0]]))
        assert again.undo() == first[0]
        assert again.undo() is None

    def test_answers_that_are_none_are_refused_and_nothing_is_saved(self, ds, issues, store):
        session = Session(ds, issues, store, "anna")
        with pytest.raises(ValueError, match=r"'bea' is no class .* did you mean 'bee'"):
            session.decide({0: "given", 1: "bea"})
        with pytest.raises(ValueError, match="7 is no class"):
            session.decide({1: 7})
        assert session.store.log().empty

    def test_part_of_the_issues_will_do(self, ds, issues, store):
        session = Session(ds, issues[issues.is_issue], store, "anna")
        assert sorted(session.queue.order.tolist()) == list(range(60))
        flagged = np.flatnonzero(issues.is_issue)
        assert session.queue.rank[flagged].max() == len(flagged) - 1
        with pytest.raises(ValueError, match="no suggestion for sample '159'"):
            session.decide({59: "suggested"})

    def test_a_store_keeps_the_lots_it_was_made_with(self, ds, issues, store):
        lots = Session(ds, issues, store, "anna", seed=3).queue.draws
        np.testing.assert_array_equal(Session(ds, issues, store, "ben", seed=4).queue.draws, lots)

    def test_draws_behind_a_gap_do_not_count(self, ds, issues, store):
        session = Session(ds, issues, store, "anna", audit=0.5)
        walked = session.queue.order[:40].tolist()
        drawn = [p for p in walked if session.queue.audit[p]]
        session.decide({p: "given" for p in walked if p != drawn[3]})
        left, _ = session.progress()
        own = session.queue.stratum[drawn] == session.queue.stratum[drawn[3]]
        in_front = np.arange(len(drawn)) < 3
        assert own[4:].any()
        assert (left.reviewed, left.audited) == (39, (~own | in_front).sum())
        session.decide({drawn[3]: "given"})
        assert session.progress()[0].audited == len(drawn) == 20

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t.drop(columns="score"), "issues has no column 'score'"),
            (lambda t: t.set_axis(range(60)), "60 of 60 samples in issues are not in the dataset"),
            (lambda t: pd.concat([t, t[:1]]), "more than one row for sample '100'"),
            (lambda t: t.assign(score=np.nan), "60 scores in issues are not numbers"),
        ],
    )
    def test_issues_of_something_else_are_refused(self, ds, issues, store, change, message):
        with pytest.raises(ValueError, match=message):
            Session(ds, change(issues), store, "anna")

    def test_data_without_single_labels_are_refused(self, ds, issues, store):
        with pytest.raises(ValueError, match="takes 'label'"):
            labels.review(ds.drop_vars("label"), issues, store)
        assert not store.exists()


class TestBatch:
    def test_it_goes_along_the_queue_and_says_how_much_is_left(self, ds, issues, store):
        table = batch(ds, issues, truth(ds), store, page=10, audit=0.5)
        assert table["reviewed"].tolist() == [10, 20, 30, 40, 50, 60]
        assert table["wrong"].sum() == table["found"].iloc[-1] == 10
        assert (table["low"] <= 10 - table["found"]).all()
        assert (10 - table["found"] <= table["high"]).all()
        assert table["left"].iloc[-1] == 0
        log = Store(store, ds).log()
        assert (log["source"] == "audit").sum() == table["audited"].iloc[-1] > 10

    def test_it_stops_and_resumes(self, ds, issues, store):
        assert len(batch(ds, issues, truth(ds), store, page=5, pages=2)) == 2
        rest = batch(ds, issues, truth(ds), store, page=5)
        assert rest["reviewed"].iloc[0] == 15
        assert rest["reviewed"].iloc[-1] == 60
        assert batch(ds, issues, truth(ds), store).empty

    def test_until_few_are_left(self, ds, issues, store):
        table = batch(ds, issues, truth(ds), store, page=5, until=0.5)
        assert (table["high"] / 60 <= 0.5).tolist() == [False] * (len(table) - 1) + [True]

    def test_a_table_about_other_samples_is_refused_as_a_whole(self, ds, issues, store):
        with pytest.raises(ValueError, match=r"1 of 2 answers .* the first is '7'"):
            batch(ds, issues, {100: "given", 7: "given"}, store)
        assert Store(store, ds).log().empty

    def test_what_does_not_come_from_the_queue_is_no_audit(self, ds, issues, store):
        batch(ds, issues, dict.fromkeys(ds.sample.values[::7], "given"), store, source="a friend")
        session = Session(ds, issues, store, "anna")
        assert set(session.store.log()["source"]) == {"a friend"}
        assert session.progress()[0].audited == 0


@pytest.mark.parametrize(("names", "label"), [("ab", [0, 1]), ("a", [0, 0]), ("abc", [0, -1, 1])])
def test_two_samples_one_class_and_missing_labels_will_do(tmp_path, names, label):
    n = len(label)
    image = (("sample", "y", "x", "channel"), np.zeros((n, 4, 4, 3), np.uint8))
    ds = xr.Dataset(
        {"image": image, "label": ("sample", label)},
        coords={"sample": [f"a/{i}.png" for i in range(n)], "class": list(names)},
    ).chunk({"sample": 1})
    issues = pd.DataFrame(
        {"suggested": np.clip(label, 0, None), "score": np.linspace(1, 0, n)},
        index=pd.Index(ds.sample.values, name="sample"),
    )
    answers = dict.fromkeys(ds.sample.values, "suggested")
    table = batch(ds, issues, answers, tmp_path / "a.db")
    assert table.iloc[-1][["reviewed", "left", "low", "high"]].tolist() == [n, 0, 0, 0]
    fixed = labels.apply_decisions(ds, tmp_path / "a.db")
    assert fixed.label.values.tolist() == np.clip(label, 0, None).tolist()
    seen = labels.review(ds, issues, tmp_path / "a.db", reviewer="somebody else")
    assert len(seen.answer({"do": "open"})[0]["pages"][0]) == n


class TestDecisions:
    def test_corrected_labels_and_where_they_come_from(self, ds, issues, store):
        answers = {100: "suggested", 101: "none", 102: "unclear", 103: "given"}
        batch(ds, issues, answers, store, reviewer="anna")
        fixed = labels.apply_decisions(ds, store)
        assert fixed.label.values[:5].tolist() == [1, -1, 2, 0, 1]
        xr.testing.assert_equal(fixed.label_given, ds.label.rename("label_given"))
        assert fixed.review.values[:5].tolist() == ["changed", "none", "unclear", "confirmed", ""]
        assert (fixed.attrs["reviewed"], fixed.attrs["corrected"]) == (4, 2)
        assert "label_given" not in ds
        xr.testing.assert_identical(labels.apply_decisions(fixed, store), fixed)

    def test_most_votes_count_and_ties_are_disputed(self, ds, issues, store):
        for reviewer, first, second, third in (
            ("anna", "bee", "cow", "given"),
            ("ben", "bee", "ant", "unclear"),
            ("cleo", "given", "unclear", "unclear"),
        ):
            answers = {100: first, 101: second, 102: third}
            batch(ds, issues, answers, store, reviewer=reviewer)
        table = labels.decisions(ds, store)
        assert table["status"].tolist() == ["changed", "disputed", "confirmed"]
        assert table["label"].tolist() == [1, 1, 2]
        assert table["reviewers"].tolist() == [3, 3, 3]
        assert Session(ds, issues, store, "anna").progress()[0].found == 2

    def test_agreement_is_cohens(self, ds, issues, store):
        rng = np.random.default_rng(1)
        answers = {name: rng.integers(0, 3, 60) for name in ("anna", "ben")}
        for name, own in answers.items():
            batch(ds, issues, dict(zip(ds.sample.values, own, strict=True)), store, reviewer=name)
        batch(ds, issues, {100: "unclear"}, store, reviewer="cleo")
        table = labels.agreement(ds, store).set_index(["first", "second"])
        expected = cohen_kappa_score(answers["anna"], answers["ben"])
        assert table.loc[("anna", "ben"), "kappa"] == pytest.approx(expected)
        assert table.loc[("anna", "ben"), "n"] == 60
        assert table.loc[("anna", "cleo"), ["n", "agree", "kappa"]].tolist() == [1, 0.0, 0.0]

    def test_agreement_without_a_common_sample_or_with_one_answer_is_undefined(
        self, ds, issues, store
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            batch(ds, issues, {100: "given", 101: 0}, store, reviewer="anna")
            batch(ds, issues, {100: "given"}, store, reviewer="ben")
            batch(ds, issues, {105: "given"}, store, reviewer="cleo")
            table = labels.agreement(ds, store)
        assert table["n"].tolist() == [1, 0, 0]
        assert table["kappa"].isna().all()

    def test_nothing_decided_is_a_defined_result(self, ds, issues, store):
        Store(store, ds).close()
        assert labels.decisions(ds, store).empty
        assert labels.agreement(ds, store).empty
        assert (labels.apply_decisions(ds, store).review == "").all()
        assert labels.review_tags(ds, store) == {}


class TestExport:
    @pytest.fixture
    def reviewed(self, ds, issues, store):
        batch(ds, issues, {100: "cow", 101: "none", 103: "given"}, store, reviewer="anna")
        return store

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_tables_hold_every_sample_with_its_names(self, ds, reviewed, tmp_path, suffix):
        labels.export(ds, reviewed, tmp_path / f"out.{suffix}")
        read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[suffix]
        table = read(tmp_path / f"out.{suffix}").set_index("sample")
        assert table.index.tolist() == ds.sample.values.tolist()
        assert table.loc[[100, 103], "label"].tolist() == ["cow", "ant"]
        assert pd.isna(table.loc[101, "label"]) or table.loc[101, "label"] == ""
        assert table["label_given"].tolist() == [["ant", "bee", "cow"][i % 3] for i in range(60)]
        assert table.loc[[100, 101, 103], "review"].tolist() == ["changed", "none", "confirmed"]

    def test_a_folder_can_be_loaded_again(self, ds, reviewed, tmp_path):
        labels.export(ds, reviewed, tmp_path / "out")
        with pytest.warns(datasets.SkippedWarning, match="1 images lie in no class folder"):
            again = datasets.load(tmp_path / "out", size=6, mode="L")
        fixed = labels.apply_decisions(ds, reviewed)
        own = [int(str(s).split("/")[-1].removesuffix(".png")) for s in again.sample.values]
        expected = fixed.sel(sample=own)
        np.testing.assert_array_equal(again.label, expected.label)
        np.testing.assert_array_equal(again.image, expected.image)

    def test_files_and_splits_of_ones_own_are_kept(self, ds, issues, tmp_path, store):
        from PIL import Image

        files = []
        for i, image in enumerate(ds.image.values):
            file = tmp_path / "mine" / ("ant", "bee", "cow")[i % 3] / f"{i:02d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(file)
            files.append(str(file))
        split = np.where(np.arange(60) < 30, "test", "train")
        mine = ds.assign(path=("sample", files), split=("sample", split))
        batch(mine, issues, {100: "cow"}, store)
        labels.export(mine, store, tmp_path / "out")
        assert (tmp_path / "out/test/cow/100.png").read_bytes() == (
            tmp_path / "mine/ant/00.png"
        ).read_bytes()
        assert len(list((tmp_path / "out").rglob("*.png"))) == 60

    def test_what_is_there_is_not_written_over(self, ds, reviewed, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        with pytest.raises(FileExistsError, match="out is there already"):
            labels.export(ds, reviewed, tmp_path / "out")
        with pytest.raises(ValueError, match=r"'\.xlsx'"):
            labels.export(ds, reviewed, tmp_path / "out.xlsx")
        odd = ds.drop_dims("class").assign_coords({"class": ["a/b", "c", "d"]})
        Store(tmp_path / "odd.db", odd).close()
        with pytest.raises(ValueError, match="'a/b' cannot be the name of a folder"):
            labels.export(odd, tmp_path / "odd.db", tmp_path / "new")
        assert not (tmp_path / "new").exists()


class TestWidget:
    def messages(self, seen):
        sent = []
        seen.widget.send = sent.append
        return sent

    def test_what_the_browser_asks_is_answered(self, ds, issues, store):
        graph = xr.Dataset({"index": (("sample", "neighbor"), np.arange(120).reshape(60, 2) % 60)})
        seen = labels.review(ds, issues, store, reviewer="anna", neighbors=graph)
        sent = self.messages(seen)
        seen._on_message(seen.widget, {"do": "open", "view": "v"}, None)
        pages = sent.pop()["pages"]
        assert [len(page) for page in pages] == [6, 6]
        first = pages[0][0]
        json.dumps(pages)
        assert (first["given"], first["suggested"], first["held"]) == ("ant", "bee", None)
        assert "a near-copy has another label" in first["why"]
        at = first["at"]
        decide = {"do": "decide", "view": "v", "seq": 5, "answers": {str(at): "suggested"}}
        seen._on_message(seen.widget, decide, None)
        saved = sent.pop()
        assert (saved["do"], saved["seq"], saved["view"]) == ("saved", 5, "v")
        assert saved["held"] == {str(at): {"action": "change", "name": "bee"}}
        seen._on_message(seen.widget, {"do": "neighbors", "view": "v", "at": at}, None)
        assert [card["given"] for card in sent.pop()["cards"]] == ["ant", "bee"]
        seen._on_message(seen.widget, {"do": "status", "view": "v", "at": [1, 2]}, None)
        assert sent.pop()["parts"][0] == "1 reviewed, 1 wrong"
        seen._on_message(seen.widget, {"do": "undo", "view": "v"}, None)
        undone = sent.pop()
        assert (undone["at"], undone["card"]["held"]) == (at, None)
        seen._on_message(seen.widget, {"do": "undo", "view": "v"}, None)
        assert sent.pop()["at"] is None

    def test_what_cannot_be_saved_is_said(self, ds, issues, store):
        seen = labels.review(ds, issues, store, reviewer="anna")
        sent = self.messages(seen)
        decide = {"do": "decide", "view": "v", "seq": 1, "answers": {"0": "dog"}}
        seen._on_message(seen.widget, decide, None)
        assert sent[0]["do"] == "failed"
        assert "'dog' is no class" in sent[0]["why"]

    def test_the_agreement_with_others_is_shown(self, ds, issues, store):
        batch(ds, issues, truth(ds), store, reviewer="ben")
        seen = labels.review(ds, issues, store, reviewer="anna")
        seen.session.decide({p: ("suggested" if p < 10 else "given") for p in range(20)})
        assert seen.status([])[-1] == "κ with ben: 1.00 on 20"

    def test_in_batch_a_still_page_stands_in_its_place(self, ds, issues, store, monkeypatch):
        shown = []
        monkeypatch.setenv("WORKBENCH_RUN_ID", "run-7")
        monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
        labels.review(ds, issues, store, reviewer="anna")._ipython_display_()
        assert len(shown) == 1
        assert shown[0]["text/html"].count("<img") == 6
        assert "0 reviewed, 0 wrong" in shown[0]["text/html"]

    def test_names_are_shown_as_text(self, ds, issues, store, monkeypatch):
        nasty = ds.drop_dims("class").assign_coords({"class": ["<b>", "&", "'"]})
        seen = labels.review(nasty, issues, store, reviewer="anna")
        html = seen._cards.still([0, 1])
        assert "&lt;b&gt;" in html
        assert "<b><b>" not in html

    def test_bad_shapes_and_graphs_are_refused(self, ds, issues, store):
        with pytest.raises(ValueError, match="0 rows and 3 columns"):
            labels.review(ds, issues, store, rows=0)
        graph = xr.Dataset({"index": (("sample", "neighbor"), np.zeros((5, 2), int))})
        with pytest.raises(ValueError, match="the graph hold 5 samples and the dataset 60"):
            labels.review(ds, issues, store, neighbors=graph)
        with pytest.raises(ValueError, match="'j' is to do 'Return', which is no class and none"):
            labels.review(ds, issues, store, keys={"j": "Return"})

    def test_a_graph_in_another_order_shows_the_neighbours_by_their_ids(self, ds, issues, store):
        ids = ds["sample"].values
        index = (np.arange(60)[:, None] + [1, 2]) % 60
        graph = xr.Dataset({"index": (("sample", "neighbor"), index)}, coords={"sample": ids})
        turned = graph.isel(sample=slice(None, None, -1))
        turned["index"] = 59 - turned["index"]  # positions in the new order
        cards = labels.review(ds, issues, store, neighbors=turned)._cards
        shown = [card["given"] for card in cards.neighbors(7)]
        assert shown == [cards._session.text(ds.label.values[at]) for at in (8, 9)]


class TestFromTags:
    def seen(self, ds, label, tags):
        names = sorted(tags)
        marks = np.stack([np.isin(ds.sample.values, tags[name]) for name in names], axis=1)
        return xr.Dataset(
            {
                "label": ("sample", label),
                "changed": ("sample", label != ds.label.values),
                "tags": (("sample", "tag"), marks),
            },
            coords={"sample": ds.sample, "tag": names},
        )

    def test_tags_and_edited_labels_become_decisions(self, ds, issues, store):
        label = ds.label.values.copy()
        label[[4, 5]] = [2, 0]
        tags = {"confirmed": [100, 105], "none": [101], "unclear": [102], "holiday": [103]}
        found = labels.from_tags(self.seen(ds, label, tags))
        assert found.to_dict() == {100: "given", 101: "none", 102: "unclear", 104: 2, 105: 0}
        batch(ds, issues, found, store, source="fiftyone")
        assert labels.decisions(ds, store)["status"].to_dict() == {
            100: "confirmed", 101: "none", 102: "unclear", 104: "changed", 105: "changed",
        }  # fmt: skip
        tags = labels.review_tags(ds, store)
        assert ds.sample[tags["changed"]].values.tolist() == [104, 105]

    def test_without_the_dataset_nobody_knows_what_changed(self, ds):
        with pytest.raises(ValueError, match="give the dataset to from_fiftyone"):
            labels.from_tags(xr.Dataset({"label": ds.label}))
