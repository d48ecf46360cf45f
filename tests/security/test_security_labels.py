"""Review stores and exports that strangers send: nothing else is read, written or believed."""

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toys import toys

from workbench import datasets, labels
from workbench.labels.store import Decision, Store, StoreError


@pytest.fixture
def ds():
    return toys(30)


def decided(path, ds, n=12):
    with Store(path, ds) as store:
        for sample in ds.sample.values[:n]:
            store.append([Decision(str(sample), "change", 1, 0)], "anna")
    return path


def state(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_foreign_database_is_refused_unchanged(ds, tmp_path):
    with closing(sqlite3.connect(tmp_path / "birds.db")) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
        connection.commit()
    before = state(tmp_path)
    with pytest.raises(StoreError, match="SQLite file of something else"):
        Store(tmp_path / "birds.db", ds)
    for read in (labels.decisions, labels.apply_decisions, labels.agreement):
        with pytest.raises(StoreError, match="SQLite file of something else"):
            read(ds, tmp_path / "birds.db")
    assert state(tmp_path) == before


def test_reading_makes_no_file_and_changes_none(ds, tmp_path):
    decided(tmp_path / "a.db", ds)
    before = state(tmp_path)
    assert len(labels.decisions(ds, tmp_path / "a.db")) == 12
    labels.apply_decisions(ds, tmp_path / "a.db")
    with pytest.raises(StoreError, match="there is no store"):
        labels.decisions(ds, tmp_path / "b.db")
    assert state(tmp_path) == before


def test_a_store_copied_while_open_holds_every_decision(ds, tmp_path):
    with Store(tmp_path / "a.db", ds) as store:
        for count, sample in enumerate(ds.sample.values, 1):
            store.append([Decision(str(sample), "change", 1, 0)], "anna")
            shutil.copy(tmp_path / "a.db", tmp_path / "copy.db")
            assert len(labels.decisions(ds, tmp_path / "copy.db")) == count
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db", "copy.db"]


@pytest.mark.parametrize(
    ("column", "value"), [("label", 99), ("label", -7), ("sample", "'nobody'")]
)
def test_decisions_on_what_is_not_there_are_refused(ds, tmp_path, column, value):
    decided(tmp_path / "a.db", ds)
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute(f"UPDATE decisions SET {column} = {value} WHERE id = 3")
        connection.commit()
    with pytest.raises(StoreError, match="tampered with: 1 decisions are on samples or labels"):
        labels.apply_decisions(ds, tmp_path / "a.db")


def test_a_table_cannot_have_files_exported_that_are_no_images(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0")
    (tmp_path / "data").mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "data" / "a.png")
    table = pd.DataFrame({"path": ["a.png", str(secret)], "label": ["cat", "dog"]})
    table.to_csv(tmp_path / "data" / "table.csv", index=False)
    ds = datasets.load(tmp_path / "data" / "table.csv", lazy=True, size=4)
    Store(tmp_path / "a.db", ds.assign(image=ds.image * 0)).close()
    blank = ds.assign(image=(ds.image * 0).compute().astype(np.uint8))
    out = labels.export(blank, tmp_path / "a.db", tmp_path / "out", progress=False)
    assert all(b"root:x" not in p.read_bytes() for p in out.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("what", "name"), [("class", "../up"), ("split", "../up"), ("class", ".x")]
)
def test_no_name_leads_out_of_the_folder(ds, tmp_path, what, name):
    if what == "class":
        ds = ds.assign_coords({"class": [name, "b", "c"]})
    else:
        ds = ds.assign(split=("sample", [name, *["train"] * 29]))
    Store(tmp_path / "a.db", ds).close()
    with pytest.raises(ValueError, match="cannot be the name of a folder"):
        labels.export(ds, tmp_path / "a.db", tmp_path / "out", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]


def test_sample_ids_do_not_lead_out_of_the_folder(tmp_path):
    ds = toys(3).assign_coords(sample=["../../a", "/etc/b", "c/../../d"])
    Store(tmp_path / "a.db", ds).close()
    out = labels.export(ds, tmp_path / "a.db", tmp_path / "out", progress=False)
    assert len(list(out.rglob("*.png"))) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db", "out"]
