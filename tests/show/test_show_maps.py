"""Maps: who gets which colour, what the legend says, what is refused."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import show
from workbench.show.coloring import Values, read_color
from workbench.show.maps import spaced


def texts(fig):
    fig.canvas.draw()
    return [text.get_text() for text in fig.findobj(mpl.text.Text)]


def legend(fig):
    return [text.get_text() for legend in fig.legends for text in legend.get_texts()]


def along(values, name=None, **attrs):
    return xr.DataArray(values, dims="sample", name=name, attrs=attrs)


def test_a_map_has_a_legend_and_a_caption_with_n_seed_and_source(ds, xy):
    fig = show.map(ds, xy, title="Toys")
    assert legend(fig) == ["ant", "bee", "cow"]
    drawn = " ".join(texts(fig))
    for part in ("n = 60", "toys", "from a test", "umap", "seed 51", "Toys"):
        assert part in drawn
    assert sum(len(c.get_offsets()) for c in fig.axes[0].collections) == 60


def test_points_have_the_colour_that_the_legend_names(ds, xy):
    fig = show.map(ds, xy)
    drawn = fig.axes[0].collections[0]
    key = {
        text.get_text(): mpl.colors.to_hex(line.get_color())
        for text, line in zip(
            fig.legends[0].get_texts(), fig.legends[0].legend_handles, strict=True
        )
    }
    for at, shade in zip(drawn.get_offsets(), drawn.get_facecolors(), strict=True):
        i = np.flatnonzero((xy.values == at).all(axis=1))[0]
        assert mpl.colors.to_hex(shade) == key[str(ds["class"].values[ds.label[i]])]


def test_unlabelled_points_and_numbers_are_drawn(ds, xy):
    ds["label"][:7] = -1
    assert legend(show.map(ds, xy)) == ["ant", "bee", "cow", "no label"]
    depth = along(np.where(np.arange(60) < 5, np.nan, np.linspace(0, 1, 60)), "depth")
    fig = show.map(ds, xy, depth)
    assert "depth" in texts(fig)
    assert legend(fig) == ["no depth"]
    assert sum(len(c.get_offsets()) for c in fig.axes[0].collections) == 60
    assert legend(show.map(ds, xy, color=False)) == []
    assert legend(show.map(ds.drop_vars("label"), xy)) == []


def test_text_bool_and_groups_with_names_of_their_own(ds, xy):
    ds["split"] = along(np.where(np.arange(60) < 20, "test", "train"))
    ds["shape"] = along(np.arange(60) % 2, classes=["round", "long"])
    ds["place"] = along(np.array(["sea", None, ""] * 20, dtype=object))
    assert legend(show.map(ds, xy, "split")) == ["test", "train"]
    assert legend(show.map(ds, xy, "shape")) == ["round", "long"]
    assert legend(show.map(ds, xy, "place")) == ["sea", "no place"]
    fig = show.map(ds, xy, along(ds.label.values == 1, "outlier"))
    assert legend(fig) == ["no", "yes"]
    assert "outlier" in texts(fig)


def test_numbers_that_are_no_classes_stand_for_themselves(ds, xy):
    assert legend(show.map(ds, xy, along(np.arange(60) % 5 * 10 - 10, "shift"))) == [
        "-10", "0", "10", "20", "30",
    ]  # fmt: skip
    assert isinstance(read_color(ds, along(np.arange(60), "row")), Values)


def test_of_many_classes_the_most_frequent_are_told_apart(ds, xy):
    many = ds.drop_dims("class").assign_coords({"class": [f"c{i:02d}" for i in range(30)]})
    label = np.r_[np.arange(30), np.arange(30)]
    label[30:32] = 29  # classes 0 and 1 have one sample, 2 to 28 two
    fig = show.map(many.assign(label=along(label)), xy)
    assert legend(fig) == [*(f"c{i:02d}" for i in range(2, 21)), "c29", "and 10 more"]
    groups = read_color(many.assign(label=along(label)), "label").groups
    looks = [(group.color, group.marker) for group in groups]
    assert len(set(looks)) == len(looks)
    assert sum(len(group.members) for group in groups) == 60
    assert list(fig.axes[0].texts) == []


def test_thumbnails_and_marks(ds, xy):
    mark = xr.DataArray(np.arange(60) < 4, dims="sample")
    fig = show.map(ds, xy, images=True, mark=mark)
    boxes = fig.findobj(mpl.offsetbox.AnnotationBbox)
    assert len(boxes) == len(spaced(xy.values, 0.05))
    assert "marked (4)" in legend(fig)


def test_names_stand_where_a_class_prevails(ds):
    corners = np.array([[0, 0], [9, 0], [0, 9]])[ds.label]
    fig = show.map(ds, xr.DataArray(corners, dims=("sample", "axis")))
    assert {t.get_text(): t.xy for t in fig.axes[0].texts} == {
        "ant": (0, 0), "bee": (9, 0), "cow": (0, 9),
    }  # fmt: skip
    spot = show.map(ds, xr.DataArray(corners * 0, dims=("sample", "axis")))
    assert [t.get_text() for t in spot.axes[0].texts] == ["all 60 points lie here"]


def test_a_grid_shares_one_legend_and_says_how_long_each_took(ds, xy):
    slow = xy.assign_attrs(seconds=41.2)
    maps = {"UMAP": xy.assign_attrs(seconds=4.04), "t-SNE": slow, "PCA": xy, "again": slow}
    fig = show.map_grid(ds, maps, columns=3, title="A sweep")
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["UMAP · 4.0 s", "t-SNE · 41 s", "PCA", "again · 41 s"]
    assert legend(fig) == ["ant", "bee", "cow"]
    assert " ".join(texts(fig)).count("n = 60") == 1
    fig.canvas.draw()
    for ax in fig.axes:
        (x0, y0), (x1, y1) = ax.transData.transform([[0, 0], [1, 1]])
        assert x1 - x0 == pytest.approx(y1 - y0, rel=0.02)
    values = show.map_grid(ds, {"a": xy, "b": xy}, along(np.linspace(0, 1, 60), "depth"))
    assert len(values.axes) == 3  # the last is the colour bar


def test_labels_one_by_one_on_one_map(ds, xy):
    several = np.zeros((60, 3), dtype=bool)
    several[:30, 0] = several[20:25, 1] = True
    multi = ds.drop_vars("label").assign(labels=(("sample", "class"), several))
    titles = [ax.get_title(loc="left") for ax in show.map_labels(multi, xy).axes]
    assert titles == ["all 60", "ant · 30", "bee · 5"]
    fig = show.map_labels(ds, xy, n=2)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["all 60", "ant · 20", "bee · 20"]
    assert "classes 2 of 3" in " ".join(texts(fig))


def test_what_cannot_be_drawn_is_said(ds, xy):
    with pytest.raises(ValueError, match=r"60 samples .* shape \(10, 2\)"):
        show.map(ds, xy[:10])
    with pytest.raises(ValueError, match=r"'labl' to colour by; did you mean 'label'"):
        show.map(ds, xy, "labl")
    with pytest.raises(ValueError, match=r"60 samples takes as many values; 'p' has shape \(5,\)"):
        show.map(ds, xy, along(np.arange(5), "p"))
    with pytest.raises(ValueError, match="complex128 has no colours"):
        show.map(ds, xy, along(np.zeros(60, complex), "p"))
    with pytest.raises(ValueError, match="no map was given"):
        show.map_grid(ds, {})
    with pytest.raises(ValueError, match="UMAP has shape"):
        show.map_grid(ds, {"UMAP": xy[:10]})
    with pytest.raises(ValueError, match="neither 'labels' nor 'label'"):
        show.map_labels(ds.drop_vars("label"), xy)
    with pytest.raises(ValueError, match="2 points of xy are not finite; the first is at 3"):
        show.map(ds, xy.where(~np.isin(np.arange(60), [3, 9])[:, None]))
    with pytest.raises(ValueError, match="no sample"):
        show.map(ds.isel(sample=[]), xy[:0])


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
