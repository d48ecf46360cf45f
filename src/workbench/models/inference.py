"""Inference over a dataset in batches: predictions, activations of a layer, evaluation."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm import tqdm

from workbench._samples import unit_range
from workbench.models.fcn import detect
from workbench.models.layers import find_layers, layers_of, vectors_of


def run(model: nn.Module, ds: xr.Dataset, batch_size: int, progress: bool) -> Iterator[Any]:
    """Yield what the network returns for each batch, in evaluation mode, on its own device."""
    place = place_of(model, torch.empty(0))
    with evaluating(model), torch.inference_mode():
        for batch in batches(ds, batch_size, progress):
            yield _forward(model, batch.to(place))


def place_of(model: nn.Module, default: Tensor) -> Tensor:
    """A tensor on the device and in the precision of the network; `default` without parameters."""
    return next((p for p in model.parameters() if p.is_floating_point()), default)


def batches(ds: xr.Dataset, batch_size: int, progress: bool = True) -> Iterator[Tensor]:
    """Yield the images as float tensors (sample, channel, y, x), integers scaled to [0, 1].

    Raises
    ------
    KeyError
        ``ds`` has no ``image``.
    ValueError
        `batch_size` is below 1, there is no image, or a pixel is NaN or infinite.
    """
    if "image" not in ds:
        raise KeyError(f"the dataset has no variable 'image'; it has {sorted(map(str, ds))}")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: it must be at least 1")
    image = ds["image"].transpose("sample", "channel", "y", "x")
    total = image.sizes["sample"]
    if total == 0:
        raise ValueError("the dataset holds no image: 'sample' has length 0")
    warned = False
    with tqdm(total=total, desc="network", unit="image", disable=not progress) as bar:
        for start, stop in _pieces(image, batch_size):
            piece = image.isel(sample=slice(start, stop))
            values = piece.values
            if values.dtype.kind == "f":
                warned = _check(piece, values, warned)
            for part in np.array_split(values, -(-len(values) // batch_size)):
                yield torch.from_numpy(unit_range(part))
                bar.update(len(part))


def _pieces(image: xr.DataArray, batch_size: int) -> Iterator[tuple[int, int]]:
    """Which samples to load at once: whole chunks, so that dask computes each but once."""
    total = image.sizes["sample"]
    ends = range(batch_size, total + batch_size, batch_size)
    if image.chunks is not None:
        ends = np.cumsum(image.chunksizes["sample"]).tolist()
    start = 0
    for end in ends:
        if end - start >= batch_size or end >= total:
            yield start, min(end, total)
            start = end


def _check(image: xr.DataArray, values: np.ndarray, warned: bool) -> bool:
    """Refuse pixels that are no numbers; warn once of pixels beyond [0, 1]."""
    broken = ~np.isfinite(values).all(axis=(1, 2, 3))
    if broken.any():
        first = image["sample"][broken.argmax()].item()
        raise ValueError(f"sample {first!r} holds NaN or infinite pixels; fill or drop it")
    low = values.min()
    high = values.max()
    if not warned and (low < 0 or high > 1):
        text = f"float images should lie in [0, 1] for a network; these run from {low} to {high}"
        warnings.warn(text, stacklevel=2)
        return True
    return warned


def _forward(model: nn.Module, batch: Tensor) -> Any:
    """Run the network; a grey image has its one channel repeated where three are wanted."""
    wants = channels_of(model)
    if (batch.shape[1], wants) == (1, 3):
        batch = batch.expand(-1, 3, -1, -1)
    try:
        return model(batch)
    except (RuntimeError, ValueError) as error:
        has = batch.shape[1]
        if wants in (has, None):
            raise
        raise ValueError(f"the images have {has} channels, the network takes {wants}") from error


def channels_of(model: nn.Module) -> int | None:
    """How many image channels a network takes, as far as itself or its first convolution tells."""
    known = getattr(model, "in_channels", None)
    if isinstance(known, int):
        return known
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return first.in_channels if first is not None else None


#: Attributes of every module; others may be caches, which networks fill while they run.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout and batch statistics off, and every module back to what it was.

    Tensors that modules cached meanwhile are forgotten: they may hold a graph, or be out of date
    when training goes on (the attention biases of EfficientFormer, LeViT, TinyViT).
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    caches = [
        (module, key, value, value.copy() if isinstance(value, dict | list) else None)
        for module in model.modules()
        for key, value in vars(module).items()
        if key not in _OF_EVERY_MODULE
        and (value is None or isinstance(value, Tensor | dict | list))
    ]
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for module, key, value, content in caches:
            vars(module)[key] = value
            if isinstance(value, dict) and isinstance(content, dict):
                value.clear()
                value.update(content)
            elif isinstance(value, list) and isinstance(content, list):
                value[:] = content


def scores_of(output: Any) -> Tensor:
    """A model's output as a tensor: itself, or its ``logits``, as transformers name them."""
    scores = output.get("logits") if isinstance(output, Mapping) else output
    scores = getattr(scores, "logits", scores)
    if not isinstance(scores, Tensor):
        names = f" of {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise ValueError(
            f"the model gives a {type(output).__name__}{names}, not a tensor of scores: "
            "give a target, a function of this output"
        )
    return scores


def activations(
    model: nn.Module,
    ds: xr.Dataset,
    layer: str | None = None,
    *,
    batch_size: int = 256,
    progress: bool = True,
) -> xr.DataArray:
    """One vector for each image: the output of a layer, averaged over the image.

    Of a transformer's tokens all are averaged, the class token among them.

    Parameters
    ----------
    model, ds, batch_size, progress
        As :func:`predict` takes them; the scores do not matter.
    layer
        A name out of ``model.named_modules()``. By default the penultimate layer: what goes into
        the last ``nn.Linear``.

    Returns
    -------
    xarray.DataArray
        float32 (sample, feature); ``attrs`` names the layer.

    Raises
    ------
    ValueError
        No layer of that name (the nearest are listed), no ``nn.Linear`` to stand before, the
        layer's output is not one array a sample, or the network was read from a file that hides
        its layers (TorchScript, torch.export, ONNX). The same for bad images as in
        :func:`workbench.models.predict`.

    Examples
    --------
    >>> from workbench.models import SmallResNet
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"),
    ...                            np.zeros((2, 32, 32, 3), np.uint8))})
    >>> activations(SmallResNet(), ds, "layer2", progress=False).shape
    (2, 128)
    """
    embedder = Embedder(model, layer)
    vectors = [values.float().cpu() for values in run(embedder, ds, batch_size, progress)]
    coords = {"sample": ds["sample"]} if "sample" in ds.coords else {}
    return xr.DataArray(
        torch.cat(vectors).numpy(),
        dims=("sample", "feature"),
        coords=coords,
        name="features",
        attrs={"kind": "network", "layer": embedder.name},
    )


class Embedder(nn.Module):
    """A network that returns the vector of a layer: what :func:`activations` gives of each image.

    Its layers are the network's, with ``model.`` before their names, so that a ``gradcam.Probe``
    can explain a likeness (``gradcam.similarity_target``).
    """

    def __init__(self, model: nn.Module, layer: str | None = None) -> None:
        super().__init__()
        self.model = model
        self._layer, self._before = _penultimate(model) if layer is None else (layer, False)
        self.name = f"before {self._layer}" if self._before else self._layer
        find_layers(model, self._layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return (sample, feature)."""
        seen: list[Tensor] = []
        shape: list[int] = []
        (module,) = find_layers(self.model, self._layer).values()

        def keep(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            # at once, for an activation behind the layer may write into its output
            values = inputs[0] if self._before else output
            seen.append(vectors_of(self.model, self._layer, values, shape[-2:], len(x)))

        def measure(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            shape[:] = inputs[0].shape  # as a preset's hook, which came first, has made it

        with ExitStack() as hooks:
            hooks.callback(module.register_forward_hook(keep).remove)
            hooks.callback(self.model.register_forward_pre_hook(measure).remove)
            self.model(x)
        if not seen:
            raise ValueError(f"the forward pass did not reach layer {self._layer!r}")
        return seen[-1]


def _penultimate(model: nn.Module) -> tuple[str, bool]:
    """The last ``nn.Linear``, or convolution without one (SqueezeNet); its input is meant."""
    layers = layers_of(model)
    for kind in (nn.Linear, nn.Conv2d):
        if named := [name for name, module in layers.items() if isinstance(module, kind)]:
            return named[-1], True
    raise ValueError("the model has no nn.Linear to stand before; name a layer")


Activation = Literal["softmax", "sigmoid", "none"]


@overload
def predict(
    model: nn.Module,
    ds: xr.Dataset,
    *,
    activation: Activation = ...,
    batch_size: int = ...,
    progress: bool = ...,
) -> xr.DataArray: ...


@overload
def predict(
    model: nn.Module, ds: xr.Dataset, *, boxes: Literal[True], **options: Any
) -> pd.DataFrame: ...


def predict(
    model: nn.Module,
    ds: xr.Dataset,
    *,
    activation: Activation = "softmax",
    batch_size: int = 256,
    progress: bool = True,
    boxes: bool = False,
    **options: Any,
) -> xr.DataArray | pd.DataFrame:
    """Class probabilities of every image, or with `boxes` the objects that a detector finds.

    Parameters
    ----------
    model
        What :func:`workbench.models.load` returns, or any torch module that takes float images
        (sample, channel, y, x) in [0, 1] and returns scores (sample, class). It runs where it
        lies, on the CPU or a GPU, and its training mode is put back.
    ds
        An image dataset. Integer images are scaled to [0, 1]; grey ones have their channel
        repeated for a network that takes three; dask-backed ones are loaded a few chunks at a time.
    activation
        What makes probabilities of the network's scores: ``"softmax"``, which leaves rows alone
        that are probabilities already (none negative, their sum 1); ``"sigmoid"`` for independent
        labels; ``"none"`` for the scores themselves.
    batch_size
        Images at a time.
    progress
        Show a bar.
    boxes
        The network gives the maps of an :class:`FCN`, itself or as a TorchScript,
        ``torch.export`` or ONNX program made in evaluation mode, or is a detector of torchvision.
    options
        With `boxes`: ``threshold`` (.3) of the score; ``iou`` (.5), above which boxes of one class
        are one object; and for what is no FCN ``classes``, what its numbers mean, and ``size``,
        the pixels of the longer side that it was trained at.

    Returns
    -------
    xarray.DataArray
        float32 (sample, class); ``class`` holds the network's own ``classes`` where it has them,
        else numbers. With `boxes` a table of boxes, in pixels of the full-size images.

    Raises
    ------
    KeyError
        ``ds`` has no ``image``.
    ValueError
        The images have no pixels, NaN among them, or channels that the network does not take;
        the network's output is not one row of scores for each image, or is NaN.

    Examples
    --------
    >>> from workbench import datasets, models
    >>> ds = datasets.load("photos", n=20)
    >>> probability = models.predict(models.load("cifar10"), ds, progress=False)
    >>> probability.sizes["class"], str(probability["class"].values[3])
    (10, 'cat')
    """
    if boxes:
        shape = tuple(getattr(model, "shape", ())[2:])
        fixed = shape if len(shape) == 2 and None not in shape else None
        options.setdefault("classes", getattr(model, "classes", None))
        options.setdefault("size", fixed or getattr(model, "size", None))
        if missing := [name for name in ("classes", "size") if options[name] is None]:
            raise ValueError(f"the network does not tell its {missing[0]}: give {missing[0]}=")
        with evaluating(model):
            return detect(model, ds, **options, batch_size=min(batch_size, 16), progress=progress)
    rows = [scores_of(output).double().cpu() for output in run(model, ds, batch_size, progress)]
    n, shapes = ds.sizes["sample"], {row.shape[1:] for row in rows}
    if len(shapes) > 1 or rows[0].ndim != 2 or sum(map(len, rows)) != n:
        what = tuple(rows[0].shape)
        raise ValueError(f"the network gives {what} for {n} images, not one row of scores each")
    scores = torch.cat(rows)
    if scores.isnan().any():
        bad = scores.isnan().any(1).numpy()
        first = ds["sample"][bad.argmax()].item()
        raise ValueError(f"the network returns NaN for {bad.sum()} images, first {first!r}")
    names = getattr(model, "classes", None)
    coords: dict[str, Any] = {"class": np.arange(scores.shape[1])}
    if names is not None and len(names) == scores.shape[1]:
        coords["class"] = np.asarray(list(names), dtype=np.str_)
    if "sample" in ds.coords:
        coords["sample"] = ds["sample"]
    return xr.DataArray(
        probabilities_of(scores, activation).float().numpy(),
        dims=("sample", "class"),
        coords=coords,
        name="probability",
        attrs={"model": type(model).__name__, "activation": activation},
    )


def settle(activation: Activation, scores: Tensor) -> Activation:
    """The activation that these scores need: none where softmax is asked of probabilities.

    Raises
    ------
    ValueError
        Of one score an image softmax would make 1, whatever it is; or there is no such activation.
    """
    if activation not in ("softmax", "sigmoid", "none"):
        raise ValueError(f"activation={activation!r}: it must be 'softmax', 'sigmoid' or 'none'")
    if activation != "softmax":
        return activation
    if scores.shape[1] == 1:
        raise ValueError("the network returns one score an image; say activation='sigmoid'")
    sums = scores.double().sum(1)
    already = (scores >= 0).all() and torch.isclose(sums, torch.ones_like(sums), atol=1e-3).all()
    return "none" if already else "softmax"


def probabilities_of(scores: Tensor, activation: Activation) -> Tensor:
    """Probabilities (sample, class) of a network's scores, as :func:`predict` makes them."""
    activation = settle(activation, scores)
    if activation == "none":
        return scores
    return scores.sigmoid() if activation == "sigmoid" else scores.softmax(1)


def evaluate(model: nn.Module, ds: xr.Dataset, progress: bool = True) -> dict[str, float | int]:
    """``accuracy`` and ``expected_calibration_error`` on the ``n`` images that have a label.

    Parameters
    ----------
    model, ds, progress
        As :func:`predict` takes them, `ds` with ``label``; -1 stands for none.

    Raises
    ------
    ValueError
        No sample has a label, or the network's classes are not the dataset's.
    """
    ds = ds.isel(sample=np.flatnonzero(ds["label"].values >= 0))
    if not ds.sizes["sample"]:
        raise ValueError("no sample has a label")
    found = predict(model, ds, progress=progress)
    labels = ds["label"].values
    theirs = getattr(model, "classes", None)
    ours = ds["class"].values.tolist() if "class" in ds.coords else None
    if (theirs and ours and theirs != ours) or labels.max() >= found.sizes["class"]:
        raise ValueError(f"the network's classes are {theirs}, the dataset's {ours}")
    confidence = found.values.max(axis=1)
    right = found.values.argmax(axis=1) == labels
    return {
        "n": len(right),
        "accuracy": round(float(right.mean()), 4),
        "expected_calibration_error": round(calibration_error(confidence, right), 4),
    }


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy, over bins of confidence, by their size.

    Guo et al. 2017, arXiv:1706.04599, Eq. 3.

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.9]), np.array([True, False])), 3)
    0.4
    """
    bin_of = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gap = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(right))
