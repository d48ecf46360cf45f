"""UMAP's stochastic gradient descent, compiled once and kept (imports numba: load it late)."""

from typing import Any

import numpy as np

from workbench._extras import need

numba: Any = need("numba", extra="embeddings")
# The gradients depend on the squared distance alone. They are tabulated by its floating-point
# bits, 256 steps an octave from 6e-8 to 1e6; what lies outside takes the last step.
_SHIFT = np.int32(15)
_FIRST = np.int32((127 - 24) << 8)
_SLOTS = np.int32(44 << 8)


def gradient_tables(a: float, b: float, repulsion: float) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the difference vector for attraction and repulsion, by squared distance.

    With ``q = 1 / (1 + a d^2b)`` they are the derivatives of ``log q`` and of
    ``log(1 - q)`` (McInnes, Healy and Melville 2018, section 3.2 and appendix C), the second
    with 0.001 added to the squared distance. With powers, the descent of 10,000 digits took 6 s
    of processor time, with look-ups 2.4. The middle of a step is off by less than 0.4% from its
    ends, far less than the noise of sampling.
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


_slot = numba.njit(_slot, inline="always")


def _descend(
    points: Any,
    reference: Any,
    start: Any,
    end: Any,
    every: Any,
    epochs: Any,
    rate: Any,
    negatives: Any,
    pull: Any,
    push: Any,
    state: Any,
    both: Any,
) -> None:
    """Move `points` in place.

    In each epoch every edge that is due draws ``start`` towards ``end`` (and ``end`` towards
    ``start`` if `both`), then pushes ``start`` away from `negatives` random rows of `reference`.
    Serial: the order of the moves, and so the result, is always the same.
    """
    limit = np.float32(4)
    rows = np.uint64(len(reference))
    due = every.copy()
    for epoch in range(epochs):
        alpha = rate * (np.float32(1) - np.float32(epoch) / np.float32(epochs))
        for edge in range(len(start)):
            if due[edge] > epoch:
                continue
            due[edge] += every[edge]
            i, j = start[edge], end[edge]
            x, y = points[i, 0], points[i, 1]
            dx, dy = x - reference[j, 0], y - reference[j, 1]
            force = pull[_slot(dx * dx + dy * dy)]
            dx = alpha * min(limit, max(-limit, force * dx))
            dy = alpha * min(limit, max(-limit, force * dy))
            x += dx
            y += dy
            if both:
                reference[j, 0] -= dx
                reference[j, 1] -= dy
            for _ in range(negatives):
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                other = ((state >> np.uint64(32)) * rows) >> np.uint64(32)
                if both and other == i:
                    continue
                dx, dy = x - reference[other, 0], y - reference[other, 1]
                force = push[_slot(dx * dx + dy * dy)]
                x += alpha * min(limit, max(-limit, force * dx))
                y += alpha * min(limit, max(-limit, force * dy))
            points[i, 0] = x
            points[i, 1] = y


_descend = numba.njit(_descend, fastmath=True, cache=True, error_model="numpy")


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
    """Optimise a layout.

    Parameters
    ----------
    points
        float (sample, 2): where to start; not changed.
    reference
        float (sample, 2): the fixed points of an earlier map that attract and repel, or None if
        `points` attract and repel one another.
    edges
        scipy sparse (sample of `points`, sample of `reference`): membership strengths.
    curve
        ``a`` and ``b`` of ``1 / (1 + a d^2b)``.
    seed
        Fixes the samples pushed away from; the same input gives the same map bit for bit.
    epochs, rate, negatives, repulsion
        UMAP's ``n_epochs``, ``learning_rate``, ``negative_sample_rate``, ``repulsion_strength``.

    Returns
    -------
    numpy.ndarray
        float32 (sample, 2).
    """
    # Grouped by their ends, so that the moves of one start are spread over the epoch.
    edges = edges.tocsc().tocoo()
    strongest = edges.data.max(initial=0)
    kept = edges.data >= strongest / max(epochs, 1)  # weaker ones would never be due
    moving = np.array(points, dtype=np.float32, order="C")
    fixed = moving if reference is None else np.ascontiguousarray(reference, dtype=np.float32)
    pull, push = gradient_tables(*curve, repulsion)
    state = np.random.default_rng(seed).integers(1, 2**63, dtype=np.uint64)
    _descend(
        moving,
        fixed,
        edges.row[kept].astype(np.int32),
        edges.col[kept].astype(np.int32),
        (strongest / edges.data[kept]).astype(np.float32),
        epochs,
        np.float32(rate),
        negatives,
        pull,
        push,
        np.uint64(state),
        reference is None,
    )
    return moving
