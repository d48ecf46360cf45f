"""Clusters of a map: the basins of its density, named by the classes in them."""

import numpy as np
import xarray as xr

from workbench._density import cells_of, density
from workbench._extras import need
from workbench._samples import same_samples

#: Names of a cluster say which classes hold at least this share of it, three at most.
_SHARE = 0.2


def clusters(
    xy: xr.DataArray,
    labels: xr.DataArray | None = None,
    *,
    smoothing: float = 0.04,
    least: float = 0.05,
) -> xr.DataArray:
    """Clusters of a map as basins of its density (watershed), named by the shares of classes.

    The map is counted in squares and smoothed; each peak becomes a cluster, and so does all that
    lies downhill from it (Beucher and Lantuejoul 1979). Time grows with the number of samples.

    Parameters
    ----------
    xy
        float (sample, axis): a map on a plane.
    labels
        int (sample,), -1 for none, with ``attrs["classes"]`` or numbers for names. Without them
        the clusters are numbered.
    smoothing
        As a share of the map's larger range: the larger, the fewer clusters.
    least
        Peaks below this share of the highest, and places below a tenth of that, are no cluster.

    Returns
    -------
    xarray.DataArray
        int64 (sample,), the largest cluster first, -1 for none; ``attrs["classes"]`` names them,
        such as ``"cat 71 %, dog 25 %"``, and so ``show.map(ds, xy, color=clusters(xy, labels))``
        writes these names on the map. Shares are of the cluster's labelled samples.

    Raises
    ------
    ValueError
        `xy` is no map on a plane, `labels` belong to other samples, or `smoothing` is not between
        0 and 1.

    Examples
    --------
    >>> xy = xr.DataArray([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0]], dims=("sample", "axis"))
    >>> found = clusters(xy, xr.DataArray([0, 1, 1], dims="sample"))
    >>> found.values, found.attrs["classes"]
    (array([0, 0, 1]), ['0 50 %, 1 50 %', '1 100 %'])
    """
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"clusters are found on a plane, and xy has shape {xy.shape}")
    if not 0 < smoothing < 1:
        raise ValueError(f"smoothing={smoothing} must lie between 0 and 1")
    morphology = need("skimage.segmentation", extra="images")
    peaks = need("skimage.feature", extra="images").peak_local_max
    points = np.asarray(xy.values, dtype=np.float64)
    height, edges = density(points, smoothing)
    tops = peaks(height, min_distance=2, threshold_rel=least)
    markers = np.zeros(height.shape, dtype=np.int32)
    markers[tuple(tops.T)] = np.arange(len(tops)) + 1
    mask = height > height.max() * least / 10
    basins = morphology.watershed(-height, markers, mask=mask)
    basin = basins[cells_of(points, edges)] - 1
    sizes = np.bincount(basin[basin >= 0], minlength=len(tops))
    rank = np.empty(len(tops) + 1, dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(tops))
    rank[-1] = -1
    found = rank[basin]
    classes = [f"cluster {i + 1}" for i in range(np.count_nonzero(sizes))]
    if labels is not None:
        classes = _names(found, same_samples(labels, xy, ("labels", "the map")), len(classes))
    coords = {"sample": xy["sample"]} if "sample" in xy.coords else {}
    return xr.DataArray(
        found, dims="sample", coords=coords, name="cluster", attrs={"classes": classes}
    )


def _names(found: np.ndarray, labels: xr.DataArray, count: int) -> list[str]:
    """What each cluster is made of."""
    own = np.asarray(labels.values)
    given = labels.attrs.get("classes", range(int(own.max(initial=0)) + 1))
    names = []
    for cluster in range(count):
        numbers, counts = np.unique(own[(found == cluster) & (own >= 0)], return_counts=True)
        shares = counts / max(counts.sum(), 1)
        large = [i for i in np.argsort(-shares, kind="stable")[:3] if shares[i] >= _SHARE]
        parts = [f"{given[numbers[i]]} {shares[i]:.0%}".replace("%", " %") for i in large]
        names.append(", ".join(parts) or ("many classes" if len(numbers) else "no label"))
    return names
