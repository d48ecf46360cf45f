"""The log of decisions: nothing is lost, nothing is changed, nothing foreign gets in."""

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import warnings
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from toys import toys

from workbench import datasets
from workbench.labels.store import Decision, Store, StoreError, dataset_hash, opened


@pytest.fixture
def ds():
    return toys(30)


def change(sample, label=1):
    return Decision(str(sample), "change", label, 0, 0.5)


def test_what_was_decided_is_there_with_all_that_belongs_to_it(ds, tmp_path):
    with Store(tmp_path / "a.db", ds) as store:
        store.append([Decision("100", "change", 2, 0, 0.75, "audit")], "anna")
        row = store.log().iloc[0]
    assert row[["sample", "action", "label", "previous"]].tolist() == ["100", "change", 2, 0]
    assert row[["score", "source", "reviewer"]].tolist() == [0.75, "audit", "anna"]
    assert row["time"].endswith("+00:00")
    with opened(tmp_path / "a.db", ds) as again:
        assert len(again.current()) == 1


def test_the_log_only_grows(ds, tmp_path):
    with Store(tmp_path / "a.db", ds) as store:
        store.append([change(100)], "anna")
        store.append([change(100, 2)], "anna")
        assert store.current()["label"].tolist() == [2]
        assert store.undo("anna") == "100"
        assert store.current()["label"].tolist() == [1]
        assert store.undo("anna") == "100"
        assert store.undo("anna") is None
        assert store.current().empty
        assert store.log()["action"].tolist() == ["change", "change", "undo", "undo"]
    for statement in ("UPDATE decisions SET label = 0", "DELETE FROM decisions"):
        with closing(sqlite3.connect(tmp_path / "a.db")) as connection:  # noqa: SIM117
            with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
                connection.execute(statement)


def test_undo_is_each_reviewers_own(ds, tmp_path):
    with Store(tmp_path / "a.db", ds) as store:
        store.append([change(100)], "anna")
        store.append([change(101)], "ben")
        assert store.undo("anna") == "100"
        assert store.undo("anna") is None
        assert store.current()["reviewer"].tolist() == ["ben"]


def test_several_decisions_are_saved_together_or_not_at_all(ds, tmp_path):
    with Store(tmp_path / "a.db", ds) as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.append([change(100), Decision("101", "guess", 1, 0)], "anna")
        assert store.log().empty


def write(path, ds, reviewer):
    with Store(path, ds) as store:
        for sample in ds.sample.values:
            store.append([change(sample)], reviewer)


def test_processes_that_write_at_once_lose_nothing(ds, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=write, args=(tmp_path / "a.db", ds, name)) for name in ("anna", "ben")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    with Store(tmp_path / "a.db", ds) as store:
        current = store.current()
    assert current.groupby("reviewer").size().to_dict() == {"anna": 30, "ben": 30}


def test_a_killed_process_keeps_what_it_had_called_saved(tmp_path):
    code = textwrap.dedent("""
        import sys, numpy as np, xarray as xr
        from workbench.labels.store import Decision, Store
        ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), np.zeros((9, 2, 2, 1), "u1")),
                         "label": ("sample", np.zeros(9, int))},
                        coords={"sample": range(9), "class": ["a", "b"]})
        store = Store(sys.argv[1], ds)
        for i in range(9):
            store.append([Decision(str(i), "change", 1, 0)], "anna")
            print(i, flush=True)
            if i == 4:
                import time; time.sleep(60)
    """)
    command = [sys.executable, "-c", code, str(tmp_path / "a.db")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == "4":
            process.send_signal(signal.SIGKILL)
            break
    process.wait(60)
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT count(*) FROM decisions").fetchone() == (5,)


def test_a_store_of_another_dataset_is_refused(ds, tmp_path):
    Store(tmp_path / "a.db", ds).close()
    other = ds.isel(sample=slice(20)).assign_attrs(name="other toys")
    with pytest.raises(StoreError, match="toys with 30 samples, not other toys with 20"):
        Store(tmp_path / "a.db", other)
    relabelled = ds.assign(label=("sample", np.zeros(30, dtype=int)))
    with pytest.raises(StoreError, match="or the same with other labels"):
        Store(tmp_path / "a.db", relabelled)


@pytest.mark.parametrize("lazy_first", [True, False])
def test_a_folder_is_the_same_lazy_or_not_and_another_one_is_refused(tmp_path, lazy_first):
    for at in range(3):
        Image.new("L", (8, 8), at).save(tmp_path / f"{at}.bmp")
    first, second = (
        datasets.load(tmp_path, lazy=lazy, progress=False) for lazy in (lazy_first, not lazy_first)
    )
    Store(tmp_path / "a.db", first).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Store(tmp_path / "a.db", second).close()
    Image.new("L", (8, 8), 9).save(tmp_path / "1.bmp")  # of the same size in bytes
    eager = datasets.load(tmp_path, lazy=False, progress=False)
    if not lazy_first:
        with pytest.raises(StoreError, match="holds decisions on other data"):
            Store(tmp_path / "a.db", eager)
    Image.new("L", (9, 8), 9).save(tmp_path / "1.bmp")
    for lazy in (True, False):
        with pytest.raises(StoreError, match="holds decisions on other data"):
            Store(tmp_path / "a.db", datasets.load(tmp_path, lazy=lazy, progress=False))


def test_the_hash_is_of_images_ids_labels_and_classes(ds):
    same = dataset_hash(ds.copy(deep=True))
    assert dataset_hash(ds) == same == dataset_hash(ds.chunk({"sample": 7}))
    images = ds.image.copy()
    images[3, 0, 0, 0] ^= 1
    others = [
        ds.assign(image=images),
        ds.assign_coords(sample=np.arange(30)),
        ds.assign(label=("sample", np.roll(ds.label.values, 1))),
        ds.assign_coords({"class": ["ant", "bee", "cat"]}),
        ds.assign_attrs(sha256="abc"),
    ]
    assert len({same, *map(dataset_hash, others)}) == 6
    corrected = ds.assign(label=("sample", np.zeros(30, int)), label_given=ds.label)
    assert dataset_hash(corrected) == same


def test_what_is_no_store_is_refused_and_left_as_it_is(ds, tmp_path):
    text = tmp_path / "notes.db"
    text.write_text("these are my notes, not a database, and longer than a page header is" * 20)
    before = text.read_bytes()
    with pytest.raises(StoreError, match="damaged or not an SQLite file"):
        Store(text, ds)
    assert text.read_bytes() == before
    with closing(sqlite3.connect(tmp_path / "else.db")) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(StoreError, match="SQLite file of something else"):
        Store(tmp_path / "else.db", ds)
    with pytest.raises(StoreError, match=r"no folder .*nowhere"):
        Store(tmp_path / "nowhere" / "a.db", ds)
    with pytest.raises(StoreError, match="there is no store of decisions"):
        opened(tmp_path / "missing.db", ds).__enter__()
    assert not (tmp_path / "missing.db").exists()


def test_a_damaged_store_is_named(ds, tmp_path):
    path = tmp_path / "a.db"
    with Store(path, ds) as store:
        store.append([change(sample) for sample in ds.sample.values] * 40, "anna")
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 6] = os.urandom(4096 * 3)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.db is damaged"):
        Store(path, ds)


def test_a_read_only_store_is_named(ds, tmp_path):
    path = tmp_path / "place" / "a.db"
    path.parent.mkdir()
    Store(path, ds).close()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    if os.geteuid():
        with pytest.raises(StoreError, match="read-only"):
            Store(path, ds)
        return
    # root may write everything: ask as somebody else, in a process that has loaded all before
    for folder in path.parents:
        if folder.is_relative_to("/tmp") and folder != folder.parent and str(folder) != "/tmp":
            folder.chmod(folder.stat().st_mode | 0o055)
    path.parent.chmod(0o555)
    fork = multiprocessing.get_context("fork")
    said = fork.Queue()
    process = fork.Process(target=open_as_nobody, args=(path, ds, said))
    process.start()
    assert "read-only" in said.get(timeout=60)
    process.join(60)


def open_as_nobody(path, ds, said):
    os.setgid(65534)
    os.setuid(65534)
    try:
        Store(path, ds)
    except StoreError as error:
        said.put(str(error))
    else:
        said.put("opened")


def test_decisions_on_objects_and_on_labels_do_not_touch_each_other(ds, tmp_path):
    with Store(tmp_path / "a.db", ds) as store:
        store.append([change(100)], "anna")
        for data in ("1", "2"):
            decision = Decision("100", "change", -1, -1, object="box", data=data)
            store.append([decision, replace(decision, object="other")], "anna")
        held = store.current(objects=True)
        assert held[["object", "data"]].to_numpy().tolist() == [["box", "2"], ["other", "2"]]
        assert len(store.current()) == len(store.log()) == 1
        assert store.undo("anna", objects=True) == "100"
        assert store.current(objects=True)["data"].tolist() == ["1", "2"]
        assert len(store.log(objects=True)) == 5
        assert store.undo("anna") == "100"
        assert store.undo("anna") is None


def test_a_dataset_without_labels_has_a_store_too(ds, tmp_path):
    bare = ds.drop_vars(["label", "class"])
    Store(tmp_path / "a.db", bare).close()
    Store(tmp_path / "a.db", bare.assign_coords({"class": ["a"]})).close()
    with pytest.raises(StoreError, match="decisions on other data"):
        Store(tmp_path / "a.db", bare.isel(sample=slice(3)))


def test_a_store_of_the_first_format_goes_on(ds, tmp_path):
    path = tmp_path / "old.db"
    with Store(path, ds) as store:
        store.append([change(100)], "anna")
    with closing(sqlite3.connect(path)) as connection:
        for column in ("object", "data"):
            connection.execute(f"ALTER TABLE decisions DROP COLUMN {column}")
        connection.execute(
            "UPDATE about SET value = 'workbench label review 1' WHERE key = 'format'"
        )
        connection.commit()
    for _ in range(2):
        with Store(path, ds) as store:
            assert store.current()["label"].tolist() == [1]
            store.append([Decision("101", "change", -1, -1, object="box", data="{}")], "ben")
    with Store(path, ds) as store:
        assert len(store.current(objects=True)) == 1


def reviewed(ds, path):
    from workbench.labels import review_batch

    answers = dict.fromkeys(ds.sample.values[:6], "bee")
    review_batch(ds, None, answers, path, reviewer="anna", progress=False)


def test_a_dataset_that_gained_lost_and_reordered_images_keeps_its_decisions(ds, tmp_path):
    from workbench.labels import decisions

    reviewed(ds, tmp_path / "a.db")
    order = np.random.default_rng(0).permutation(30)
    changed = ds.isel(sample=order[order != 2])  # 102 is gone
    more = ds.isel(sample=[29]).assign_coords(sample=[777])
    changed = xr.concat([changed, more], "sample")
    with pytest.warns(UserWarning, match="of 6 decided samples 5 are the same .* 0 are other"):
        table = decisions(changed, tmp_path / "a.db")
    assert sorted(table.index) == [100, 101, 103, 104, 105]
    assert (table["label"] == 1).all()


def test_renamed_images_keep_theirs_and_other_images_do_not(ds, tmp_path):
    from workbench.labels import decisions, review_batch

    reviewed(ds, tmp_path / "a.db")
    ids = ds.sample.values.copy()
    ids[1] = 555  # 101 has another name
    image = ds.image.values.copy()
    image[3] ^= 255  # under 103 lies another image
    changed = ds.assign_coords(sample=ids).assign(image=(ds.image.dims, image))
    with pytest.warns(UserWarning, match="5 are the same .* 1 are other images .* and 0 are gone"):
        table = decisions(changed, tmp_path / "a.db")
    assert sorted(table.index) == [100, 102, 104, 105, 555]
    with pytest.warns(UserWarning, match="decided samples"):
        review_batch(changed, None, {103: "cow", 555: "cow"}, tmp_path / "a.db", progress=False)
    with pytest.warns(UserWarning, match="decided samples"):
        table = decisions(changed, tmp_path / "a.db")
    assert table.loc[103, "label"] == 2


def test_other_classes_are_refused(ds, tmp_path):
    reviewed(ds, tmp_path / "a.db")
    with pytest.raises(StoreError, match="other labels, images or classes"):
        Store(tmp_path / "a.db", ds.assign_coords({"class": ["bee", "ant", "cow"]}))


def test_the_store_keeps_the_classes_names(ds, tmp_path):
    with closing(Store(tmp_path / "a.db", ds)), closing(sqlite3.connect(tmp_path / "a.db")) as db:
        (kept,) = db.execute("SELECT value FROM about WHERE key = 'classes'").fetchone()
    assert json.loads(kept) == ds["class"].values.tolist()


def test_classes_that_are_called_like_answers_are_classes(ds, tmp_path):
    from workbench.labels import decisions, review_batch
    from workbench.labels.session import Session, Word

    odd = ds.assign_coords({"class": ["none", "unclear", "given"]})
    answers = {100: "none", 101: "unclear", 102: "given", 103: 1.0}
    review_batch(odd, None, answers, tmp_path / "a.db", progress=False)
    table = decisions(odd, tmp_path / "a.db")
    assert table["label"].tolist() == [0, 1, 2, 1]
    session = Session(odd, None, tmp_path / "a.db", "ben")
    session.decide({9: Word("none"), 10: Word("unclear"), 11: Word("given")})
    held = [session.held(p)[0] for p in (9, 10, 11)]
    assert held == ["none", "unclear", "confirm"]
    for answer in (1.5, float("nan"), True, -1, 3, None):
        with pytest.raises(ValueError, match="is no class and none of"):
            review_batch(odd, None, {100: answer}, tmp_path / "a.db", progress=False)
