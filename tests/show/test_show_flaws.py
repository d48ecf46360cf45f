import numpy as np
import pytest

from workbench import datasets, show


def test_a_row_for_each_flaw_with_copies_side_by_side():
    ds = datasets.load("photos", n=30)
    ds.image.values[9] = ds.image.values[3][:, ::-1]
    ds.image.values[20] = 0
    found = datasets.check(ds, progress=False)
    figure = show.flaws(ds, found, n=4)
    titles = [ax.get_title(loc="left") for ax in figure.axes[::4]]
    assert "near copy: 2 of 30" in titles
    row = figure.axes[4 * titles.index("near copy: 2 of 30") :]
    shown = [ax.images[0].get_array() for ax in row[:2]]
    np.testing.assert_array_equal(shown[0], shown[1][:, ::-1])
    assert [ax.texts[0].get_text() for ax in row[:2]] == ["group 0 train"] * 2
    assert "low information: 1 of 30" in titles
    with pytest.raises(ValueError, match="different samples"):
        show.flaws(ds.isel(sample=slice(5)), found)
    fine = ds.isel(sample=~found[list(datasets.FLAWS)].any(axis=1).to_numpy())
    with pytest.raises(ValueError, match="no image has a flaw"):
        show.flaws(fine, datasets.check(fine, progress=False))
