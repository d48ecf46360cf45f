"""MLRSNet's layout, made up: three categories, two of which begin with 'air'."""

import numpy as np
import pytest
from PIL import Image

from workbench.datasets import BadDataError, DataNotFoundError, load_mlrsnet

LABELS = {
    "airplane": ["airplane_1.jpg,1,0,1", "airplane_2.jpg,1,1,0"],
    "airport": ["airport_1.jpg,0,1,1"],
    "beach": ["beach_1.jpg,0,0,0"],
}


@pytest.fixture
def layout(tmp_path):
    (tmp_path / "Labels").mkdir()
    for brightness, (category, rows) in enumerate(LABELS.items()):
        (tmp_path / "Images" / category).mkdir(parents=True)
        (tmp_path / "Labels" / f"{category}.csv").write_text(
            "\n".join(["image,airplane,runway,cars", *rows])
        )
        for row in rows:
            grey = np.full((8, 8, 3), 50 * brightness, np.uint8)
            Image.fromarray(grey).save(tmp_path / "Images" / category / row.split(",")[0])
    return tmp_path


def test_a_pattern_chooses_categories_and_each_image_keeps_its_labels(layout):
    ds = load_mlrsnet(layout, "air*")
    assert ds["sample"].values.tolist() == [
        "airplane/airplane_1.jpg",
        "airplane/airplane_2.jpg",
        "airport/airport_1.jpg",
    ]
    assert ds["class"].values.tolist() == ["airplane", "runway", "cars"]
    assert ds["labels"].values.astype(int).tolist() == [[1, 0, 1], [1, 1, 0], [0, 1, 1]]
    assert [int(image.mean()) for image in ds["image"].values] == [0, 0, 50]
    assert ds["image"].shape == (3, 8, 8, 3)


def test_classes_choose_and_order_the_labels(layout):
    ds = load_mlrsnet(layout, classes=["cars", "airplane"])
    assert ds["class"].values.tolist() == ["cars", "airplane"]
    assert ds["labels"].values.astype(int).tolist() == [[1, 1], [0, 1], [1, 0], [0, 0]]


def test_n_draws_images(layout):
    assert load_mlrsnet(layout, n=2).sizes["sample"] == 2


def test_what_is_not_there_is_named(layout):
    with pytest.raises(BadDataError, match="has no label trees"):
        load_mlrsnet(layout, classes=["trees"])
    with pytest.raises(DataNotFoundError, match=r"matches 'sea\*'; there is airplane, airport"):
        load_mlrsnet(layout, "sea*")
    with pytest.raises(DataNotFoundError, match="Images and Labels"):
        load_mlrsnet(layout / "Images")
    (layout / "Images" / "airport" / "airport_1.jpg").unlink()
    with pytest.raises(BadDataError, match=r"the first airport/airport_1\.jpg"):
        load_mlrsnet(layout)


def test_a_label_that_is_neither_0_nor_1_is_refused(layout):
    table = layout / "Labels" / "beach.csv"
    table.write_text(table.read_text().replace("1.jpg,0", "1.jpg,2"))
    with pytest.raises(BadDataError, match="neither 0 nor 1"):
        load_mlrsnet(layout)
