"""Every figure of images on an ugly folder and on very few images: nothing overlaps or is cut."""

import numpy as np
import pytest
import xarray as xr
from legible import stumbles
from toys import ugly_folder

from workbench import datasets, show


@pytest.fixture(scope="module")
def ugly(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ugly") / "holiday photographs of a long name"
    ugly_folder(folder, 48)
    with pytest.warns(datasets.SkippedWarning):
        return datasets.load(folder, progress=False)


SIZES = [(1, 1), (2, 1), (2, 2), (5, 2), (5, 4), (20, 4), (48, 4)]


@pytest.fixture(scope="module", params=SIZES, ids=lambda s: f"{s[0]} images of {s[1]} classes")
def photographs(request, ugly):
    n, classes = request.param
    whole = ugly.isel(sample=np.argsort(ugly.label.values, kind="stable"))
    per = [np.flatnonzero(whole.label.values == k)[: -(-n // classes)] for k in range(classes)]
    return whole.isel(sample=np.sort(np.concatenate(per))[:n])


def plane(ds):
    rng = np.random.default_rng(0)
    places = rng.normal(size=(ds.sizes["sample"], 2)) + 4 * ds.label.values[:, None]
    return xr.DataArray(places, dims=("sample", "axis"), coords={"sample": ds.sample})


def cams(ds):
    row = {"Grad-CAM": np.eye(4), "times guided backpropagation": np.eye(4)}
    return show.cams(
        ds.image.values / 255,
        {str(sample): row for sample in ds.sample.values},
        predictions=["brick wall, seen from the south side 99% · grass 1%"] * ds.sizes["sample"],
        title="Grad-CAM of the predicted class, layer by layer",
    )


FIGURES = {
    "samples": lambda ds: show.samples(ds, title="Forty images and their labels"),
    "titled samples": lambda ds: show.samples(
        ds,
        ["brick wall, seen from the south side, rather galaxies (deep field)"] * ds.sizes["sample"],
        columns=8,
        title="Given, and what it may be, in a title that is much longer than the figure is wide",
    ),
    "pairs": lambda ds: show.pairs(ds, [[0, ds.sizes["sample"] - 1]] * 7, title="On one spot"),
    "map": lambda ds: show.map(ds, plane(ds), title="The images on a plane"),
    "map of images": lambda ds: show.map(ds, plane(ds), images=True, title="What lies where"),
    "maps": lambda ds: show.map_grid(ds, {"one": plane(ds), "another": plane(ds)}, title="Two"),
    "cams": lambda ds: cams(ds.isel(sample=slice(4))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_overlaps_or_is_cut(name, photographs):
    assert stumbles(FIGURES[name](photographs)) == []


def test_the_gallery_of_flaws(ugly):
    found = datasets.check(ugly, progress=False)
    assert stumbles(show.flaws(ugly, found)) == []


def test_stumbles_are_seen(ugly):
    figure = show.samples(ugly.isel(sample=slice(4)))
    for ax in figure.axes:
        ax.set_title("a title that is far wider than the image below it is")
    assert len(stumbles(figure)) >= 4
