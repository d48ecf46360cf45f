"""Figures: what is drawn, what the caption says, what is refused."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import show
from workbench.show.plots import picture, spaced


@pytest.fixture
def ds():
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"),
                      rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)),
            "label": ("sample", np.arange(60) % 3),
        },
        coords={"sample": np.arange(60), "class": ["ant", "bee", "cow"]},
        attrs={"name": "toys", "source": "a test"},
    )  # fmt: skip


@pytest.fixture
def xy(ds):
    points = np.random.default_rng(1).normal(size=(60, 2))
    return xr.DataArray(points, dims=("sample", "axis"), attrs={"method": "umap", "seed": 51})


def texts(fig):
    fig.canvas.draw()
    return [text.get_text() for text in fig.findobj(mpl.text.Text)]


def test_a_map_has_a_legend_and_a_caption_with_n_seed_and_source(ds, xy):
    fig = show.map(ds, xy, title="Toys")
    legend = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert legend == ["ant", "bee", "cow"]
    drawn = " ".join(texts(fig))
    for part in ("n = 60", "toys", "from a test", "umap", "seed 51", "Toys"):
        assert part in drawn
    assert sum(len(c.get_offsets()) for c in fig.axes[0].collections) == 60


def test_a_stand_in_is_named_first(ds):
    ds.attrs["stand_in_for"] = "mnist"
    assert show.caption(ds, n=5, seed=1).startswith("STAND-IN, not mnist · n = 5 of 60 ·")


def test_unlabelled_points_and_numbers_are_drawn(ds, xy):
    ds["label"][:7] = -1
    legend = show.map(ds, xy).axes[0].get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["no label", "ant", "bee", "cow"]
    depth = xr.DataArray(np.linspace(0, 1, 60), dims="sample", name="depth")
    assert "depth" in texts(show.map(ds, xy, depth))
    assert show.map(ds, xy, color=False).axes[0].get_legend() is None


def test_thumbnails_and_marks(ds, xy):
    mark = xr.DataArray(np.arange(60) < 4, dims="sample")
    fig = show.map(ds, xy, images=True, mark=mark)
    boxes = fig.findobj(mpl.offsetbox.AnnotationBbox)
    assert len(boxes) == len(spaced(xy.values, 0.05))
    assert "marked (4)" in texts(fig)


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


def test_wrong_sizes_are_named(ds, xy):
    with pytest.raises(ValueError, match=r"60 samples .* shape \(10, 2\)"):
        show.map(ds, xy[:10])
    with pytest.raises(ValueError, match="2 titles for 60 samples"):
        show.samples(ds, ["a", "b"])
    with pytest.raises(ValueError, match="nothing to show"):
        show.samples(ds.isel(sample=[]))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 100), n=st.integers(1, 80), share=st.floats(0.01, 0.5))
def test_spaced_points_keep_their_distance_and_leave_no_room(seed, n, share):
    points = np.random.default_rng(seed).normal(size=(n, 2))
    kept = spaced(points, share)
    span = np.ptp(points, axis=0).max() or 1.0
    apart = np.linalg.norm(points[kept][:, None] - points[kept][None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert (apart >= share * span).all()
    to_kept = np.linalg.norm(points[:, None] - points[kept][None], axis=-1).min(axis=1)
    assert (np.delete(to_kept, kept) < share * span).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_image_becomes_rgb_bytes(channels, dtype):
    image = (np.random.default_rng(0).random((5, 4, channels)) * 200).astype(dtype)
    if dtype == "float32":
        image[0, 0, 0] = np.nan
    shown = picture(image)
    assert shown.shape == (5, 4, 3)
    assert shown.dtype == np.uint8
