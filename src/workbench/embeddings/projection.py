"""Lay the samples out on a plane or in space, and place unseen ones there."""

import inspect
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench._samples import same_samples
from workbench.embeddings import projection_file, umap_layout
from workbench.embeddings.layout import Layout
from workbench.embeddings.neighbors import checked, extended

Method = Literal["umap", "tsne", "pca", "pacmap", "parametric-umap", "umap-learn"]


@dataclass(frozen=True)
class Projection:
    """A map, and the way onto it for samples that were not there when it was made.

    It is data alone: it can be pickled, and :meth:`save` writes a file that holds no code.

    Attributes
    ----------
    xy
        float32 (sample, axis): the map.
    width
        How many features a sample has.
    """

    xy: xr.DataArray
    width: int
    _layout: Layout = field(repr=False)

    def transform(self, features: xr.DataArray) -> xr.DataArray:
        """Places on the map for other samples; those already there do not move.

        PCA projects, parametric UMAP encodes. UMAP and t-SNE search the original space for the
        neighbours among the samples of the map, start from those neighbours' places and optimise
        each new place alone.

        Parameters
        ----------
        features
            float (sample, feature), made in the same way as those of the map; on a map of
            distances, float (sample, sample of the map).

        Returns
        -------
        xarray.DataArray
            float32 (sample, axis).

        Raises
        ------
        NotImplementedError
            The method places nothing new: ``"pacmap"`` and ``"umap-learn"``.
        ValueError
            Another number of features, or rows with NaN or infinity.

        Examples
        --------
        >>> line = xr.DataArray(np.arange(8.0).reshape(4, 2), dims=("sample", "feature"))
        >>> placed = fit(line[:3], method="pca").transform(line[3:])
        >>> placed.sizes["sample"], placed.sizes["axis"]
        (1, 2)
        """
        values = self._values(features)
        started = time.perf_counter()
        place = _function(self.xy.attrs["method"], "_place")
        points = place(self._layout, values) if len(values) else self._layout.points[:0]
        return _labelled(points, features, self.xy.attrs, time.perf_counter() - started)

    def add(self, features: xr.DataArray) -> "Projection":
        """The map with further samples on it, settled: those already there hardly move.

        The new samples are placed as by :meth:`transform`. Under UMAP and t-SNE the graph of
        neighbours is then extended to them by exact searches, and all samples descend once more,
        shortly and slowly. Under PCA and parametric UMAP the old ones stay where they are.

        Parameters
        ----------
        features
            float (sample, feature), made in the same way as those of the map.

        Returns
        -------
        Projection
            The new samples stand behind the old. UMAP: the same bytes on any number of threads.

        Raises
        ------
        NotImplementedError
            The method places nothing new, or the map was made of distances.
        ValueError
            As :meth:`transform`; or samples are on the map already, by their ids.

        Examples
        --------
        >>> line = xr.DataArray(np.arange(8.0).reshape(4, 2), dims=("sample", "feature"))
        >>> fit(line[:3], method="pca").add(line[3:]).xy.sizes["sample"]
        4
        """
        new, layout = self._values(features), self._layout
        if layout.settings.get("metric") == "precomputed":
            raise NotImplementedError(
                "a map of distances takes no further samples, since the distances between them "
                "are not known: use transform, or make the map anew"
            )
        ids = _joined_ids(self.xy, features)
        started = time.perf_counter()
        points = np.concatenate([layout.points, self.transform(features).values])
        joined = replace(layout, points=points)
        if "values" in layout.arrays and len(new):
            kept = dict(layout.arrays)
            kept["values"] = np.concatenate([kept["values"], new])
            kept["index"], kept["distance"] = extended(
                kept["values"], (kept["index"], kept["distance"]), layout.settings["metric"]
            )
            if "labels" in kept:
                kept["labels"] = np.append(kept["labels"], np.full(len(new), -1))
            joined = Layout(points, kept, layout.settings)
            points = _function(self.xy.attrs["method"], "_settle")(joined)
        seconds = time.perf_counter() - started
        return _projection(replace(joined, points=points), ids, self.xy.attrs, seconds)

    def save(self, path: str | Path) -> Path:
        """Write the map, and all that it takes to place others on it, as one ``.npz`` file.

        Parameters
        ----------
        path
            Where to; the file is there whole or not at all, and replaces a map of its name.

        Returns
        -------
        pathlib.Path
            `path`.

        Raises
        ------
        FileExistsError
            Something else has that name.
        ValueError
            The samples' ids are neither numbers, dates nor texts.

        Examples
        --------
        >>> import tempfile
        >>> line = xr.DataArray(np.arange(8.0).reshape(4, 2), dims=("sample", "feature"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = fit(line, method="pca").save(f"{folder}/map.npz")
        ...     Projection.load(path).width
        2
        """
        return projection_file.save(Path(path), self.xy, self._layout)

    @classmethod
    def load(cls, path: str | Path) -> "Projection":
        """Read what :meth:`save` wrote: numbers and texts, never code.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It is no saved map, a newer one, or damaged.
        """
        xy, layout = projection_file.load(Path(path))
        if xy.attrs["method"] not in get_args(Method):
            raise ValueError(f"{path} holds a map by the unknown method {xy.attrs['method']!r}")
        return cls(xy, layout.settings["width"], layout)

    def _values(self, features: xr.DataArray) -> np.ndarray:
        """The rows of `features`, once it is clear that they can be placed."""
        method = self.xy.attrs["method"]
        if not self._layout.arrays:
            raise NotImplementedError(
                f"method={method!r} cannot place unseen samples; 'umap', 'tsne', 'pca' and "
                "'parametric-umap' can"
            )
        values = checked(features, self._layout.settings.get("metric", "euclidean"))
        if values.shape[1] != self.width:
            raise ValueError(f"the map was made of {self.width} features, not {values.shape[1]}")
        return values


def fit(
    features: xr.DataArray,
    method: Method = "umap",
    neighbors: xr.Dataset | None = None,
    seed: int = 0,
    **options: Any,
) -> Projection:
    """Make a map that unseen samples can be placed on.

    Parameters and errors are those of :func:`project`, which returns the map alone.

    Returns
    -------
    Projection
        With the map as ``xy`` and :meth:`Projection.transform`.
    """
    if method not in get_args(Method):
        raise ValueError(
            f"method={method!r} is not known; it can be one of {sorted(get_args(Method))}"
        )
    values = checked(features)
    if neighbors is not None:
        neighbors = same_samples(neighbors, features, ("the neighbours", "the features"))
    lay_out = _function(method)
    started = time.perf_counter()
    layout: Layout = lay_out(features, neighbors, seed, **options)
    seconds = time.perf_counter() - started
    attrs = {"method": method, "seed": seed, **_parameters(lay_out, options)}
    layout = replace(layout, settings={**layout.settings, "width": values.shape[1]})
    return _projection(layout, features, attrs, seconds)


def project(
    features: xr.DataArray,
    method: Method = "umap",
    neighbors: xr.Dataset | None = None,
    seed: int = 0,
    **options: Any,
) -> xr.DataArray:
    """A map: two coordinates for every sample, or three with ``components=3``.

    Parameters
    ----------
    features
        float (sample, feature).
    method
        ``"umap"``: McInnes, Healy and Melville 2018, arXiv:1802.03426, with umap-learn's
        defaults and the options `n_neighbors` (15), `min_dist`, `spread`, `n_epochs`, `init`
        (``"spectral"``, ``"pca"``, an array), `learning_rate`, `negative_sample_rate`,
        `repulsion_strength`, `set_op_mix_ratio`. Given `labels` (int, -1 for none), classes are
        drawn apart, the more the nearer `target_weight` (0.5) is to 1. The descent is our own: the
        moves of umap-learn with tabulated gradients, on all threads and still repeatable, since
        samples see one another where they were before the epoch. `n_epochs` is twice umap-learn's,
        1,000, or 400 beyond 10,000 samples. The descent is compiled on first use (a second) and
        kept beside the package, or where ``NUMBA_CACHE_DIR`` says.

        ``"umap-learn"``: that library itself, with all of its options.

        ``"tsne"``: van der Maaten and Hinton 2008 through openTSNE, whose options it takes,
        with `perplexity` (30) and `initialization` (``"pca"``, scaled to a standard deviation of
        1e-4; ``"pca-unscaled"`` to see the lump that this avoids; ``"random"``; an array).

        ``"pca"``: principal components; scikit-learn's options.

        ``"pacmap"``: Wang, Huang, Rudin and Shaposhnik 2021, JMLR 22(201); PaCMAP's options. Its
        near pairs are chosen from the given graph, from up to `n_neighbors` (10) + 50 of each
        sample; a graph with fewer leaves it less choice than it has by itself.

        ``"parametric-umap"``: Sainburg, McInnes and Gentner 2021, arXiv:2009.12981; a network
        (`hidden`, `steps`, `batch_size`, `learning_rate`, `device`, `progress`) trained on
        UMAP's graph; needs the extra "networks".
        Every method takes `components`: 2 axes, or 3 for a map in space (t-SNE in space is slow:
        Barnes and Hut's method takes the place of interpolation).
    neighbors
        The graph of :func:`workbench.embeddings.neighbors`. No method searches again when it has
        one; without it, the graph is found first. t-SNE needs three times `perplexity`
        neighbours, UMAP takes the nearest 14 of them, PCA has no use for it.
    seed
        Fixes the map: it repeats bit for bit on one machine with the same versions, on any number
        of threads by one graph (PaCMAP, parametric UMAP: by the same number, not on a GPU).
    **options
        See `method`.

    Returns
    -------
    xarray.DataArray
        float32 (sample, axis) with ``method``, ``seed``, ``seconds`` and the parameters in
        ``attrs``.

    Raises
    ------
    TypeError
        `features` is not a DataArray, or an option is unknown.
    ValueError
        `method` is not known, `neighbors` belongs to other samples or is too small, or the
        perplexity is too large: the message names the largest that would do.

    Examples
    --------
    >>> import numpy as np
    >>> line = xr.DataArray(np.arange(8.0).reshape(4, 2), dims=("sample", "feature"))
    >>> project(line, method="pca").sizes["axis"]
    2
    """
    return fit(features, method, neighbors, seed, **options).xy


def _projection(
    layout: Layout, features: xr.DataArray, attrs: dict[str, Any], seconds: float
) -> Projection:
    xy = _labelled(layout.points, features, attrs, seconds)
    return Projection(xy, layout.settings["width"], replace(layout, points=xy.values))


def _joined_ids(xy: xr.DataArray, features: xr.DataArray) -> xr.DataArray:
    """The samples of both, with their ids where both have them; none of them twice."""
    if "sample" not in xy.coords or "sample" not in features.coords:
        return xr.DataArray(np.empty(len(xy) + len(features)), dims="sample")
    ids = np.concatenate([xy["sample"].values, features["sample"].values])
    twice = np.isin(features["sample"].values, xy["sample"].values)
    if twice.any():
        raise ValueError(
            f"{np.count_nonzero(twice)} of {len(twice)} samples are on the map already, the first "
            f"is {features['sample'].values[twice][0]}"
        )
    return xr.DataArray(ids, dims="sample", coords={"sample": ids})


def _function(method: str, task: str = "") -> Any:
    """What lays out by a method, places or settles, imported when it is asked for."""
    name = method.replace("-", "_") + task
    if method == "tsne":
        from workbench.embeddings import tsne

        return getattr(tsne, name)
    if method == "parametric-umap":
        # Says which extra brings torch before the module below needs it.
        need("torch", extra="networks")
        from workbench.embeddings import parametric

        return getattr(parametric, name)
    return getattr(umap_layout, name)


def _parameters(lay_out: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options given and the defaults of the others; arrays and unset ones are left out."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(lay_out).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("progress", "n_jobs")
    }
    return {
        name: value
        for name, value in {**defaults, **options}.items()
        if isinstance(value, str | int | float | tuple)
    }


def _labelled(
    points: np.ndarray, features: xr.DataArray, attrs: dict[str, Any], seconds: float
) -> xr.DataArray:
    return xr.DataArray(
        np.asarray(points, dtype=np.float32),
        dims=("sample", "axis"),
        coords={"sample": features["sample"]} if "sample" in features.coords else {},
        name=attrs["method"],
        attrs={**attrs, "seconds": round(seconds, 2)},
    )
