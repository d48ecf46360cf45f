"""Attacks that were tried and held, each with its hostile input built here."""

import pickle
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from workbench import datasets, labels
from workbench.labels.store import Decision, Store

SCRIPT = "<script>document.title='owned'</script>"


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        for i in range(3):
            path = tmp_path / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(i)
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
    return tmp_path / "photos"


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.mkdir, (Path(self.path),)


def test_a_pickle_called_an_image_or_a_table_does_not_run(folder, tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "run"))
    pickle.loads(bomb)
    (tmp_path / "run").rmdir()  # the bomb is a real one
    (folder / "cat" / "3.png").write_bytes(bomb)
    with pytest.warns(datasets.SkippedWarning, match=r"3\.png: not an image"):
        assert datasets.load(folder, progress=False).sizes["sample"] == 6
    for name in ("table.csv", "table.parquet"):
        (tmp_path / name).write_bytes(bomb)
        with pytest.raises(Exception, match="table"):
            datasets.load(tmp_path / name)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "reviewer", ["x'); DROP TABLE decisions; --", 'a" OR 1=1; --', "Robert'); DELETE FROM log;--"]
)
def test_names_are_no_sql(folder, tmp_path, reviewer):
    ds = datasets.load(folder, progress=False)
    ids = ["a'); DROP TABLE decisions; --", *[f'"{i}' for i in range(5)]]
    ds = ds.assign_coords(sample=ids)
    with Store(tmp_path / "review.db", ds) as store:
        store.append([Decision(ids[0], "change", label=1, previous=int(ds.label[0]))], reviewer)
        kept = store.current()
    assert kept["reviewer"].tolist() == [reviewer]
    assert labels.apply_decisions(ds, tmp_path / "review.db")["label"].values[0] == 1
    with sqlite3.connect(tmp_path / "review.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0


def test_markup_in_class_names_and_ids_is_text(folder):
    ds = datasets.load(folder, progress=False)
    ds = ds.assign_coords({"class": [SCRIPT, '"><img src=x onerror=alert(1)>']})
    page = ds._repr_html_()
    assert "<script>document" not in page
    assert "<img src=x" not in page


@pytest.mark.parametrize(
    "entity",
    [
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        "<!DOCTYPE a ["
        + "".join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10 if i else "ha" * 10}">' for i in range(10))
        + '<!ENTITY x "&x9;">]>',
    ],
    ids=["a file", "a billion laughs"],
)
def test_entities_in_annotations_read_and_grow_nothing(folder, tmp_path, entity):
    from workbench import boxes

    ds = datasets.load(folder, progress=False)
    annotation = tmp_path / "voc" / "0.xml"
    annotation.parent.mkdir()
    annotation.write_text(
        f"{entity}<annotation><filename>0.png</filename><object><name>&x;</name><bndbox>"
        "<xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>"
    )
    with pytest.raises(ValueError, match=r"0\.xml"):
        boxes.from_voc(annotation.parent, ds)


def test_a_formula_in_a_cell_stays_text(tmp_path):
    table = pd.DataFrame({"path": ["a.png"], "label": ["=1+HYPERLINK()"]})
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    table.to_csv(tmp_path / "table.csv", index=False)
    ds = datasets.load(tmp_path / "table.csv", progress=False)
    assert ds["class"].values.tolist() == ["=1+HYPERLINK()"]


def test_object_arrays_are_not_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([Bomb(tmp_path / "run")], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "x.npy")
    store = tmp_path / "evil.zarr"
    xr.Dataset({"image": (("sample", "y", "x", "channel"), np.zeros((1, 2, 2, 1), "u1"))}).to_zarr(
        store, zarr_format=3, consolidated=False
    )
    metadata = store / "image" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"bytes"', '"pickle"'))
    with pytest.raises(Exception, match=r"(?i)pickle|codec|unknown"):
        xr.open_zarr(store, consolidated=False)["image"].load()
    assert not (tmp_path / "run").exists()
