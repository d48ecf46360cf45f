"""The formulas that turn a layer's activations and gradients into a map.

Every function takes activations A and gradients dS/dA of the score S, both (sample, channel, y, x),
and returns the signed map (sample, y, x): the ReLU with which most papers end is the caller's.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their mean gradient (Selvaraju et al. 2017, arXiv:1610.02391, Eq. 1-2).

    Examples
    --------
    >>> gradcam(torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2)).unique()
    tensor([2.])
    """
    return _weighted(gradients.mean((2, 3)), activations)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063), computed in double precision.

    The paper takes Y = exp(S), so that, in a network that is piecewise linear, the n-th derivative
    of Y is exp(S) g^n with g = dS/dA. Its Eq. 19 is then alpha = g² / (2 g² + sum(A) g³), which we
    write as 1 / (2 + sum(A) g): the same number where g ≠ 0, without the underflow of g² and
    without an epsilon; alpha is 0 where g is 0. The weight of a channel is sum(alpha ReLU(dY/dA)),
    whose factor exp(S) is left out: it is positive, scales a whole map, and overflows.
    """
    a, g = activations.double(), gradients.double()
    below = 2 + a.sum((2, 3), keepdim=True) * g
    alpha = torch.where((g != 0) & (below != 0), 1 / below, 0)
    return _weighted((alpha * g.relu()).sum((2, 3)), a).to(activations.dtype)


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Gradient times activation at every place (Draelos and Carin 2020, arXiv:2011.08891, Eq. 2).

    For a layer that only pooling and one linear layer follow, it equals Grad-CAM.
    """
    return (gradients * activations).sum(1)


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Gradients averaged with the activations as weights (Fu et al. 2020, arXiv:2008.02312, Eq. 8).

    A channel whose activations sum to zero gets no weight.
    """
    total = activations.sum((2, 3))
    weights = (gradients * activations).sum((2, 3)) / torch.where(total == 0, 1, total)
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
    places = places.to(torch.promote_types(places.dtype, torch.float32))  # no SVD in half precision
    u, s, _ = torch.linalg.svd(places, full_matrices=False)
    projected = u[:, :, 0] * s[:, :1]
    norm = places.norm(dim=2)
    side = (projected * (norm - norm.mean(1, keepdim=True))).sum(1, keepdim=True)
    side = torch.where(side == 0, projected.sum(1, keepdim=True), side)
    signed = torch.where(side < 0, -projected, projected)
    return signed.reshape(-1, *activations.shape[2:]).to(activations.dtype)


def _weighted(weights: Tensor, activations: Tensor) -> Tensor:
    return torch.einsum("nk,nkyx->nyx", weights, activations)


#: Name to formula.
FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "eigencam": eigencam,
}
