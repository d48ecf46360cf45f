"""Parametric UMAP: a network that learns UMAP's map, and so places what it has never seen."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from workbench.embeddings import umap_layout
from workbench.embeddings.layout import Layout
from workbench.embeddings.neighbors import arrays, checked
from workbench.embeddings.umap_layout import umap_graph


def parametric_umap(
    features: xr.DataArray,
    graph: xr.Dataset | None,
    seed: int,
    *,
    components: int = 2,
    n_neighbors: int | None = None,
    min_dist: float = 0.1,
    spread: float = 1.0,
    hidden: tuple[int, ...] = (256, 256),
    steps: int | None = None,
    batch_size: int = 1024,
    learning_rate: float = 2e-3,
    negative_sample_rate: int = 5,
    device: str | None = None,
    progress: bool = True,
) -> Layout:
    """Train an encoder on UMAP's graph (Sainburg, McInnes and Gentner 2021, arXiv:2009.12981).

    Edges are drawn in proportion to their strength, each fifty times, in 300 to 3,000 steps
    unless `steps` says how many. With few samples the encoder generalises less well. On a
    processor the map repeats bit for bit, on a GPU nearly.
    """
    values = checked(features).astype(np.float32)
    graph, used = umap_graph(features, graph, n_neighbors)
    edges = umap_layout.fuzzy_graph(*arrays(graph, used)).tocoo()
    batch_size = min(batch_size, edges.nnz)
    steps = steps or min(3000, max(300, 50 * edges.nnz // batch_size))
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = _encoder(values.shape[1], hidden, components)
        encoder[0].load_state_dict(_scale(values))
        encoder.to(where)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    table, curve = torch.from_numpy(values).to(where), umap_layout.curve(min_dist, spread)
    draws = _draws(edges, batch_size, negative_sample_rate, seed)
    for _ in tqdm(range(steps), desc="parametric UMAP", unit="step", disable=not progress):
        ends, shuffled = next(draws)
        near, far = encoder(table[ends]).chunk(2)
        loss = cross_entropy(near, far, shuffled, *curve)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()

    weights = {name: weight.cpu().numpy() for name, weight in encoder.state_dict().items()}
    settings = {"width": values.shape[1], "hidden": list(hidden), "components": components}
    return Layout(_encode(encoder, values, where), weights, settings)


def parametric_umap_place(layout: Layout, new: np.ndarray) -> np.ndarray:
    """What the network makes of other rows, on the processor."""
    settings = layout.settings
    encoder = _encoder(settings["width"], settings["hidden"], settings["components"])
    weights = {name: torch.from_numpy(weight) for name, weight in layout.arrays.items()}
    encoder.load_state_dict(weights)
    return _encode(encoder, new, torch.device("cpu"))


def _draws(
    edges: Any, batch_size: int, negatives: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endlessly: both ends of edges drawn in proportion to their strength, and permutations."""
    rng = np.random.default_rng(seed)
    cumulated = np.cumsum(edges.data)
    while True:
        drawn = np.searchsorted(cumulated, rng.uniform(0, cumulated[-1], batch_size))
        drawn = np.minimum(drawn, len(cumulated) - 1)
        ends = np.concatenate([edges.row[drawn], edges.col[drawn]]).astype(np.int64)
        shuffled = np.stack([rng.permutation(batch_size) for _ in range(negatives)])
        yield torch.from_numpy(ends), torch.from_numpy(shuffled)


def cross_entropy(near: Tensor, far: Tensor, shuffled: Tensor, a: float, b: float) -> Tensor:
    """UMAP's loss for edges between `near` and `far`.

    Each ``near`` is drawn to its ``far`` and pushed from the ``far`` ends of other edges, one
    for each row of `shuffled`: ``-log q - sum log(1 - q)``, ``q = 1 / (1 + a d^2b)`` (equation
    9 of the paper, with the samples instead of the sum over all pairs).
    """
    drawn = _log_power(near, far, a, b)
    pushed = _log_power(near[None], far[shuffled], a, b)
    # -log q = log(1 + e^z) and -log(1 - q) = log(1 + e^-z) for z = log(a d^2b): no overflow.
    return F.softplus(drawn).mean() + F.softplus(-pushed).sum(dim=0).mean()


def _log_power(one: Tensor, other: Tensor, a: float, b: float) -> Tensor:
    """The logarithm of ``a d^2b``; 0.001 as in UMAP keeps touching points from flying apart."""
    squared = (one - other).square().sum(dim=-1)
    return float(np.log(a)) + b * torch.log(squared + 1e-3)


def _encoder(width: int, hidden: Sequence[int], components: int) -> nn.Sequential:
    """Standardised input, then fully connected layers."""
    widths = [width, *hidden]
    layers: list[nn.Module] = [_Standardize(width)]
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], components))


class _Standardize(nn.Module):
    """Shift every feature by its mean and divide all by one scale: distances keep their order."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


def _scale(values: np.ndarray) -> dict[str, Tensor]:
    """What :class:`_Standardize` takes from the rows."""
    scale = float(values.std(axis=0).mean()) or 1.0
    return {"mean": torch.from_numpy(values.mean(axis=0)), "scale": torch.tensor(scale)}


@torch.no_grad()
def _encode(encoder: nn.Module, values: np.ndarray, device: torch.device) -> np.ndarray:
    table = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    parts = (table[start : start + 8192].to(device) for start in range(0, len(table), 8192))
    return np.concatenate([encoder(part).cpu().numpy() for part in parts])
