"""Lay the samples out on a plane, and place unseen ones there."""

import inspect
import time
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench._samples import same_samples
from workbench.embeddings import umap_layout
from workbench.embeddings.neighbors import Layout, Place, checked

Method = Literal["umap", "tsne", "pca", "pacmap", "parametric-umap", "umap-learn"]


@dataclass(frozen=True)
class Projection:
    """A map, and the way onto it for samples that were not there when it was made.

    Attributes
    ----------
    xy
        float32 (sample, axis): the map.
    width
        How many features a sample has.
    """

    xy: xr.DataArray
    width: int
    _place: Place | None = field(repr=False)

    def transform(self, features: xr.DataArray) -> xr.DataArray:
        """Places on the map for other samples; those already there do not move.

        PCA projects, parametric UMAP encodes. UMAP and t-SNE search the original space for the
        neighbours among the samples of the map, start from those neighbours' places and optimise
        each new place alone.

        Parameters
        ----------
        features
            float (sample, feature), made in the same way as those of the map.

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
        method = self.xy.attrs["method"]
        if self._place is None:
            raise NotImplementedError(
                f"method={method!r} cannot place unseen samples; 'umap', 'tsne', 'pca' and "
                "'parametric-umap' can"
            )
        values = checked(features)
        if values.shape[1] != self.width:
            raise ValueError(f"the map was made of {self.width} features, not {values.shape[1]}")
        started = time.perf_counter()
        points = self._place(values) if len(values) else np.empty((0, 2))
        return _labelled(points, features, self.xy.attrs, time.perf_counter() - started)


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
    lay_out = _method(method)
    started = time.perf_counter()
    layout: Layout = lay_out(features, neighbors, seed, **options)
    seconds = time.perf_counter() - started
    attrs = {"method": method, "seed": seed, **_parameters(lay_out, options)}
    return Projection(_labelled(layout[0], features, attrs, seconds), values.shape[1], layout[1])


def project(
    features: xr.DataArray,
    method: Method = "umap",
    neighbors: xr.Dataset | None = None,
    seed: int = 0,
    **options: Any,
) -> xr.DataArray:
    """A map: two coordinates for every sample.

    Parameters
    ----------
    features
        float (sample, feature).
    method
        ``"umap"``: McInnes, Healy and Melville 2018, arXiv:1802.03426, with umap-learn's
        defaults and the options `n_neighbors` (15), `min_dist`, `spread`, `n_epochs`, `init`
        (``"spectral"``, ``"pca"``, an array), `learning_rate`, `negative_sample_rate`,
        `repulsion_strength`, `set_op_mix_ratio`. The descent is our own: the moves of
        umap-learn with tabulated gradients, on all threads and still repeatable, since samples
        see one another where they were before the epoch. `n_epochs` is twice umap-learn's,
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
    neighbors
        The graph of :func:`workbench.embeddings.neighbors`. No method searches again when it has
        one; without it, the graph is found first. t-SNE needs three times `perplexity`
        neighbours, UMAP takes the nearest 14 of them, PCA has no use for it.
    seed
        Fixes the map: it repeats bit for bit on one machine with the same versions (parametric
        UMAP: on its processor, not its GPU); across machines it can differ.
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


def _method(method: Method) -> Any:
    """The function behind a name, imported when it is asked for."""
    if method == "tsne":
        from workbench.embeddings.tsne import tsne

        return tsne
    if method == "parametric-umap":
        # Says which extra brings torch before the module below needs it.
        need("torch", extra="networks")
        from workbench.embeddings.parametric import parametric_umap

        return parametric_umap
    return getattr(umap_layout, method.replace("-", "_"))


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
