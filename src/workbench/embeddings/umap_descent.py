"""UMAP's stochastic gradient descent, compiled once and kept (imports numba: load it late).

Parallel, and the same bit for bit with one seed for any number of threads: samples are owned by
threads and see one another where they were before the epoch.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from workbench._extras import need
from workbench._machine import processors

numba: Any = need("numba", extra="embeddings")
# The gradients depend on the squared distance alone. They are tabulated by its floating-point
# bits, 256 steps an octave from 6e-8 to 1e6; what lies outside takes the last step.
_SHIFT = np.int32(15)
_FIRST = np.int32((127 - 24) << 8)
_SLOTS = np.int32(44 << 8)
#: Below this many samples, handing work to threads costs more than the work.
_FEW = 4000


def gradient_tables(a: float, b: float, repulsion: float) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the difference vector for attraction and repulsion, by squared distance.

    With ``q = 1 / (1 + a d^2b)`` the derivatives of ``log q`` and ``log(1 - q)`` (McInnes, Healy
    and Melville 2018, appendix C), 0.001 added to the second's squared distance. Within a step
    they vary by less than 0.4 %, far less than the noise of sampling.
    """
    bits = ((np.arange(_SLOTS, dtype=np.int32) + _FIRST) << _SHIFT) + (1 << (_SHIFT - 1))
    squared = bits.astype(np.int32).view(np.float32).astype(np.float64)
    power = a * squared**b
    pull = -2 * b * power / (squared * (1 + power))
    push = 2 * repulsion * b / ((0.001 + squared) * (1 + power))
    return pull.astype(np.float32), push.astype(np.float32)


def _slot(squared: Any) -> Any:
    bits = np.float32(squared).view(np.int32)
    return min(max((bits >> _SHIFT) - _FIRST, np.int32(0)), _SLOTS - np.int32(1))


def _mixed(number: Any) -> Any:
    """A random number for a counter (SplitMix64; Steele, Lea and Flood 2014, figure 17)."""
    number += np.uint64(0x9E3779B97F4A7C15)
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


_slot = numba.njit(_slot, inline="always")
_mixed = numba.njit(_mixed, inline="always")


def _sweep(
    first: Any,
    last: Any,
    before: Any,
    after: Any,
    reference: Any,
    edges: Any,
    end: Any,
    every: Any,
    due: Any,
    epoch: Any,
    alpha: Any,
    negatives: Any,
    pull: Any,
    push: Any,
    seed: Any,
    both: Any,
    turned: Any,
    deep: Any,
) -> None:
    """Move the samples from `first` to `last` through one epoch, from `before` to `after`.

    Every edge of a sample that is due draws it towards the edge's end, then pushes it away from
    `negatives` random rows of `reference`. If `both`, the graph is symmetric and its ends move
    too: the mirrored edge, due in the same epoch, draws once more, towards where the first move
    took the end. All others are seen where they were `before`, and the random numbers count
    samples and epochs, so that a sample's move depends on no other's of the epoch. If `turned`,
    each sample begins at a random one of its edges: what moves a sample last weighs most in what
    the others see, and the same edge each time would tear groups apart. `deep` is None on a plane
    (the compiler then leaves the third axis out), and True in space.
    """
    limit = np.float32(4)
    rows = np.uint64(len(reference))
    for i in range(first, last):
        x = before[i, 0]
        y = before[i, 1]
        if deep is not None:
            z = before[i, 2]
        state = _mixed(seed + np.uint64(epoch) * np.uint64(len(before)) + np.uint64(i))
        state |= np.uint64(1)
        count = edges[i + 1] - edges[i]
        turn = np.int64(0)
        if turned:
            turn = np.int64(((state >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32))
        for step in range(count):
            edge = edges[i] + (step + turn if step + turn < count else step + turn - count)
            if due[edge] > epoch:
                continue
            due[edge] += every[edge]
            u = reference[end[edge], 0]
            v = reference[end[edge], 1]
            if deep is not None:
                w = reference[end[edge], 2]
            for _ in range(2 if both else 1):
                dx = x - u
                dy = y - v
                squared = dx * dx + dy * dy
                if deep is not None:
                    dz = z - w
                    squared += dz * dz
                force = pull[_slot(squared)]
                dx = alpha * min(limit, max(-limit, force * dx))
                dy = alpha * min(limit, max(-limit, force * dy))
                x += dx
                y += dy
                u -= dx
                v -= dy
                if deep is not None:
                    dz = alpha * min(limit, max(-limit, force * dz))
                    z += dz
                    w -= dz
            away_x = np.float32(0)
            away_y = np.float32(0)
            away_z = np.float32(0)
            for _ in range(negatives):
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                other = ((state >> np.uint64(32)) * rows) >> np.uint64(32)
                if both and other == i:
                    continue
                dx = x - reference[other, 0]
                dy = y - reference[other, 1]
                squared = dx * dx + dy * dy
                if deep is not None:
                    dz = z - reference[other, 2]
                    squared += dz * dz
                force = push[_slot(squared)]
                away_x += min(limit, max(-limit, force * dx))
                away_y += min(limit, max(-limit, force * dy))
                if deep is not None:
                    away_z += min(limit, max(-limit, force * dz))
            x += alpha * away_x
            y += alpha * away_y
            if deep is not None:
                z += alpha * away_z
        after[i, 0] = x
        after[i, 1] = y
        if deep is not None:
            after[i, 2] = z


# Without fastmath, which gains nothing here: the same bytes from every compiler and thread count.
_sweep = numba.njit(_sweep, nogil=True, cache=True, error_model="numpy")


def descend(
    points: np.ndarray,
    reference: np.ndarray | None,
    edges: Any,
    *,
    curve: tuple[float, float],
    seed: int,
    epochs: int,
    rate: float = 1.0,
    negatives: int = 5,
    repulsion: float = 1.0,
) -> np.ndarray:
    """Optimise a layout: float32, of the shape of `points`, the same for any number of threads.

    `points` (sample, 2 or 3) is where to start. They attract and repel one another, or if
    `reference` is given, are drawn and pushed by its fixed points. `edges` are scipy sparse
    (sample of `points`, sample of `reference`) membership strengths, `curve` the ``a`` and ``b``
    of ``1 / (1 + a d^2b)``; `epochs`, `rate`, `negatives` and `repulsion` are UMAP's
    ``n_epochs``, ``learning_rate``, ``negative_sample_rate`` and ``repulsion_strength``.
    """
    edges = edges.tocsr()
    strongest = edges.data.max(initial=0)
    edges.data[edges.data < strongest / max(epochs, 1)] = 0  # weaker ones would never be due
    edges.eliminate_zeros()
    every = (strongest / edges.data).astype(np.float32)
    due = every.copy()
    before = np.array(points, dtype=np.float32, order="C")
    after = before.copy()
    fixed = None if reference is None else np.ascontiguousarray(reference, dtype=np.float32)
    pull, push = gradient_tables(*curve, repulsion)
    state = np.random.default_rng(seed).integers(1, 2**63, dtype=np.uint64)
    threads = processors() if len(before) >= _FEW else 1
    # Each thread has as many edges, not as many samples.
    cuts = np.searchsorted(edges.indptr, np.linspace(0, edges.nnz, threads + 1)).tolist()
    spans = list(pairwise([0, *cuts[1:-1], len(before)]))
    with ThreadPoolExecutor(threads, "descent") as pool:
        for epoch in range(epochs):
            seen = before if fixed is None else fixed
            alpha = np.float32(rate * (1 - epoch / epochs))
            moves = [
                pool.submit(
                    _sweep,
                    *span,
                    before,
                    after,
                    seen,
                    edges.indptr,
                    edges.indices,
                    every,
                    due,
                    epoch,
                    alpha,
                    negatives,
                    pull,
                    push,
                    state,
                    fixed is None,
                    epoch < 0.9 * epochs,
                    True if before.shape[1] == 3 else None,
                )
                for span in spans
            ]
            for move in moves:
                move.result()
            before, after = after, before
    return before
