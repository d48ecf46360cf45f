"""How much of the image a layer's units can see."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from workbench.gradcam.fields import Extent, Field
from workbench.gradcam.layers import Layers, find_layers, layout_of
from workbench.gradcam.measuring import measure
from workbench.gradcam.running import undisturbed
from workbench.gradcam.tracking import FieldTracker
from workbench.models.batching import place_of
from workbench.models.layers import layers_of


def receptive_field(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    layers: Layers | None = None,
    *,
    object_size: float | None = None,
    confirm: bool = False,
) -> pd.DataFrame:
    """The receptive fields of layers, computed over the graph that the network really runs.

    Branches are joined, so that the widest counts; dilation, pooling, upsampling and padding are
    followed; what pools over the whole image, attends or flattens sees everything. The network is
    run once; a preset that ``models.load`` attached is left out.

    Parameters
    ----------
    model
        Any network for images.
    input_shape
        (channel, y, x) of an image.
    layers
        Names or modules; by default all whose output has a plane.
    object_size
        Length in pixels of what the network is to see whole: adds a column ``covers``.
    confirm
        Measure every field as well, as the extent of the gradient of one unit by the image, on an
        image large enough for it: adds a column ``measured``. Weights are made equal and positive
        and nonlinearities left out, so that no gradient vanishes by chance; the model itself is
        not changed.

    Returns
    -------
    pandas.DataFrame
        By layer: ``size``, ``stride`` and ``padding`` in pixels of the image, ``output`` (y, x).
        The size is that of the whole field, which may be larger than the image, and ``inf`` for
        everything; the padding is how far the first unit's field begins outside of the image. A
        pair (y, x) where the two differ.

    Raises
    ------
    ValueError
        There is no such layer, it was not reached, or its output has no plane; or the network's
        file hides all of them.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
    >>> receptive_field(model, (3, 32, 32), confirm=True)[["size", "measured"]].values.tolist()
    [[7, 7], [11, 11]]
    """
    every = [name for name in layers_of(model) if name]
    modules = find_layers(model, every if layers is None else layers)
    found = _follow(model, modules, input_shape)
    if layers is not None and (flat := [name for name in modules if name not in found]):
        raise ValueError(f"layer {flat[0]!r} was not reached, or its output has no plane")
    rows = [
        {
            "size": _both(field, lambda extent: extent.high - extent.low),
            "stride": _both(field, lambda extent: extent.step),
            "padding": _both(field, lambda extent: -extent.low),
            "output": plane,
        }
        for field, plane in found.values()
    ]
    table = pd.DataFrame(rows, index=pd.Index(list(found), name="layer"))
    if object_size is not None:
        table["covers"] = [min(np.atleast_1d(size)) >= object_size for size in table["size"]]
    if confirm:
        fields = {name: field for name, (field, _) in found.items()}
        measured = measure(model, {name: modules[name] for name in found}, fields)
        table["measured"] = pd.Series(measured, index=table.index)
    return table


def narrowest(table: pd.DataFrame) -> str:
    """The layer with the fewest units in its plane; of several, the last, which sees most.

    Examples
    --------
    >>> narrowest(receptive_field(nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2)), (3, 8, 8)))
    '1'
    """
    return str(table["output"][::-1].map(math.prod).idxmin())


def _both(field: Field, what: Callable[[Extent], float]) -> float | tuple[float, float]:
    """A number for both axes, or one for each; whole numbers where they are."""
    y, x = (int(v) if v == (v // 1) else v for v in (what(field.y), what(field.x)))
    return x if y == x or y != y else (y, x)


def _follow(
    model: nn.Module, modules: dict[str, nn.Module], shape: tuple[int, int, int]
) -> dict[str, tuple[Field, tuple[int, int]]]:
    """The field and the plane of each layer's output; of a layer that runs often, of the last."""
    found: dict[str, tuple[Field, tuple[int, int]]] = {}
    with undisturbed(model):
        image = torch.zeros(1, *shape)
        image = image.to(place_of(model, image))
        tracker = FieldTracker(image)

        def see(name: str, output: Any) -> None:
            if not isinstance(output, Tensor) or output not in tracker.fields:
                return
            field = tracker.fields[output]
            if field is not None and math.prod(plane := field.plane(output)) > 1:
                found[name] = field, plane
            elif field is None and (grid := _grid(model, name, output, image)):
                everything = Extent(step=math.nan).unbounded()
                found[name] = Field(everything, everything), grid

        with tracker, _watched(modules, see):
            # `forward`, not a call: a preset's hook would resize the image.
            model.forward(image)
    return {name: found[name] for name in modules if name in found}


def _grid(model: nn.Module, name: str, output: Tensor, image: Tensor) -> tuple[int, int] | None:
    try:
        return layout_of(model, name, output, image).grid
    except ValueError:
        return None


@contextmanager
def _watched(modules: dict[str, nn.Module], see: Callable[[str, Any], Any]) -> Iterator[None]:
    """Have `see` called with the name and the output of each layer that runs."""
    with ExitStack() as stack:
        for name, module in modules.items():
            hook = partial(lambda name, _, __, output: see(name, output), name)
            stack.callback(module.register_forward_hook(hook).remove)
        yield
