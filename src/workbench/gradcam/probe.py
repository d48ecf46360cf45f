"""Forward hooks on layers: one forward and one backward pass, and the maps made from them."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.gradcam.cam_methods import FORMULAS, ablation_drops
from workbench.gradcam.forward import (
    Forward,
    Inputs,
    Scorer,
    Target,
    differentiable,
    images_for,
    undisturbed,
)
from workbench.gradcam.pixel_methods import PIXELS
from workbench.models.inference import Activation, probabilities_of, scores_of
from workbench.models.layers import Layers, OutputLayout, find_layers, layout_of

#: Methods that make a map of a layer, and methods that make a map of the input's pixels.
LAYER_METHODS = (*FORMULAS, "ablationcam")
PIXEL_METHODS = (*PIXELS, "guided_gradcam")
METHODS = (*LAYER_METHODS, *PIXEL_METHODS)


@dataclass(frozen=True)
class ProbeResult:
    """Activations, gradients and scores of one batch, outside any graph, on the model's device.

    Attributes
    ----------
    x
        The images (sample, channel, y, x).
    output
        What the model made of them, usually logits (sample, class); where these stand among other
        outputs, they alone.
    score
        (sample,): the number that the maps explain.
    target
        (sample,): the class explained; None where a function made the score.
    activations, gradients
        Layer to (sample, channel, y, x), at the layer's own resolution.
    """

    x: Tensor
    output: Any
    score: Tensor
    target: Tensor | None
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    _probe: "Probe" = field(repr=False)
    _scorer: Scorer = field(repr=False)
    _forward: Forward = field(repr=False)
    _layouts: dict[str, OutputLayout] = field(repr=False)

    @property
    def probabilities(self) -> Tensor:
        """Of the output by the probe's activation, (sample, class)."""
        return probabilities_of(scores_of(self.output), self._probe.activation)

    def predictions(self, classes: Sequence[str] | None = None, k: int = 2) -> list[str]:
        """The `k` likeliest classes of each image with their probabilities, as text."""
        found = self.probabilities.topk(min(k, self.probabilities.shape[1]))
        return [
            " · ".join(
                f"{classes[c] if classes is not None else c} {p:.0%}"
                for c, p in zip(cs, ps, strict=True)
            )
            for cs, ps in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]

    def map(
        self,
        method: str = "gradcam",
        layer: str | None = None,
        *,
        signed: bool = False,
        size: int | Sequence[int] | None = None,
        **options: Any,
    ) -> Tensor:
        """One map for each image, (sample, y, x), unscaled.

        Parameters
        ----------
        method
            Of a layer: "gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam"
            (not class-discriminative), "ablationcam". Of the input's pixels: "gradient",
            "smoothgrad", "integrated_gradients", "guided_backprop", "guided_gradcam",
            "occlusion".
        layer
            One of the probe's; by default the last of them.
        signed
            False cuts a layer's map, and occlusion's, off below zero, which is the ReLU that the
            papers end with; of the other pixel methods it takes the largest magnitude over the
            colour channels (Simonyan et al. 2014, arXiv:1312.6034, section 3.1). True keeps the
            sign, and sums over the colour channels.
        size
            Resample bilinearly to (y, x), or to a square; by default the layer's own resolution,
            or the image's.
        **options
            Of "ablationcam": ``batch_size``, ``progress``; of the pixel methods, see
            :meth:`attribution`.

        Raises
        ------
        ValueError
            There is no such method, the layer was not probed, or an option is below 1.
        RuntimeError
            The method runs the network again, and the probe was left.
        """
        if method in PIXEL_METHODS:
            pixels = self.attribution(method, layer, **options)
            if signed or method == "occlusion":
                found = pixels.sum(1) if signed else pixels.sum(1).relu()
            else:
                found = pixels.abs().amax(1)
        elif method in LAYER_METHODS:
            found = self._layer_map(method, self._probed(layer), options)
            found = found if signed else _positive(found, method)
        else:
            raise ValueError(f"there is no method {method!r}; there is {', '.join(METHODS)}")
        return resize(found, size) if size is not None else found

    def attribution(self, method: str, layer: str | None = None, **options: Any) -> Tensor:
        """A pixel method's raw values (sample, channel, y, x); occlusion has one channel.

        Parameters
        ----------
        method
            One of the pixel methods of :meth:`map`.
        layer
            For "guided_gradcam": the layer whose Grad-CAM is upsampled bilinearly to the image
            and multiplied with guided backpropagation (Selvaraju et al. 2017, section 3).
        **options
            "smoothgrad": ``samples=25``, ``noise=0.15`` (of each image's range), ``seed=0``;
            "integrated_gradients": ``steps=32``, ``baseline=0.0``; "occlusion": ``window``,
            ``stride``, ``fill``, ``batch_size``.
        """
        self._open(method, options)
        if method == "guided_gradcam":
            cam = self.map("gradcam", layer, size=self.x.shape[2:])
            guided = PIXELS["guided_backprop"](self._forward, self.x, self._scorer, **options)
            return guided * cam[:, None]
        if method not in PIXELS:
            known = ", ".join(PIXEL_METHODS)
            raise ValueError(f"there is no pixel method {method!r}; there is {known}")
        return PIXELS[method](self._forward, self.x, self._scorer, **options)

    def ablation_drops(self, layer: str | None = None, **options: Any) -> Tensor:
        """By how much the score falls without each channel of a layer, (sample, channel)."""
        self._open("ablationcam", options)
        name = self._probed(layer)
        return ablation_drops(
            self._forward,
            self._probe.layers[name],
            self._layouts[name],
            self.x,
            self.activations[name],
            self._scorer,
            **options,
        )

    def _layer_map(self, method: str, layer: str, options: dict[str, Any]) -> Tensor:
        # Sums over a plane overflow in half precision.
        own = self.activations[layer]
        a = own.to(torch.promote_types(own.dtype, torch.float32))
        if method == "ablationcam":
            height = self.score.abs()[:, None]
            weights = self.ablation_drops(layer, **options) / height.where(height > 0, 1)
            maps = torch.einsum("nk,nk...->n...", weights.to(a), a)
        else:
            maps = FORMULAS[method](a, self.gradients[layer].to(a), **options)
        return maps if own.dtype == torch.float16 else maps.to(own.dtype)

    def _probed(self, layer: str | None) -> str:
        if not self.activations:
            raise ValueError("the probe was opened without a layer; name one")
        if layer is not None and layer not in self.activations:
            raise ValueError(f"layer {layer!r} was not probed; {', '.join(self.activations)} were")
        return layer or list(self.activations)[-1]

    def _open(self, method: str, options: dict[str, Any]) -> None:
        """Refuse what cannot be run again, and counts and lengths below 1."""
        if self._probe.closed:
            raise RuntimeError(f"{method} runs the network again: ask for it within the probe")
        for name in ("samples", "steps", "window", "stride", "batch_size"):
            if options.get(name) is not None and options[name] < 1:
                raise ValueError(f"{name}={options[name]}: it must be at least 1")


def _positive(maps: Tensor, method: str) -> Tensor:
    """The ReLU of maps; those of which nothing is left would look like an answer."""
    empty = int((maps.flatten(1).amax(1) <= 0).sum())
    if empty:
        warnings.warn(
            f"{empty} of {len(maps)} maps of {method!r} are nowhere positive and come out blank: "
            "what the layer shows speaks against the target; signed=True shows it",
            stacklevel=3,
        )
    return maps.relu()


def resize(maps: Tensor, size: int | Sequence[int]) -> Tensor:
    """Resample maps (sample, y, x) bilinearly; pixel centres, not corners, are aligned.

    Of a video's maps (sample, t, y, x) `size` is (t, y, x).

    Examples
    --------
    >>> import torch
    >>> resize(torch.eye(2)[None], 4).shape
    torch.Size([1, 4, 4])
    """
    to = (size,) * (maps.ndim - 1) if isinstance(size, int) else tuple(size)
    mode = "bilinear" if maps.ndim == 3 else "trilinear"
    return F.interpolate(maps[:, None], size=to, mode=mode, align_corners=False)[:, 0]


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
    activation
        What makes probabilities of the output, as for :func:`workbench.models.predict`.

    Raises
    ------
    ValueError
        The model has no such layer, or is a :class:`workbench.models.OpaqueModel`, which hides
        them: without layers it can be probed, by occlusion, and by gradients where it has any.

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
        activation: Activation = "softmax",
    ) -> None:
        self.model = model
        self.layers = find_layers(model, layers)
        if self.layers and not differentiable(model):
            raise ValueError(
                "a quantised network has no gradients: open the probe without layers and take "
                "'occlusion', or give the network as it was before"
            )
        self.activation = activation
        self._reshape = reshape
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def run(self, x: Inputs, target: Target = None) -> ProbeResult:
        """Make one forward pass and, for all layers together, one backward pass.

        Parameters
        ----------
        x
            Images (sample, channel, y, x) as the model takes them, videos (sample, channel, t, y,
            x), or an image dataset, which is scaled to [0, 1]. For a model of several inputs a
            tuple: the images, then tensors with one entry an image.
        target
            The class to explain: None for the predicted one, a number for all images, one number
            for each (``ds["label"]``), or a function that takes the model's output and returns
            (sample,) scores. It gets the tensor of scores where the output holds one, else the
            whole output, a dict or list; see ``segmentation_target`` and its kin.

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
        forward = Forward.of(self.model, x, len(images))
        kept: dict[str, Tensor] = {}
        with _hooked(self.model, self.layers, kept) as shape, undisturbed(self.model):
            output = forward(images)
            with torch.enable_grad():
                scorer = Scorer(target, output, len(images))
                score = scorer(output)
            gradients = _gradients(score, {name: kept.get(name) for name in self.layers})
        layouts = {
            name: self._layout(name, kept[name], shape[-2:], len(images)) for name in self.layers
        }
        result = ProbeResult(
            x=images,
            output=scorer.output,
            score=score.detach(),
            target=scorer.target,
            activations={k: self._maps(layouts[k], kept[k].detach()) for k in self.layers},
            gradients={k: self._maps(layouts[k], gradients[k]) for k in self.layers},
            _probe=self,
            _scorer=scorer,
            _forward=forward,
            _layouts=layouts,
        )
        _refuse_zeros(result.gradients, layouts)
        return result

    def _layout(self, name: str, output: Tensor, image: Sequence[int], n: int) -> OutputLayout:
        if self._reshape is not None:
            return OutputLayout("told", (0, 0), told=self._reshape)
        layout = layout_of(self.model, name, output, image, n)
        if math.prod(layout.grid) <= 1:
            shape = tuple(output.shape)
            raise ValueError(f"layer {name!r} gives {shape}: one position is no spatial output")
        return layout

    def _maps(self, layout: OutputLayout, value: Tensor) -> Tensor:
        maps = layout.to_maps(value)
        if maps.ndim not in (4, 5):
            raise ValueError(f"reshape gives {tuple(maps.shape)}, not (sample, channel, y, x)")
        return maps


@contextmanager
def _hooked(
    model: nn.Module, layers: dict[str, nn.Module], kept: dict[str, Tensor]
) -> Iterator[list[int]]:
    """Keep the layers' outputs, and the shape of the images as they reach the first layer."""
    shape: list[int] = []

    def see(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        shape[:] = inputs[0].shape

    with ExitStack() as stack:
        # The last hook to be registered comes after a preset's, which resizes the images.
        stack.callback(model.register_forward_pre_hook(see).remove)
        for name, module in layers.items():
            stack.callback(module.register_forward_hook(partial(_keep, kept, name)).remove)
        yield shape


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


def _refuse_zeros(gradients: dict[str, Tensor], layouts: dict[str, OutputLayout]) -> None:
    """A map of nothing but zeros would look like an answer."""
    for name, gradient in gradients.items():
        if gradient.any():
            continue
        hint = ""
        if layouts[name].kind == "tokens":
            hint = (
                ": after the last attention only the class token is read; take the last "
                "block's first normalisation, such as blocks.11.norm1"
            )
        raise ValueError(f"the score does not depend on what layer {name!r} shows{hint}")
