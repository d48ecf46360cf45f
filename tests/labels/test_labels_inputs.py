"""Labels and probabilities as users have them, and what is refused."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench import labels

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
    assert labels.find_issues([0, 1, 0], path).index[0] == 2


def test_a_tables_sample_column_names_the_rows():
    table = pd.DataFrame({"sample": ["x", "y", "z"], "a": P[:, 0], "b": 1 - P[:, 0]})
    assert labels.find_issues([0, 1, 1], table).index.name == "sample"
    assert set(labels.find_issues([0, 1, 1], table).index) == {"x", "y", "z"}


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
        (P[:2], "labels hold 3 samples and probabilities 2"),
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
    with pytest.raises(ValueError, match="labels hold 3 samples and the neighbours 2"):
        labels.find_issues([0, 1, 2], P, graph)


def test_a_block_that_is_wrong_late_is_found(monkeypatch):
    monkeypatch.setattr("workbench.labels.probabilities.BLOCK", 6)
    p = np.tile([0.5, 0.5, 0.0], (7, 1))
    p[5] = np.nan
    with pytest.raises(ValueError, match="position 5"):
        labels.load_probabilities(p)


def named(values, ids):
    return xr.DataArray(values, dims=("sample", "class")[: np.ndim(values)], coords={"sample": ids})


def test_samples_in_another_order_are_refused():
    given = named([0, 1, 2], ["a", "b", "c"])
    message = r"another order: 2 of 3 ids differ, the first at position 0 \(a and c\)"
    with pytest.raises(ValueError, match=message):
        labels.find_issues(given, named(P[::-1], ["c", "b", "a"]))
    graph = xr.Dataset({"index": (("sample", "neighbor"), [[1], [0], [0]])})
    with pytest.raises(ValueError, match=message):
        labels.find_issues(given, P, graph.assign_coords(sample=["c", "b", "a"]))
    back = named(P[::-1], ["c", "b", "a"]).sel(sample=given.sample)
    assert labels.find_issues(given, back).index[0] == "c"


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
