"""Labels and probabilities as users have them, and what is refused."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench import datasets, embeddings, labels

P = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_files_hold_what_arrays_hold(tmp_path, suffix):
    path = tmp_path / f"probabilities{suffix}"
    table = pd.DataFrame(P, columns=["a", "b", "c"])
    if suffix == ".npy":
        np.save(path, P)
    elif suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    np.testing.assert_allclose(labels.load_probabilities(path), P)
    assert labels.find_issues([0, 1, 0], path, classes=["a", "b", "c"]).index[0] == 2


def test_a_tables_sample_column_names_the_rows():
    table = pd.DataFrame({"sample": ["x", "y", "z"], "a": P[:, 0], "b": 1 - P[:, 0]})
    with pytest.warns(UserWarning, match="name the classes a, b and the labels are numbers"):
        found = labels.find_issues([0, 1, 1], table)
    assert found.index.name == "sample"
    assert set(found.index) == {"x", "y", "z"}


Y = np.random.default_rng(0).integers(0, 3, 60)
RIGHT = np.eye(3)[Y] * 0.85 + 0.05
NAMES = ["zebra", "ant", "okapi"]
ORDER = [1, 2, 0]
TABLE = pd.DataFrame(RIGHT[:, ORDER], columns=[NAMES[k] for k in ORDER])


def photos():
    image = np.zeros((60, 1, 1, 1), np.uint8)
    coords = {"sample": np.arange(100, 160), "class": NAMES}
    return xr.Dataset(
        {"image": (("sample", "y", "x", "channel"), image), "label": ("sample", Y)}, coords=coords
    )


@pytest.mark.parametrize(
    "given",
    [
        photos(),
        photos().label.assign_attrs(classes=NAMES),
        pd.Series(pd.Categorical.from_codes(Y, NAMES)),
    ],
)
def test_named_columns_are_matched_by_name(given):
    assert not labels.find_issues(given, TABLE).is_issue.any()
    array = xr.DataArray(
        TABLE.to_numpy(), dims=("sample", "class"), coords={"class": list(TABLE.columns)}
    )
    assert not labels.find_issues(given, array).is_issue.any()


def test_names_that_nobody_can_match_are_refused():
    with pytest.raises(ValueError, match="give the dataset in place of its labels"):
        labels.find_issues(photos().label, TABLE)
    with pytest.raises(ValueError, match="classes ant, okapi, lion; the labels of zebra, ant"):
        labels.find_issues(photos(), TABLE.rename(columns={"zebra": "lion"}))


def test_columns_that_are_numbers_are_matched_by_number():
    table = pd.DataFrame(RIGHT[:, ORDER], columns=[str(k) for k in ORDER])
    assert not labels.find_issues(Y, table).is_issue.any()


def test_a_loaded_dataset_hands_its_names_on(tmp_path):
    from PIL import Image

    for name in ("10", "2", "cat"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("L", (4, 4), 40 * i).save(tmp_path / name / f"{i}.png")
    ds = datasets.load(tmp_path)
    p = pd.DataFrame(np.eye(3)[ds.label.values], columns=ds["class"].values)
    p = p[["cat", "2", "10"]].assign(sample=ds["sample"].values).iloc[::-1]
    assert not labels.find_issues(ds.label, p).is_issue.any()


def test_half_precision_and_two_decimals_are_taken():
    torch = pytest.importorskip("torch")
    assert not labels.find_issues(Y, torch.tensor(RIGHT).bfloat16()).is_issue.any()
    rng = np.random.default_rng(0)
    many = rng.dirichlet(np.ones(30), 200).round(2)
    assert np.abs(many.sum(axis=1) - 1).max() > 0.02
    assert len(labels.find_issues(rng.integers(0, 30, 200), many)) == 200


def test_dask_and_memory_maps_give_what_arrays_give(tmp_path):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 300)
    given = rng.integers(0, 4, 300)
    np.save(tmp_path / "p.npy", p)
    expected = labels.find_issues(given, p)
    for source in (da.from_array(p, chunks=(70, 4)), np.load(tmp_path / "p.npy", mmap_mode="r")):
        pd.testing.assert_frame_equal(labels.find_issues(given, source), expected)


def changed(value, row=1, column=0):
    p = P.copy()
    p[row, column] = value
    return p


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (changed(np.nan), "1 rows of the probabilities hold NaN, the first at position 1"),
        (changed(-0.2), "hold negative values, the first at position 1"),
        (changed(3.0), "hold values above 1"),
        (changed(0.5), r"do not sum to 1, the first at position 1.*sum 1\.300"),
        (P[:, :1] * 0 + 1, "two classes"),
        (P[:0], "at least one sample"),
        (P[0], "shape"),
        (P[:2], "the probabilities hold 2 samples and labels 3"),
    ],
)
def test_probabilities_that_are_none_are_refused(probabilities, message):
    with pytest.raises(ValueError, match=message):
        labels.find_issues([0, 1, 2], probabilities)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0, 1, 3], "none of the 3 classes, the first is 3 at position 2"),
        ([0, -1, 1], r"1 samples have no label \(-1\), the first at position 1"),
        ([0, -5, 1], "the first is -5 at position 1"),
        ([0, 1.5, 2], "must be class numbers.*such as 1.5"),
        ([0, np.nan, 2], "such as nan"),
        (["a", "b", "c"], "such as 'a'"),
        ([True, False, True], "not bool"),
        ([[0, 1, 2]], "shape"),
    ],
)
def test_labels_that_are_no_classes_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        labels.find_issues(given, P)


def test_neighbours_of_other_data_are_refused():
    graph = xr.Dataset({"index": (("sample", "neighbor"), [[1], [0]])})
    with pytest.raises(ValueError, match="the neighbours hold 2 samples and labels 3"):
        labels.find_issues([0, 1, 2], P, graph)


def test_a_block_that_is_wrong_late_is_found(monkeypatch):
    monkeypatch.setattr("workbench.labels.probabilities.BLOCK", 6)
    p = np.tile([0.5, 0.5, 0.0], (7, 1))
    p[5] = np.nan
    with pytest.raises(ValueError, match="position 5"):
        labels.load_probabilities(p)


def named(values, ids):
    return xr.DataArray(values, dims=("sample", "class")[: np.ndim(values)], coords={"sample": ids})


def test_samples_in_another_order_are_aligned_by_id_and_other_samples_refused():
    rng = np.random.default_rng(1)
    ids = np.array(list("hgfedcba"))
    given = named(rng.integers(0, 3, 8), ids)
    p = named(rng.dirichlet(np.ones(3), 8), ids)
    points = xr.DataArray(rng.normal(size=(8, 2)), dims=("sample", "feature"), coords=given.coords)
    graph = embeddings.neighbors(points, k=2)
    expected = labels.find_issues(given, p, graph)
    other = rng.permutation(8)
    turned = labels.find_issues(
        given, p.isel(sample=other), embeddings.neighbors(points.isel(sample=other), k=2)
    )
    pd.testing.assert_frame_equal(turned, expected)
    with pytest.raises(ValueError, match="1 of 8 ids of labels are not among those of the prob"):
        labels.find_issues(given, p.assign_coords(sample=list("hgfedcbz")))
    with pytest.raises(ValueError, match="hold the sample a twice"):
        labels.find_issues(given, p.assign_coords(sample=list("hgfedaaz")))


def test_named_dimensions_may_come_in_either_order():
    turned = xr.DataArray(P.T, dims=("class", "sample"))
    np.testing.assert_array_equal(labels.load_probabilities(turned), P)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_files_that_cannot_be_read_are_named(tmp_path, suffix):
    path = tmp_path / f"empty{suffix}"
    path.write_bytes(b"" if suffix == ".csv" else b"no table")
    with pytest.raises(ValueError, match=rf"empty{suffix} cannot be read as {suffix}"):
        labels.load_probabilities(path)
    with pytest.raises(ValueError, match=r"are read from \.npy"):
        labels.load_probabilities(tmp_path / "table.xlsx")


def test_a_series_is_matched_by_its_index():
    ds = datasets.load("digits", n=200)
    p = labels.out_of_fold(ds, ds.label, progress=False)
    wanted = labels.find_issues(ds, p)
    table = pd.DataFrame(p.values, index=ds.sample.values)
    series = pd.Series(ds.label.values, index=ds.sample.values)
    turned = series[::-1]
    for given, found in (
        (turned, labels.find_issues(turned, table)),
        (series, labels.find_issues(series, table[::-1])),
        (turned, labels.find_issues(turned.astype("category"), table)),
        (turned, labels.find_issues(turned, labels.out_of_fold(ds, turned, progress=False))),
    ):
        assert set(found.index[found.is_issue]) == set(wanted.index[wanted.is_issue])
        pd.testing.assert_series_equal(
            found["given"].sort_index(), given.sort_index(), check_names=False
        )
    # An index that only counts the rows names nobody.
    counted = labels.find_issues(series.reset_index(drop=True), p)
    pd.testing.assert_frame_equal(counted, wanted)
    with pytest.raises(ValueError, match="hold other samples"):
        labels.find_issues(series.rename(lambda name: name + 1), table)
