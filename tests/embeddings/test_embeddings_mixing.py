"""Which classes the neighbours of a class belong to."""

import numpy as np
import pytest
import xarray as xr

from workbench.embeddings import mixing


def test_counts_are_those_of_brute_force_and_rows_add_up():
    rng = np.random.default_rng(0)
    own = rng.integers(-1, 4, 60)
    index = np.array([rng.permutation(60)[:7] for _ in range(60)])
    found = mixing(
        xr.Dataset({"index": (("sample", "neighbor"), index)}), xr.DataArray(own, dims="sample")
    )
    np.testing.assert_allclose(found.sum("neighbor_label"), 1)
    for label in np.unique(own):
        theirs = own[index[own == label]].ravel()
        for other in np.unique(own):
            assert found.sel(label=label, neighbor_label=other) == pytest.approx(
                (theirs == other).mean()
            )


def test_labels_of_other_samples_are_refused():
    graph = xr.Dataset({"index": (("sample", "neighbor"), [[1], [0]])})
    with pytest.raises(ValueError, match="labels hold 3 samples and the graph 2"):
        mixing(graph, xr.DataArray([1, 2, 3], dims="sample"))
