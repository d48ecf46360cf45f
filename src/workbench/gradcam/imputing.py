"""Take pixels away so that what is left gives no hint of where they were."""

import torch
from torch import Tensor
from torch.nn import functional as F

#: ROAD's weights of a pixel's neighbours: 1/6 beside it, 1/12 at its corners.
_WEIGHTS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))


def impute(x: Tensor, keep: Tensor, tolerance: float = 1e-4, most: int = 2000) -> Tensor:
    """Replace pixels by the weighted mean of their neighbours, replaced ones among them.

    The noisy linear imputation of ROAD (Rong et al. 2022, arXiv:2202.00449, Eq. 5), without the
    noise. One linear system for each image, symmetric and positive definite, solved for the whole
    batch at once by conjugate gradients on the images' device.

    Parameters
    ----------
    x
        Images (sample, channel, y, x).
    keep
        (sample, y, x) bool: which pixels stay. An image that loses all of them becomes its mean.
    tolerance
        Where the residual falls below this share of the first one, the solution is taken.
    most
        Steps after which it is taken anyway.

    Examples
    --------
    >>> x = torch.arange(5.0).expand(1, 1, 5, 5).clone()
    >>> keep = torch.ones(1, 5, 5, dtype=torch.bool)
    >>> keep[0, 2, 2], x[0, 0, 2, 2] = False, 99.0
    >>> round(impute(x, keep)[0, 0, 2, 2].item(), 3)
    2.0
    """
    gone = (~keep)[:, None].to(x)
    weights = torch.tensor(_WEIGHTS, dtype=x.dtype, device=x.device)[None, None]
    # At the edges fewer neighbours share the weight.
    degree = _around(torch.ones_like(x[:1, :1]), weights)

    def residue(values: Tensor) -> Tensor:
        return gone * (degree * values - _around(values, weights))

    start = torch.where(gone > 0, x.mean((2, 3), keepdim=True), x)
    found = start.clone()
    r = -residue(found)
    direction, size = r.clone(), _dot(r, r)
    enough = tolerance**2 * size
    for _ in range(most):
        if (size <= enough).all():
            break
        step = residue(direction)
        rate = size / _dot(direction, step).clamp(min=torch.finfo(x.dtype).tiny)
        rate = torch.where(size <= enough, 0, rate)
        found += rate * direction
        r -= rate * step
        before, size = size, _dot(r, r)
        direction = r + size / before.clamp(min=torch.finfo(x.dtype).tiny) * direction
    return torch.where(keep.any(2).any(1)[:, None, None, None], found, start)


def _around(values: Tensor, weights: Tensor) -> Tensor:
    n, channels, height, width = values.shape
    flat = values.reshape(n * channels, 1, height, width)
    return F.conv2d(flat, weights, padding=1).reshape(values.shape)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """One number for each image and channel, each of which is a system of its own."""
    return (a * b).sum((2, 3), keepdim=True)
