"""Sheets and curves: what is drawn, what the caption says, what is refused."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from workbench import show
from workbench.show.samples import picture


def texts(fig):
    fig.canvas.draw()
    return [text.get_text() for text in fig.findobj(mpl.text.Text)]


def test_a_stand_in_is_named_first(ds):
    ds.attrs["stand_in_for"] = "mnist"
    assert show.caption(ds, n=5, seed=1).startswith("STAND-IN, not mnist · n = 5 of 60 ·")


def test_a_sheet_draws_the_same_samples_for_the_same_seed(ds):
    named = [str(i) for i in range(60)]
    first, again, other = (texts(show.samples(ds, named, n=9, seed=s)) for s in (1, 1, 2))
    assert first == again
    assert first != other
    assert "n = 9 of 60" in " ".join(first)


def test_figures_show_once_and_leave_the_style_alone(ds, xy):
    before = dict(mpl.rcParams)
    show.map(ds, xy)
    show.samples(ds)
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_wrong_sizes_are_named(ds):
    with pytest.raises(ValueError, match="2 titles for 60 samples"):
        show.samples(ds, ["a", "b"])
    with pytest.raises(ValueError, match="nothing to show"):
        show.samples(ds.isel(sample=[]))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_image_becomes_rgb_bytes(channels, dtype):
    image = (np.random.default_rng(0).random((5, 4, channels)) * 200).astype(dtype)
    if dtype == "float32":
        image[0, 0, 0] = np.nan
    shown = picture(image)
    assert shown.shape == (5, 4, 3)
    assert shown.dtype == np.uint8


def test_pairs_lie_side_by_side_with_their_text(ds):
    fig = show.pairs(ds, [[0, 1], [5, 5], [2, 4]], title="Collisions")
    assert [ax.texts[0].get_text() for ax in fig.axes] == ["ant · bee", "cow · cow", "cow · bee"]
    shown = fig.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown[:, :8, 0], ds.image[0, :, :, 0])
    np.testing.assert_array_equal(shown[:, -8:, 0], ds.image[1, :, :, 0])
    assert (shown[:, 8:-8] == 255).all()
    assert "pairs 2 of 3" in " ".join(texts(show.pairs(ds, [[0, 1]] * 3, list("abc"), n=2)))


def test_pairs_that_are_none_are_refused(ds):
    with pytest.raises(ValueError, match=r"0 to 60; the dataset has 60"):
        show.pairs(ds, [[0, 60]])
    with pytest.raises(ValueError, match="no pair"):
        show.pairs(ds, np.empty((0, 2), dtype=int))
    with pytest.raises(ValueError, match=r"whole numbers \(pair, 2\); got float64"):
        show.pairs(ds, [[0.5, 1.0]])
    with pytest.raises(ValueError, match="1 titles for 2 pairs"):
        show.pairs(ds, [[0, 1], [1, 2]], ["a"])


def test_a_curve_of_one_line_or_several(ds):
    fig = show.curve([3.0, 2.0], xlabel="epoch", ylabel="loss", caption=show.caption(ds))
    assert fig.axes[0].get_legend() is None
    np.testing.assert_array_equal(fig.axes[0].lines[0].get_xdata(), [1, 2])
    assert {"epoch", "loss"} <= set(texts(fig))
    both = show.curve({"train": [3, 2], "validation": [4, 3]}, x=[10, 20])
    assert [t.get_text() for t in both.axes[0].get_legend().get_texts()] == ["train", "validation"]


def test_a_long_caption_breaks_between_its_parts(ds):
    ds.attrs["source"] = "a folder whose name is rather long " * 2
    fig = show.samples(ds, n=2)
    lines = fig.get_supxlabel().splitlines()
    assert len(lines) > 1
    assert " · ".join(lines) == show.caption(ds, n=2, seed=0)
