"""Maps in space, of many points, with contours, names of any script, dates and several labels."""

import io
import warnings

import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text

from workbench import show
from workbench.show import density, maps, style


def dataset(n=60, classes=("cat", "Ba$$in $x^2$", "dog"), **variables):
    image = np.zeros((n, 2, 2, 1), np.uint8)
    return xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"), image),
            "label": ("sample", np.arange(n) % len(classes)),
            **variables,
        },
        coords={"class": list(classes)},
    )


def points(n=60, axes=2):
    values = np.random.default_rng(0).normal(size=(n, axes)) + 9 * (np.arange(n) % 3)[:, None]
    return xr.DataArray(values, dims=("sample", "axis"), attrs={"method": "umap", "seed": 0})


def texts(fig):
    fig.savefig(io.BytesIO())
    return {part.get_text() for part in fig.findobj(Text)}


def test_a_map_in_space_has_three_axes_names_and_rings():
    xy = points(axes=3)
    fig = show.map(dataset(), xy, mark=xr.DataArray(np.arange(60) < 3, dims="sample"))
    axes = fig.axes[0]
    assert axes.name == "3d"
    drawn = np.concatenate([np.column_stack(one._offsets3d) for one in axes.collections[:-1]])
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(xy, axis=0))
    assert {"cat", "dog"} <= texts(fig)
    with pytest.raises(ValueError, match="three axes"):
        show.map(dataset(), xy, contours=True)


def test_dollars_are_no_formulas():
    fig = show.map(dataset(), points())
    assert "Ba$$in $x^2$" in texts(fig)
    assert not any(part.get_parse_math() for part in fig.findobj(Text) if "$" in part.get_text())


def test_characters_without_a_font_are_counted_with_what_to_install(monkeypatch):
    ds = dataset(classes=("\U00012000\U00012001", "cat", "dog"))  # cuneiform, in no usual font
    if not style.missing_characters("\U00012000"):
        pytest.skip("a font for cuneiform is installed")
    with pytest.warns(UserWarning, match="no font for 2 characters.*fonts-noto-cjk"):
        show.map(ds, points())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        show.map(dataset(classes=("Straße", "naïve", "Ωmega")), points())


def test_fonts_for_chinese_serve_where_they_are_installed():
    names = [font.name for font in style.font_manager.fontManager.ttflist]
    known = [name for name in names if name.startswith(style._FONTS)]
    assert set(style._families()) == {"sans-serif", *known}
    if known:
        assert not style.missing_characters("猫")


def test_dates_have_a_scale_in_dates():
    day = np.datetime64("2024-01-01") + np.arange(60) * np.timedelta64(20, "D")
    day[3] = np.datetime64("NaT")
    fig = show.map(dataset(day=("sample", day)), points(), color="day")
    written = texts(fig)
    assert "day" in written
    assert {"2024", "2025", "2026"} <= written
    assert "no day" in written


def test_several_labels_are_categories_of_their_own():
    member = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])[np.arange(60) % 3].astype(bool)
    ds = dataset(classes=("road", "water", "wood")).drop_vars("label")
    ds["labels"] = (("sample", "class"), member)
    written = texts(show.map(ds, points(), color="labels"))
    assert {"road", "road + water", "no labels"} <= written
    with pytest.raises(ValueError, match="takes as many values"):
        show.map(ds, points(), color=xr.DataArray(np.zeros((60, 3)), dims=("sample", "axis")))


def test_contours_hold_the_shares_they_say():
    xy = points(3000)
    fig = show.map(dataset(3000), xy, contours=True)
    lines = [one for one in fig.axes[0].collections if hasattr(one, "levels")]
    height, edges = density.density(xy.values, density._SMOOTHING)
    cells = [np.searchsorted(e, p) - 1 for e, p in zip(edges, xy.values.T, strict=True)]
    inside = [(height[tuple(cells)] >= level).mean() for level in lines[0].levels]
    np.testing.assert_allclose(inside, [0.9, 0.5, 0.1], atol=1e-3)


@pytest.mark.parametrize("color", ["label", "score"])
def test_many_points_become_one_picture_with_their_mean_colour(monkeypatch, color):
    monkeypatch.setattr(maps, "_MANY", 50)
    score = np.where(np.arange(60) == 4, np.nan, np.arange(60.0))
    xy = points()
    xy[:2] = 0.0
    fig = show.map(dataset(score=("sample", score)), xy, color=color)
    (picture,) = fig.axes[0].images
    there = picture.get_array()[..., 3] > 0
    assert 40 < there.sum() <= 59
    left, right, bottom, top = picture.get_extent()
    assert left == xy[:, 0].min()
    assert right > xy[:, 0].max()
    height, width = there.shape
    row = int((0 - bottom) / (top - bottom) * height)
    column = int((0 - left) / (right - left) * width)
    if color == "label":
        colors = np.array([style.mpl.colors.to_rgb(one) for one in style.colors(2)])
        np.testing.assert_allclose(picture.get_array()[row, column, :3], colors.mean(axis=0))
