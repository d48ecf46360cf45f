"""Samples matched by id, and pixels scaled to 0 to 1."""

import numpy as np
import pytest
import xarray as xr
from toys import toys

from workbench import embeddings, show
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


@pytest.fixture(scope="module")
def one():
    """A dataset, a map and a graph of it, and the dataset with its samples in another order."""
    ds = toys(60).assign_coords(sample=np.arange(60) + 500)
    rng = np.random.default_rng(0)
    ids = {"sample": ds["sample"]}
    xy = xr.DataArray(rng.normal(size=(60, 2)), dims=("sample", "axis"), coords=ids)
    features = xy.rename(axis="feature")
    return ds, xy, embeddings.neighbors(features, k=5), ds.isel(sample=rng.permutation(60))


GRAPH_MEASURES = {
    "outliers": embeddings.outliers,
    "neighbor_votes": embeddings.neighbor_votes,
    "mixing": embeddings.mixing,
    "label_accuracy": lambda graph, labels: xr.DataArray(embeddings.label_accuracy(graph, labels)),
}


@pytest.mark.parametrize("name", GRAPH_MEASURES)
def test_what_a_graph_says_of_labels_follows_their_ids(one, name):
    ds, _, graph, shuffled = one
    measure = GRAPH_MEASURES[name]
    xr.testing.assert_identical(measure(graph, ds.label), measure(graph, shuffled.label))
    with pytest.raises(ValueError, match="hold other samples: 60 of 60 ids"):
        measure(graph, ds.label.assign_coords(sample=np.arange(60)))


def test_maps_colours_and_marks_follow_their_ids(one):
    ds, xy, _, shuffled = one
    mark = ds.label == 1
    # Each colour and the ring are where the samples' own places are.
    for fig in (
        show.map(shuffled, xy, mark=mark),
        show.map(shuffled, xy, color=ds.label, mark=mark[::-1]),
        show.scatter(shuffled, xy, color=ds.label).figure(),
        next(iter([show.map_grid(shuffled, {"m": xy}, color=ds.label[::-1])])),
    ):
        drawn = fig.axes[0].collections
        shades = {}
        for collection in drawn:
            for at, shade in zip(
                collection.get_offsets(), collection.get_facecolors(), strict=False
            ):
                sample = int(np.argmin(np.abs(xy.values - at).sum(axis=1)))
                shades.setdefault(int(ds.label[sample]), set()).add(tuple(shade))
        assert len(shades) == 3
        assert all(len(found) == 1 for found in shades.values())
    fig = show.map(shuffled, xy, color=False, mark=mark[::-1])
    rings = fig.axes[0].collections[-1].get_offsets()
    np.testing.assert_allclose(np.sort(rings[:, 0]), np.sort(xy.values[mark.values, 0]))


@pytest.mark.parametrize("what", ["xy", "color", "mark"])
def test_maps_of_other_samples_are_refused(one, what):
    ds, xy, _, _ = one
    given = {"xy": xy, "color": ds.label, "mark": ds.label == 1}
    given[what] = given[what].assign_coords(sample=np.arange(60))
    with pytest.raises(ValueError, match="hold other samples"):
        show.map(ds, **given)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "u4"])
def test_bytes_are_bytes_in_every_integer(dtype):
    assert unit_range(np.array([0, 51, 255], dtype)).tolist() == pytest.approx([0, 0.2, 1])


def test_integers_beyond_bytes_must_be_of_16_bits():
    with pytest.raises(ValueError, match="int64 hold 0 to 300; integers must lie in 0 to 255"):
        unit_range(np.array([0, 300]))
    assert unit_range(np.array([0, 65535], ">u2")).tolist() == [0, 1]
    with pytest.warns(UserWarning, match="less than a tenth of 0 to 65,535"):
        unit_range(np.array([0, 4095], np.uint16))
