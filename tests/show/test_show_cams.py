"""Maps over images, and receptive fields: what is drawn, how it is scaled, what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from workbench import show

IMAGE = np.random.default_rng(0).random((12, 16, 3))


def test_rows_are_layers_and_columns_methods():
    maps = {"layer1": {"a": np.eye(4), "b": np.eye(4)}, "layer4": {"a": np.eye(2)}}
    fig = show.cams(IMAGE, maps, predictions=["cat 9%", "dog 8%"], title="T", caption="n = 1")
    axes = np.array(fig.axes).reshape(2, 3)
    assert [ax.get_title() for ax in axes[0]] == ["", "a", "b"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["layer1", "layer4"]
    assert [ax.get_xlabel() for ax in axes[:, 0]] == ["cat 9%", "dog 8%"]
    assert not axes[1, 2].images
    assert fig.get_supxlabel() == "n = 1 · each map divided by its largest value"


def test_a_map_is_divided_by_its_largest_value_and_nothing_else():
    values = np.array([[-1.0, 0.0], [2.0, 4.0]])
    drawn = show.cams(IMAGE, {"r": {"m": values}}).axes[1].images[-1]
    np.testing.assert_allclose(drawn.get_array(), values / 4)
    assert drawn.get_clim() == (0, 1)
    assert drawn.get_extent() == [-0.5, 15.5, 11.5, -0.5]
    signed = show.cams(IMAGE, {"r": {"m": -values}}, signed=True).axes[1].images[-1]
    np.testing.assert_allclose(signed.get_array(), -values / 4)
    assert signed.get_clim() == (-1, 1)


def test_a_map_of_zeros_or_of_the_images_size_is_drawn_too():
    zeros = show.cams(IMAGE, {"r": {"m": np.zeros((2, 2))}}).axes[1].images[-1]
    assert not zeros.get_array().any()
    alone = show.cams(IMAGE, {"r": {"m": np.ones((12, 16))}}).axes[1].images
    assert len(alone) == 1


def test_tensors_and_an_image_for_each_row():
    x = torch.rand(2, 3, 8, 8)
    maps = {"one": {"m": torch.rand(2, 2)}, "two": {"m": torch.rand(2, 2)}}
    fig = show.cams(x, maps, boxes=[[1, 2, 5, 6], [0, 0, 8, 8]])
    for i in range(2):
        shown = fig.axes[2 * i].images[0].get_array()
        np.testing.assert_array_equal(shown, np.rint(x[i].permute(1, 2, 0).numpy() * 255))
        assert fig.axes[2 * i].patches[0].get_xy() == [(0.5, 1.5), (-0.5, -0.5)][i]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="nothing to show"):
        show.cams(IMAGE, {})
    with pytest.raises(ValueError, match=r"map 'm' is \(1, 2, 2\), not \(y, x\)"):
        show.cams(IMAGE, {"r": {"m": np.ones((1, 2, 2))}})
    maps = {"r": {"m": np.eye(2)}, "s": {"m": np.eye(2)}}
    with pytest.raises(ValueError, match="3 predictions for 2 rows"):
        show.cams(IMAGE, maps, predictions=["a", "b", "c"])
    with pytest.raises(ValueError, match="1 images for 2 rows"):
        show.cams(IMAGE[None], maps)


def test_fields_are_squares_around_a_unit():
    table = pd.DataFrame(
        {"size": [5, (3, 7), np.inf], "stride": [2, 1, np.nan], "padding": [2, (1, 3), np.nan],
         "output": [(6, 8), (12, 16), (3, 4)]},
        index=["layer1", "layer2", "layer3"],
    )  # fmt: skip
    ax = show.receptive_field(IMAGE, table, unit=(0, 0.5), box=(1, 1, 4, 4)).axes[0]
    found = [(*p.get_xy(), p.get_width(), p.get_height()) for p in ax.patches]
    # unit (0, 4) of layer1 begins at (0·2 - 2, 4·2 - 2); (0, 8) of layer2 at (-1, 8 - 3)
    assert found == [(6, -2, 5, 5), (5, -1, 7, 3), (0, 0, 16, 12), (1, 1, 3, 3)]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["layer1: 5 px", "layer2: (3, 7) px", "layer3: everything", "the object's box"]


def test_a_table_without_rows_is_refused():
    with pytest.raises(ValueError, match="no row"):
        show.receptive_field(IMAGE, pd.DataFrame({"size": []}))
