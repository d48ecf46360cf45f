"""One forward and one backward pass, and every map that can be made from them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self

import torch
import xarray as xr
from torch import Tensor, nn

from workbench.gradcam.layers import Layers, Layout, find_layers, layout_of
from workbench.gradcam.running import images_for, logits, undisturbed
from workbench.gradcam.seen import Seen
from workbench.gradcam.targets import Scorer, Target


class Probe:
    """Look into a network: activations and gradients of layers, and maps made from them.

    A run works on a model in any state: training, frozen, under ``torch.no_grad`` or inference
    mode, with in-place activations. It leaves no hook, no ``.grad``, no graph, and every module in
    the mode in which it was; batch norms and dropout are switched to evaluation while it lasts.

    Parameters
    ----------
    model
        Takes float images (sample, channel, y, x) and returns logits (sample, class), or whatever
        a target function can score.
    layers
        A name out of ``model.named_modules()``, a module, or a sequence of these. May be empty for
        the methods that look at the input's pixels alone. Of a layer that runs several times in
        one pass, the last time counts.
    reshape
        For outputs whose plane is not found by itself: a function that takes a layer's output and
        returns (sample, channel, y, x). By itself are found convolutional maps, channels last or
        first, and the tokens of vision transformers. Maps that replay the network need the
        way back as well and work only with those.

    Raises
    ------
    ValueError
        The model has no such layer, or is a :class:`workbench.models.Sealed`, which hides them:
        without layers it can be probed, by occlusion, and by its gradients where it has any.

    Examples
    --------
    >>> from workbench.models import SmallResNet
    >>> with Probe(SmallResNet(), ["layer1", "layer4"]) as probe:
    ...     seen = probe.run(torch.rand(2, 3, 32, 32), target=[3, 5])
    >>> seen.map("gradcam", layer="layer1").shape
    torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers = (),
        *,
        reshape: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.layers = find_layers(model, layers)
        self._reshape = reshape
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def run(self, x: Tensor | xr.Dataset, target: Target = None) -> Seen:
        """Make one forward pass and, for all layers together, one backward pass.

        Parameters
        ----------
        x
            Images (sample, channel, y, x) as the model takes them, or an image dataset, which is
            scaled to [0, 1].
        target
            The class to explain: None for the predicted one, a number for all images, one number
            for each, or a function that takes the model's output and returns (sample,) scores.

        Raises
        ------
        ValueError
            The images hold NaN or infinities or are not (sample, channel, y, x), the targets do
            not fit, a layer was not reached, has no spatial output, or does not lead to the score.
        RuntimeError
            The probe was left already.
        """
        if self.closed:
            raise RuntimeError("this probe was left; open a new one")
        images = images_for(self.model, x)
        kept: dict[str, Tensor] = {}
        with _hooked(self.layers, kept), undisturbed(self.model):
            output = logits(self.model(images))
            with torch.enable_grad():
                scorer = Scorer(target, output)
                score = scorer(output)
            gradients = _gradients(score, {name: kept.get(name) for name in self.layers})
        layouts = {name: self._layout(name, kept[name], images) for name in self.layers}
        seen = Seen(
            x=images,
            output=output.detach(),
            score=score.detach(),
            target=scorer.target,
            activations={k: self._maps(layouts[k], kept[k].detach()) for k in self.layers},
            gradients={k: self._maps(layouts[k], gradients[k]) for k in self.layers},
            _probe=self,
            _scorer=scorer,
            _layouts=layouts,
        )
        _refuse_zeros(seen.gradients, layouts)
        return seen

    def _layout(self, name: str, output: Tensor, x: Tensor) -> Layout:
        if self._reshape is not None:
            return Layout("told", (0, 0))
        return layout_of(self.model, name, output, x)

    def _maps(self, layout: Layout, value: Tensor) -> Tensor:
        maps = layout.to_maps(value) if self._reshape is None else self._reshape(value)
        if maps.ndim != 4:
            raise ValueError(f"reshape gives {tuple(maps.shape)}, not (sample, channel, y, x)")
        return maps


@contextmanager
def _hooked(layers: dict[str, nn.Module], kept: dict[str, Tensor]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, module in layers.items():
            stack.callback(module.register_forward_hook(partial(_keep, kept, name)).remove)
        yield


def _keep(kept: dict[str, Tensor], name: str, _: nn.Module, __: Any, output: Any) -> Any:
    """Keep a layer's output, and let the graph begin at the first one that is kept.

    Up to here nothing was recorded, which saves its memory and time. The network goes on with a
    copy, so that an in-place activation behind the layer does not change what was kept.
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"layer {name!r} gives a {type(output).__name__}, not one tensor")
    torch.set_grad_enabled(True)
    kept[name] = output if output.requires_grad else output.detach().requires_grad_()
    return kept[name].clone()


def _gradients(score: Tensor, kept: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """The gradient of all scores with respect to each layer, in one backward pass.

    The sum serves the whole batch: no image enters another image's score.
    """
    outputs = [value for value in kept.values() if value is not None]
    if len(outputs) < len(kept):
        missing = [name for name, value in kept.items() if value is None]
        raise ValueError(f"the forward pass did not reach {', '.join(missing)}")
    if not outputs:
        return {}
    found: tuple[Tensor | None, ...] = (None,) * len(outputs)
    if score.requires_grad:
        found = torch.autograd.grad(score.sum(), outputs, allow_unused=True)
    unused = [name for name, gradient in zip(kept, found, strict=True) if gradient is None]
    if unused:
        raise ValueError(f"the score does not depend on layer {unused[0]!r}")
    return {name: g for name, g in zip(kept, found, strict=True) if g is not None}


def _refuse_zeros(gradients: dict[str, Tensor], layouts: dict[str, Layout]) -> None:
    """A map of nothing but zeros would look like an answer."""
    for name, gradient in gradients.items():
        if gradient.any():
            continue
        hint = ""
        if layouts[name].kind == "tokens":
            hint = (": after the last attention only the class token is read; take the last "
                    "block's first normalisation, such as blocks.11.norm1")  # fmt: skip
        raise ValueError(f"the score does not depend on what layer {name!r} shows{hint}")
