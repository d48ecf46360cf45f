"""Class activation maps of a layer: the formulas, and Ablation-CAM's replay of the network.

A formula takes activations A and gradients dS/dA of the score S, both (sample, channel, y, x) or
(sample, channel, t, y, x) and in single precision or better. It returns the signed map (sample, y,
x): the ReLU with which most papers end is the caller's.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from workbench.gradcam.forward import Forward, Scorer, undisturbed
from workbench.models.layers import OutputLayout


def ablation_drops(
    forward: Forward,
    layer: nn.Module,
    layout: OutputLayout,
    x: Tensor,
    activations: Tensor,
    scorer: Scorer,
    *,
    batch_size: int = 128,
    progress: bool = False,
) -> Tensor:
    """By how much each score falls when one channel of a layer is set to zero.

    Desai and Ramaswamy 2020 (WACV, "Ablation-CAM"). Their weight is (y - y_k) / y. Where the
    logit y is negative that would turn every sign: a channel that speaks for the class would
    count against it. ``ProbeResult.map`` divides by |y|, which is theirs wherever y is positive;
    this function returns the numerator.

    Parameters
    ----------
    forward, layer, layout
        The network with its other inputs, the layer and how its output holds the plane.
    x
        Images (sample, channel, y, x).
    activations
        The layer's output for them, (sample, channel, y, x).
    scorer
        Gives the score of an output.
    batch_size
        Ablated copies of one image that are replayed at a time.
    progress
        Show a bar.

    Returns
    -------
    torch.Tensor
        (sample, channel), y - y_k.

    Raises
    ------
    ValueError
        The layer runs more than once in a pass.
    RuntimeError
        The replay of what follows the layer does not give what the network gives.
    """
    drops = activations.new_zeros(activations.shape[:2])
    with undisturbed(forward.model), tqdm(total=len(x), unit="image", disable=not progress) as bar:
        for i, a in enumerate(activations):
            alone = forward.part(slice(i, i + 1))
            past = record(alone, layer, x[i : i + 1])
            replay = partial(_replay, alone, layer, layout, past)
            whole = scorer.of_sample(i, replay(a[None]), 1)[0]
            expected = scorer.of_sample(i, past.output, 1)[0]
            if not torch.isclose(whole, expected, rtol=1e-3, atol=1e-4):
                raise RuntimeError(
                    f"replayed, the network gives {whole:.6g}, not {expected:.6g}: "
                    "it does not do the same in every pass"
                )
            # Without a channel that is zero everywhere the score is what it was.
            alive = a.flatten(1).any(1).nonzero().flatten()
            for chosen in alive.split(batch_size):
                drops[i, chosen] = whole - scorer.of_sample(
                    i, replay(_without(a, chosen)), len(chosen)
                )
            bar.update()
    return drops


def _without(a: Tensor, channels: Tensor) -> Tensor:
    """Copies of one image's activations, each with one of the channels set to zero."""
    copies = a.expand(len(channels), *a.shape).clone()
    copies[torch.arange(len(channels), device=a.device), channels] = 0
    return copies


def _replay(
    forward: Forward, layer: nn.Module, layout: OutputLayout, past: "Past", maps: Tensor
) -> Any:
    # A copy: the network may go on in place.
    with replaying(past, layer, layout.to_output(maps, past.layer_output).clone()):
        return forward(past.x.expand(len(maps), *past.x.shape[1:]))


@dataclass
class _Call:
    """A module's output in one call, and whether the next module took it as it was."""

    number: int
    output: Tensor
    passed_on: bool = False


@dataclass
class Past:
    """What a network did with one image before a layer began."""

    x: Tensor
    output: Any
    layer_output: Tensor
    calls: dict[nn.Module, list[_Call]]


@dataclass
class _Recorder:
    """Keeps the outputs of the modules that are done when the layer begins.

    When a module is done, what its parts gave is forgotten, so that little is kept. An output is
    copied, for an in-place operation may follow.
    """

    layer: nn.Module
    calls: dict[nn.Module, list[_Call]] = field(default_factory=dict)
    begun: list[int] = field(default_factory=list)
    layer_outputs: list[Tensor] = field(default_factory=list)
    count: int = 0
    over: bool = False
    last: tuple[_Call, Tensor, int] | None = None

    def begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.last and not self.over and inputs and inputs[0] is self.last[1]:
            # Written into since, it is not what the module gave.
            self.last[0].passed_on = inputs[0]._version == self.last[2]
        self.over = self.over or module is self.layer
        self.begun.append(self.count)

    def end(self, module: nn.Module, _: Any, output: Any) -> None:
        since = self.begun.pop()
        if module is self.layer:
            self.layer_outputs.append(output.clone())
        if self.over or not isinstance(output, Tensor):
            return
        for part in module.modules():
            kept = [call for call in self.calls.get(part, []) if call.number < since]
            self.calls[part] = kept
        call = _Call(self.count, output.clone())
        self.calls[module].append(call)
        self.count += 1
        self.last = (call, output, output._version)


def record(forward: Forward, layer: nn.Module, x: Tensor) -> Past:
    """Run one image through the network and keep what is done when the layer begins."""
    recorder = _Recorder(layer)
    with ExitStack() as stack:
        for module in forward.model.modules():
            stack.callback(module.register_forward_pre_hook(recorder.begin).remove)
            stack.callback(module.register_forward_hook(recorder.end).remove)
        output = forward(x)
    if (times := len(recorder.layer_outputs)) != 1:
        raise ValueError(
            f"the layer runs {times} times in a pass; ablation needs one that runs once"
        )
    return Past(x, output, recorder.layer_outputs[0], recorder.calls)


@contextmanager
def replaying(past: Past, layer: nn.Module, output: Tensor) -> Iterator[None]:
    """Let the modules before the layer hand out what they gave, and the layer `output`."""
    with ExitStack() as stack:
        for module, calls in past.calls.items():
            if calls:
                stack.callback(_patch(module, [_copies(call, len(output)) for call in calls]))
        stack.callback(_patch(layer, [output]))
        yield


def _copies(call: _Call, n: int) -> Tensor:
    """`n` copies of one image's output; a view where the next module only hands it on."""
    copies = call.output.expand(n, *call.output.shape[1:])
    return copies if call.passed_on else copies.clone()


def _patch(module: nn.Module, outputs: list[Tensor]) -> Callable[[], None]:
    """Make a module give these outputs, call by call, then work as ever; return what undoes it."""
    own = module.__dict__.get("forward")
    forward = module.forward
    ready = deque(outputs)

    def give(*args: Any, **kwargs: Any) -> Any:
        return ready.popleft() if ready else forward(*args, **kwargs)

    def undo() -> None:
        if own is None:
            del module.forward
        else:
            module.forward = own

    module.forward = give
    return undo


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their mean gradient (Selvaraju et al. 2017, arXiv:1610.02391, Eq. 1-2).

    Examples
    --------
    >>> gradcam(torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2)).unique()
    tensor([2.])
    """
    return _weighted(gradients.flatten(2).mean(2), activations)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063), computed in double precision.

    The paper takes Y = exp(S), so that, in a network that is piecewise linear, the n-th derivative
    of Y is exp(S) g^n with g = dS/dA. Its Eq. 19 is then alpha = g² / (2 g² + sum(A) g³), which we
    write as 1 / (2 + sum(A) g): the same number where g ≠ 0, without the underflow of g² and
    without an epsilon; alpha is 0 where g is 0. The weight of a channel is sum(alpha ReLU(dY/dA)),
    whose factor exp(S) is left out: it is positive, scales a whole map, and overflows.
    """
    a = activations.double()
    g = gradients.double()
    below = 2 + a.sum(_places(a), keepdim=True) * g
    alpha = torch.where((g != 0) & (below != 0), 1 / below, 0)
    return _weighted((alpha * g.relu()).sum(_places(a)), a).to(activations.dtype)


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Gradient times activation at every place (Draelos and Carin 2020, arXiv:2011.08891, Eq. 2).

    For a layer that only pooling and one linear layer follow, it equals Grad-CAM.
    """
    return (gradients * activations).sum(1)


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Gradients averaged with the activations as weights (Fu et al. 2020, arXiv:2008.02312, Eq. 8).

    A channel whose activations sum to zero gets no weight.
    """
    total = activations.flatten(2).sum(2)
    weights = (gradients * activations).flatten(2).sum(2) / torch.where(total == 0, 1, total)
    return _weighted(torch.where(total == 0, 0, weights), activations)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Positive gradients as weights of every place (Jiang et al. 2021, IEEE TIP 30, Eq. 4-5)."""
    return (gradients.relu() * activations).sum(1)


def eigencam(activations: Tensor, gradients: Tensor | None = None) -> Tensor:  # noqa: ARG001
    """First principal direction of the activations (Muhammad and Yeasin 2020, arXiv:2008.00299).

    Not class-discriminative: no gradient enters, every target has the same map. The activations,
    (place, channel), are projected on their first right singular vector, from an economy SVD and
    not centred, as in the paper. The sign of a singular vector is arbitrary: we take the one for
    which the map correlates with the activations' norm at each place, or, where it is
    uncorrelated, has a positive sum.
    """
    places = activations.flatten(2).transpose(1, 2)
    u, s, _ = torch.linalg.svd(places, full_matrices=False)
    projected = u[:, :, 0] * s[:, :1]
    norm = places.norm(dim=2)
    side = (projected * (norm - norm.mean(1, keepdim=True))).sum(1, keepdim=True)
    side = torch.where(side == 0, projected.sum(1, keepdim=True), side)
    signed = torch.where(side < 0, -projected, projected)
    return signed.reshape(-1, *activations.shape[2:]).to(activations.dtype)


def _places(maps: Tensor) -> tuple[int, ...]:
    return tuple(range(2, maps.ndim))


def _weighted(weights: Tensor, activations: Tensor) -> Tensor:
    return torch.einsum("nk,nk...->n...", weights, activations)


#: Name to formula.
FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "eigencam": eigencam,
}
