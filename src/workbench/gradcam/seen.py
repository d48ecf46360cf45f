"""What a probe saw of a batch, and the maps that are made from it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from workbench.gradcam.ablation import ablation_drops
from workbench.gradcam.layers import Layout
from workbench.gradcam.maps import FORMULAS
from workbench.gradcam.pixels import PIXELS
from workbench.gradcam.targets import Scorer

if TYPE_CHECKING:
    from workbench.gradcam.probe import Probe

#: Methods that make a map of a layer, and methods that make a map of the input's pixels.
LAYER_METHODS = (*FORMULAS, "ablationcam")
PIXEL_METHODS = (*PIXELS, "guided_gradcam")
METHODS = (*LAYER_METHODS, *PIXEL_METHODS)


@dataclass(frozen=True)
class Seen:
    """Activations, gradients and scores of one batch, outside any graph, on the model's device.

    Attributes
    ----------
    x
        The images (sample, channel, y, x).
    output
        What the model made of them, usually logits (sample, class).
    score
        (sample,): the number that the maps explain.
    target
        (sample,): the class explained; None where a function made the score.
    activations, gradients
        Layer to (sample, channel, y, x), at the layer's own resolution.
    """

    x: Tensor
    output: Tensor
    score: Tensor
    target: Tensor | None
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    _probe: "Probe" = field(repr=False)
    _scorer: Scorer = field(repr=False)
    _layouts: dict[str, Layout] = field(repr=False)

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the output, (sample, class)."""
        return self.output.softmax(1)

    def predictions(self, classes: Sequence[str] | None = None, k: int = 2) -> list[str]:
        """The `k` likeliest classes of each image with their probabilities, as text."""
        found = self.probabilities.topk(min(k, self.output.shape[1]))
        return [
            " · ".join(
                f"{classes[c] if classes else c} {p:.0%}" for c, p in zip(cs, ps, strict=True)
            )
            for cs, ps in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]

    def map(
        self,
        method: str = "gradcam",
        layer: str | None = None,
        *,
        signed: bool = False,
        size: int | tuple[int, int] | None = None,
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
            found = found if signed else found.relu()
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
        model = self._probe.model
        if method == "guided_gradcam":
            cam = self.map("gradcam", layer, size=(self.x.shape[-2], self.x.shape[-1]))
            return PIXELS["guided_backprop"](model, self.x, self._scorer, **options) * cam[:, None]
        if method not in PIXELS:
            known = ", ".join(PIXEL_METHODS)
            raise ValueError(f"there is no pixel method {method!r}; there is {known}")
        return PIXELS[method](model, self.x, self._scorer, **options)

    def ablation_drops(self, layer: str | None = None, **options: Any) -> Tensor:
        """By how much the score falls without each channel of a layer, (sample, channel)."""
        self._open("ablationcam", options)
        name = self._probed(layer)
        layout = self._layouts[name]
        if layout.kind == "told":
            raise ValueError("ablation writes into the layer, which needs more than `reshape`")
        module = self._probe.layers[name]
        return ablation_drops(
            self._probe.model, module, layout, self.x, self.activations[name], self._scorer,
            **options,
        )  # fmt: skip

    def _layer_map(self, method: str, layer: str, options: dict[str, Any]) -> Tensor:
        a = self.activations[layer]
        if method != "ablationcam":
            return FORMULAS[method](a, self.gradients[layer], **options)
        drops = self.ablation_drops(layer, **options)
        height = self.score.abs()[:, None]
        weights = drops / height.where(height > 0, 1)
        return (weights[:, :, None, None] * a).sum(1)

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


def resize(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resample maps (sample, y, x) bilinearly; pixel centres, not corners, are aligned.

    Examples
    --------
    >>> import torch
    >>> resize(torch.eye(2)[None], 4).shape
    torch.Size([1, 4, 4])
    """
    to = (size, size) if isinstance(size, int) else tuple(size)
    return F.interpolate(maps[:, None], size=to, mode="bilinear", align_corners=False)[:, 0]
