"""Samples matched by id, and pixels scaled to 0 to 1."""

import numpy as np
import pytest
import xarray as xr

from workbench._samples import same_samples, unit_range


def along(values, ids):
    return xr.DataArray(values, dims="sample", coords={"sample": ids})


def test_the_first_comes_in_the_order_of_the_second():
    found = same_samples(along([1, 2, 3], list("abc")), along([0, 0, 0], list("cab")), ("a", "b"))
    assert found.values.tolist() == [3, 1, 2]
    assert found["sample"].values.tolist() == list("cab")


def test_the_positions_in_a_graph_follow_its_samples():
    graph = xr.Dataset(
        {"index": (("sample", "neighbor"), [[1], [2], [0]])}, coords={"sample": list("abc")}
    )
    found = same_samples(graph, along([0, 0, 0], list("cab")), ("the graph", "labels"))
    near = {
        str(own): str(found["sample"].values[row[0]])
        for own, row in zip(found["sample"].values, found["index"].values, strict=True)
    }
    assert near == {"a": "b", "b": "c", "c": "a"}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (list("abz"), "1 of 3 ids of labels are not among those of points, the first is z"),
        (list("abb"), "labels hold the sample b twice"),
        (list("ab"), "points hold 3 samples and labels 2"),
    ],
)
def test_other_samples_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        same_samples(along([1, 2, 3], list("abc")), along(ids, ids), ("points", "labels"))


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "u4"])
def test_bytes_are_bytes_in_every_integer(dtype):
    assert unit_range(np.array([0, 51, 255], dtype)).tolist() == pytest.approx([0, 0.2, 1])


def test_integers_beyond_bytes_must_be_of_16_bits():
    with pytest.raises(ValueError, match="int64 hold 0 to 300; integers must lie in 0 to 255"):
        unit_range(np.array([0, 300]))
    assert unit_range(np.array([0, 65535], ">u2")).tolist() == [0, 1]
    with pytest.warns(UserWarning, match="less than a tenth of 0 to 65,535"):
        unit_range(np.array([0, 4095], np.uint16))
