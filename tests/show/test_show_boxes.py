"""Boxes over their images, and to FiftyOne and back."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.patches import Polygon
from PIL import Image

from workbench import show
from workbench.datasets.boxes import as_table


@pytest.fixture
def ds(tmp_path):
    """Two photographs on file, which the dataset holds cropped and small."""
    files = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for file in files:
        Image.new("RGB", (200, 100), "white").save(file)
    image = (("sample", "y", "x", "channel"), np.zeros((2, 8, 8, 3), np.uint8))
    data = {"image": image, "path": ("sample", files)}
    return xr.Dataset(data, coords={"sample": ["a", "b"]}, attrs={"name": "photos"})


@pytest.fixture
def table(ds):
    corners = {"x_min": 10, "y_min": 20, "x_max": 70, "y_max": 90.5}
    rows = [
        {"sample": "b", **corners, "label": "cat", "score": 0.25, "source": "net"},
        {"sample": "b", "points": [[1, 5], [9, 5], [9, 9.25]]},
        {"sample": "a", "points": [[3, 4]], "label": "dog"},
    ]
    return as_table(rows, ds)


def test_boxes_lie_where_they_are_in_the_full_size_image(ds, table):
    figure = show.boxes(ds, table)
    first, second = figure.axes[:2]
    assert second.images[0].get_extent() == [0, 200, 100, 0]
    patches = [p for p in second.patches if isinstance(p, Polygon)]
    assert len(patches) == 4  # each on a white line
    assert patches[1].get_xy()[:4].tolist() == [[10, 20], [70, 20], [70, 90.5], [10, 90.5]]
    assert [text.get_text() for text in second.texts] == ["0.25"]
    assert first.lines[0].get_xydata().tolist() == [[3, 4]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cat", "dog"]
    assert "n = 2 · photos" in figure.get_supxlabel()
    assert "boxes 3" in figure.get_supxlabel()


def test_several_tables_have_strokes_of_their_own(ds, table):
    figure = show.boxes(ds, {"truth": table, "found": table}, n=1)
    strokes = {patch.get_linestyle() for patch in figure.axes[0].patches}
    assert strokes <= {"solid", "-", "--"}
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[-2:] == ["truth", "found"]
    assert "n = 1 of 2" in figure.get_supxlabel()


def test_what_cannot_be_drawn_is_refused(ds, table):
    with pytest.raises(ValueError, match="holds no sample"):
        show.boxes(ds.isel(sample=slice(0)), table)
    with pytest.raises(ValueError, match="not in the dataset"):
        show.boxes(ds.isel(sample=slice(1)), table)


@pytest.mark.usefixtures("fiftyone_database")
def test_boxes_go_to_fiftyone_and_come_back(ds, table):
    dataset = show.to_fiftyone(ds, "boxes-there-and-back", progress=False)
    show.boxes_to_fiftyone(dataset, ds, table)
    detection = dataset.match({"workbench_id": "b"}).first()["boxes"].detections[0]
    assert detection.bounding_box == pytest.approx([0.05, 0.2, 0.3, 0.705])
    assert detection.confidence == 0.25
    back = show.boxes_from_fiftyone(dataset, ds)
    for one, other in zip(back["points"], table.iloc[[2, 0, 1]]["points"], strict=True):
        np.testing.assert_equal(one, other)
    same = table.iloc[[2, 0, 1]].reset_index(drop=True).drop(columns="points")
    pd.testing.assert_frame_equal(back.drop(columns="points"), same)
    view = dataset.match({"workbench_id": "a"})
    assert len(show.boxes_from_fiftyone(view, ds)) == 1
    with pytest.raises(ValueError, match="no field 'other'"):
        show.boxes_from_fiftyone(dataset, ds, "other")
    with pytest.raises(ValueError, match="not of the dataset given"):
        show.boxes_from_fiftyone(dataset, ds.isel(sample=slice(1)))
