"""Attribution to the input's pixels: gradients, guided backpropagation, occlusion.

Each takes the network with its other inputs, images (sample, channel, y, x) and a scorer, and
returns signed values (sample, channel, y, x).
"""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from workbench.gradcam.forward import Forward, Scorer, differentiable, undisturbed

_RELU = {F.relu, torch.relu, Tensor.relu}
_RELU_IN_PLACE = {torch.relu_, Tensor.relu_, F.relu_}
_RELU6 = {F.relu6}


def gradient(forward: Forward, x: Tensor, scorer: Scorer) -> Tensor:
    """The score's gradient by the pixels (Simonyan et al. 2014, arXiv:1312.6034)."""
    return _pixel_gradient(forward, x, scorer)


def smoothgrad(
    forward: Forward,
    x: Tensor,
    scorer: Scorer,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> Tensor:
    """The gradient averaged over noisy copies (Smilkov et al. 2017, arXiv:1706.03825, Eq. 1).

    `noise` is the deviation of the Gaussian noise as a share of each image's range of values.
    """
    rng = torch.Generator().manual_seed(seed)
    flat = x.flatten(1)
    spread = noise * (flat.amax(1) - flat.amin(1)).view(-1, *[1] * (x.ndim - 1))
    total = torch.zeros_like(x)
    for _ in range(samples):
        # The same noise for all images, so that none depends on the batch around it.
        disturbed = torch.randn(x.shape[1:], generator=rng).to(x)
        total += _pixel_gradient(forward, x + spread * disturbed, scorer)
    return total / samples


def integrated_gradients(
    forward: Forward, x: Tensor, scorer: Scorer, *, steps: int = 32, baseline: float | Tensor = 0.0
) -> Tensor:
    """The gradient integrated from a baseline to the image (Sundararajan et al. 2017, Eq. 1).

    arXiv:1703.01365; by the midpoint rule in `steps` steps. The values of an image add up to the
    difference of the two scores, as nearly as the rule integrates.
    """
    way = x - baseline
    total = torch.zeros_like(x)
    for step in range(steps):
        total += _pixel_gradient(forward, baseline + (step + 0.5) / steps * way, scorer)
    return way * total / steps


def guided_backprop(forward: Forward, x: Tensor, scorer: Scorer) -> Tensor:
    """Guided backpropagation (Springenberg et al. 2015, arXiv:1412.6806, section 3.4).

    On the way back every ReLU, whether a module or a function, also stops what is negative.

    Raises
    ------
    ValueError
        The network has no ReLU, and the method would be the plain gradient under another name.
    """
    mode = GuidedReLUs()
    found = _pixel_gradient(forward, x, scorer, mode)
    if not mode.met:
        raise ValueError(
            "guided backpropagation changes how ReLUs pass gradients back, and this "
            "network has none: take 'gradient' or 'smoothgrad'"
        )
    return found


def occlusion(
    forward: Forward,
    x: Tensor,
    scorer: Scorer,
    *,
    window: int | None = None,
    stride: int | None = None,
    fill: float | None = None,
    batch_size: int = 64,
) -> Tensor:
    """By how much the score falls when a window is covered (Zeiler and Fergus 2014, section 4.2).

    arXiv:1311.2901. The window is by default a fifth of the image's shorter side, moved by half
    of itself and filled with the image's mean colour; a pixel gets the mean of the windows that
    cover it.

    Returns
    -------
    torch.Tensor
        (sample, 1, y, x).
    """
    if x.ndim != 4:
        raise ValueError(f"occlusion covers windows of images, not of {tuple(x.shape)}")
    height, width = x.shape[2:]
    window = window or max(1, min(height, width) // 5)
    step = stride or max(1, window // 2)
    corners = list(product(_starts(height, window, step), _starts(width, window, step)))
    masks = x.new_zeros(len(corners), 1, height, width)
    for mask, (top, left) in zip(masks, corners, strict=True):
        mask[:, top : top + window, left : left + window] = 1
    colour = (
        x.mean((2, 3), keepdim=True) if fill is None else torch.full_like(x[:, :, :1, :1], fill)
    )
    drops = x.new_zeros(len(x), len(corners))
    with undisturbed(forward.model):
        for i in range(len(x)):
            alone = forward.part(slice(i, i + 1))
            whole = scorer.of_sample(i, alone(x[i : i + 1]), 1)
            covered = [
                scorer.of_sample(i, alone(x[i] * (1 - part) + colour[i] * part), len(part))
                for part in torch.split(masks, batch_size)
            ]
            drops[i] = whole - torch.cat(covered)
    return torch.einsum("nm,mcyx->ncyx", drops, masks) / masks.sum(0).clamp(min=1)


def _starts(length: int, window: int, step: int) -> list[int]:
    """Where windows begin so that they cover everything, the last one flush with the end."""
    end = max(0, length - window)
    return sorted({*range(0, end, step), end})


def _pixel_gradient(forward: Forward, x: Tensor, scorer: Scorer, mode: Any = None) -> Tensor:
    if not differentiable(forward.model):
        raise ValueError("this network, quantised or a program, has no gradients: take 'occlusion'")
    with undisturbed(forward.model), torch.enable_grad(), mode or nullcontext():
        pixels = x.detach().clone().requires_grad_()
        score = scorer(forward(pixels))
        if not score.requires_grad:
            raise ValueError("the score does not depend on the image")
        return torch.autograd.grad(score.sum(), pixels)[0]


class GuidedReLUs(TorchFunctionMode):
    """While this is entered, every ReLU passes back only what is positive.

    It stands in front of torch's functions, which modules call too, so that nothing is hooked or
    replaced in the model, and in-place ReLUs are as good as others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = dict(kwargs or {})
        clipped = func is F.hardtanh and options.get("min_val") == 0  # nn.ReLU6, from 0 to 6
        if not clipped and func not in _RELU | _RELU_IN_PLACE | _RELU6:
            return func(*args, **options)
        self.met += 1
        x = args[0] if args else options["input"]
        in_place = func in _RELU_IN_PLACE or options.get("inplace", len(args) > 1 and args[1])
        most = options["max_val"] if clipped else 6.0 if func in _RELU6 else None
        guided: Tensor = _GuidedReLU.apply(x, most)  # type: ignore[no-untyped-call]
        return x.copy_(guided) if in_place else guided


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float | None) -> Tensor:
        ctx.save_for_backward((x > 0) if most is None else (x > 0) & (x < most))
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (passes,) = ctx.saved_tensors
        return gradient.relu() * passes, None


#: Name to method.
PIXELS: dict[str, Callable[..., Tensor]] = {
    "gradient": gradient,
    "smoothgrad": smoothgrad,
    "integrated_gradients": integrated_gradients,
    "guided_backprop": guided_backprop,
    "occlusion": occlusion,
}
