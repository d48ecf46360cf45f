"""Kernel regression with the neural tangent kernel of a network with one hidden layer."""

import math

import torch
from torch import Tensor
from tqdm import tqdm

#: Variance of the weights, times the inputs of a layer, and of the biases.
WEIGHT, BIAS = 2.0, 0.01
#: Added to the diagonal, as a share of its mean.
RIDGE = 1e-6


def ntk(x: Tensor, z: Tensor) -> Tensor:
    """Neural tangent kernel of an infinitely wide ReLU network with one hidden layer (FC1).

    In closed form by the arc-cosine kernels (Jacot et al. 2018, arXiv:1806.07572, Theorem 1; Cho
    and Saul 2009, Eq. 6).

    Parameters
    ----------
    x, z
        (n, feature) and (m, feature), of one floating-point type.

    Returns
    -------
    torch.Tensor
        (n, m), with gradients for both.
    """
    scale = WEIGHT / x.shape[1]
    dot = scale * (x @ z.T) + BIAS
    lengths = [(scale * v.square().sum(1) + BIAS).sqrt() for v in (x, z)]
    product = lengths[0][:, None] * lengths[1]
    # at 1 the angle has no derivative; clamped, a vector with itself gets none, which is right
    edge = 1 - 4 * torch.finfo(x.dtype).eps
    cosine = (dot / product).clamp(-edge, edge)
    angle = math.pi - cosine.acos()
    slopes = angle / (2 * math.pi)
    outputs = product * ((1 - cosine.square()).sqrt() + angle * cosine) / (2 * math.pi)
    return WEIGHT * (outputs + dot * slopes) + BIAS


def with_ridge(gram: Tensor) -> Tensor:
    """The matrix with a little more on its diagonal, so that it can be inverted."""
    return gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype).to(gram)


def solve_labels(x: Tensor, y: Tensor, support: Tensor, chunk: int = 5_000) -> Tensor:
    """Label solve: the labels of `support` whose kernel regression fits `y` at `x` best.

    The least-squares solution (Nguyen, Chen and Lee 2021, arXiv:2011.00050, Eq. 8).
    """
    support = support.double()
    gram, right = torch.zeros(()).to(support), torch.zeros(()).to(support)
    for some, wanted in zip(torch.split(x, chunk), torch.split(y, chunk), strict=True):
        k = ntk(some.double(), support)
        gram, right = gram + k.T @ k, right + k.T @ wanted.double()
    weights: Tensor = torch.linalg.lstsq(gram.cpu(), right.cpu(), driver="gelsd").solution
    return with_ridge(ntk(support, support)) @ weights.to(support)


def regress(x: Tensor, support: Tensor, labels: Tensor, chunk: int = 5_000) -> Tensor:
    """Kernel ridge regression on `support`, asked at `x`."""
    support = support.double()
    weights = torch.linalg.solve(with_ridge(ntk(support, support)), labels.double())
    return torch.cat([ntk(some.double(), support) @ weights for some in torch.split(x, chunk)])


def inducing_points(
    x: Tensor, y: Tensor, start: Tensor, steps: int, seed: int, progress: bool
) -> Tensor:
    """KIP: move the images of `start` until regression on them fits `y` at `x` (arXiv:2011.00050).

    For every batch the labels are solved for, so that only the images are to be learnt.
    """
    points = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([points], lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    rng = torch.Generator().manual_seed(seed)
    size = min(len(x), max(2_000, 4 * len(points)))
    for _ in tqdm(range(steps), desc="distil", unit="step", disable=not progress):
        batch = torch.randint(len(x), (size,), generator=rng).to(x.device)
        k, wanted = ntk(x[batch], points), y[batch]
        with torch.no_grad():
            weights = torch.linalg.solve(with_ridge(k.T @ k), k.T @ wanted)
        loss = (k @ weights - wanted).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return points.detach()
