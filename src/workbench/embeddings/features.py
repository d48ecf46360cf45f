"""Turn the images of a dataset into one vector each."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import xarray as xr

from workbench._extras import need
from workbench._machine import on_one_thread
from workbench._samples import unit_range

Kind = Literal["pixels", "pca", "autoencoder", "network"]
BATCH = 1024


def features(ds: xr.Dataset, kind: Kind = "pixels", **options: Any) -> xr.DataArray:
    """One feature vector for each image.

    dask-backed images pass through in batches; only the vectors stay in memory.

    Parameters
    ----------
    ds
        An image dataset: ``image`` (sample, y, x, channel), NumPy or dask.
    kind
        ``"pixels"``: all pixels of the image in one row; integer types are scaled to [0, 1] by
        the largest value of their type, floating-point images are taken as they are. Options:
        ``grey=True`` averages the channels first, ``scaled=False`` leaves integers as they are.

        ``"pca"``: principal components of the pixels. Option ``components=50``: how many, or,
        below 1, the share of the variance to keep (NumPy-backed images only).

        ``"autoencoder"``: the code of a small convolutional autoencoder, trained on these very
        images. Options ``latent=32``, ``epochs=10``, ``seed=0``, ``progress=True``; the loss of
        every epoch is in ``attrs["loss"]``.

        ``"network"``: what a trained network makes of the image. Options ``model``, the name of
        a shipped network or any torch module that takes float images (sample, channel, y, x) in
        [0, 1], by default the shipped one for as many channels; ``layer``, by default the
        penultimate; ``progress=True``.
    **options
        As named above.

    Returns
    -------
    xarray.DataArray
        float32 (sample, feature); ``attrs`` holds ``kind`` and how it was made.

    Raises
    ------
    KeyError
        ``ds`` has no ``image``.
    ValueError
        ``kind`` is not known, there is no image, or an option has no sensible value.
    TypeError
        An option that `kind` does not take.

    Examples
    --------
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"),
    ...                  np.full((2, 2, 2, 1), 255, np.uint8))})
    >>> features(ds).values
    array([[1., 1., 1., 1.],
           [1., 1., 1., 1.]], dtype=float32)
    """
    if not isinstance(ds, xr.Dataset):
        raise TypeError(f"features takes an image dataset, not a {type(ds).__name__}")
    if "image" not in ds:
        raise KeyError(f"the dataset has no variable 'image'; it has {sorted(map(str, ds))}")
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r} is not known; it can be one of {', '.join(_KINDS)}")
    if ds.sizes["sample"] == 0:
        raise ValueError("the dataset holds no image: 'sample' has length 0")
    values, attrs = _KINDS[kind](ds, **options)
    return xr.DataArray(
        np.asarray(values, dtype=np.float32),
        dims=("sample", "feature"),
        coords={"sample": ds["sample"]} if "sample" in ds.coords else {},
        name="features",
        attrs={"kind": kind, **attrs},
    )


def rows(
    ds: xr.Dataset, *, grey: bool = False, scaled: bool = True, batch: int = BATCH
) -> Iterator[np.ndarray]:
    """Yield the images as float32 rows (batch, y · x · channel), a batch at a time."""
    image = ds["image"].transpose("sample", "y", "x", "channel")
    for start in range(0, image.sizes["sample"], batch):
        values = np.asarray(image.isel(sample=slice(start, start + batch)).values)
        pixels = unit_range(values) if scaled else values.astype(np.float32)
        if grey:
            pixels = pixels.mean(axis=3)
        yield pixels.reshape(len(pixels), -1)


def _pixels(
    ds: xr.Dataset, *, grey: bool = False, scaled: bool = True
) -> tuple[np.ndarray, dict[str, Any]]:
    values = np.concatenate(list(rows(ds, grey=grey, scaled=scaled)))
    return values, {"grey": int(grey), "scaled": int(scaled)}


@on_one_thread
def _pca(
    ds: xr.Dataset, *, components: float = 50, grey: bool = False, seed: int = 0
) -> tuple[np.ndarray, dict[str, Any]]:
    n, width = ds.sizes["sample"], ds.sizes["y"] * ds.sizes["x"]
    most = min(n, width if grey else width * ds.sizes["channel"])
    if not (0 < components < 1 or (components == int(components) and 1 <= components <= most)):
        raise ValueError(
            f"components={components}: it must be a whole number from 1 to {most}, the smaller of "
            "the numbers of images and of pixels, or a share of the variance between 0 and 1"
        )
    decomposition = need("sklearn.decomposition", extra="embeddings")
    lazy = ds["image"].chunks is not None
    if lazy and components < 1:
        raise ValueError(
            f"components={components}: a share of the variance needs all images in memory; "
            "give a number of components, or ds.load() first"
        )
    wanted: float = components if components < 1 else int(components)
    if lazy:
        pca = decomposition.IncrementalPCA(n_components=wanted, batch_size=max(BATCH, most))
        # Every batch must hold at least as many images as there are components.
        for batch in rows(ds, grey=grey, batch=-(-n // max(1, n // max(BATCH, int(wanted))))):
            pca.partial_fit(batch)
        values = np.concatenate([pca.transform(batch) for batch in rows(ds, grey=grey)])
    else:
        pca = decomposition.PCA(n_components=wanted, random_state=seed)
        values = pca.fit_transform(_pixels(ds, grey=grey)[0])
    kept = float(pca.explained_variance_ratio_.sum())
    return values, {"components": values.shape[1], "variance_kept": round(kept, 4)}


def _autoencoder(ds: xr.Dataset, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    need("torch", extra="networks")
    from workbench.embeddings.autoencoder import encode

    return encode(ds, **options)


def _network(
    ds: xr.Dataset, *, model: Any = None, layer: str | None = None, progress: bool = True
) -> tuple[np.ndarray, dict[str, Any]]:
    need("torch", extra="networks")
    from workbench import models

    if model is None:  # the shipped network that fits
        model = "mnist" if ds.sizes["channel"] == 1 else "cifar10"
    network = models.load(model) if isinstance(model, str) else model
    found = models.activations(network, ds, layer, progress=progress)
    name = model if isinstance(model, str) else type(model).__name__
    return found.values, {"model": name, "layer": found.attrs["layer"]}


_KINDS: dict[str, Callable[..., tuple[np.ndarray, dict[str, Any]]]] = {
    "pixels": _pixels,
    "pca": _pca,
    "autoencoder": _autoencoder,
    "network": _network,
}
