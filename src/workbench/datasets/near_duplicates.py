"""Near-duplicates by a perceptual signature, in any of the eight orientations of an image."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workbench._extras import need

_SIDE = 32
_GREY = 8
_COLOUR = 4
_BLOCK = 1024
#: Cosine distance of two signatures from which on they are not compared further.
_WIDEST = 0.1
Matrix = NDArray[np.float32]


def signature(pixels: NDArray[np.uint8]) -> Matrix:
    """Low frequencies of an image (y, x, channel) in grey and colour, (96,), of length 1.

    8 x 8 coefficients of the discrete cosine transform of the grey image of 32 x 32 and 4 x 4 of
    each colour difference, doubled; each multiplied by its frequency, which evens out the spectrum
    of photographs, so that the mean, 0, drops out. All zeros for an image of one colour.
    """
    channels = pixels if pixels.shape[-1] == 3 else np.repeat(pixels[..., :1], 3, axis=-1)
    small = Image.fromarray(channels).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    bands = np.asarray(small.convert("YCbCr"), np.float32).transpose(2, 0, 1)
    waves = need("scipy.fft", "images").dctn(bands, axes=(1, 2), norm="ortho")
    frequency = np.hypot(*np.mgrid[:_GREY, :_GREY])
    parts = [waves[0, :_GREY, :_GREY] * frequency]
    parts += [2 * w[:_COLOUR, :_COLOUR] * frequency[:_COLOUR, :_COLOUR] for w in waves[1:]]
    joined = np.concatenate([part.ravel() for part in parts])
    length = float(np.linalg.norm(joined))
    # less than a grey level of contrast is noise
    return (joined / length if length > _SIDE else 0 * joined).astype(np.float32)


def near_pairs(
    signatures: Matrix, candidates: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.intp], float]:
    """Pairs of near-duplicates, positions (pair, 2), and the cosine distance that they are within.

    The distance is that of the best of the eight orientations. The widest distance of at most
    0.1 is taken at which, of the pairs found, chance explains at most one in a hundred; chance
    follows a power law of the distance, fitted to wider ones, where few duplicates lie. Digits,
    of which many look alike, so get a much smaller distance than photographs.
    """
    if np.count_nonzero(signatures.any(axis=1)) < 2:
        return np.empty((0, 2), np.intp), 0.0
    pairs = _search(signatures) if candidates is None else candidates
    distance = _distances(signatures, pairs)
    order = np.argsort(distance)
    order = order[distance[order] <= _WIDEST]
    found = distance[order]
    explained = _chance(signatures, found)
    good = np.flatnonzero(explained <= 0.01 * np.arange(1, len(found) + 1))
    last = int(good[-1]) + 1 if good.size else 0
    return pairs[order[:last]], float(found[last - 1]) if last else 0.0


def groups(pairs: NDArray[np.intp], n: int) -> NDArray[np.int64]:
    """Number of each sample's group of pairs and pairs of these, -1 for none."""
    sparse = need("scipy.sparse", "images")
    joined = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(n, n))
    _, part = need("scipy.sparse.csgraph", "images").connected_components(joined, directed=False)
    several = np.bincount(part, minlength=1)[part] > 1
    number = np.full(n, -1, np.int64)
    number[several] = np.unique(part[several], return_inverse=True)[1]
    return number


def _orientations(signatures: Matrix) -> Iterator[Matrix]:
    """The signatures of the eight turned and mirrored images: signs and transposes."""
    ends = np.cumsum([_GREY**2, _COLOUR**2])
    sides = (_GREY, _COLOUR, _COLOUR)
    parts = [
        part.reshape(-1, side, side)
        for part, side in zip(np.split(signatures, ends, axis=1), sides, strict=True)
    ]
    for transposed in (False, True):
        for down in (1, -1):
            for across in (1, -1):
                turned = [p.transpose(0, 2, 1) if transposed else p for p in parts]
                signs = [
                    np.multiply.outer(
                        *[np.float32(s) ** np.arange(p.shape[1]) for s in (down, across)]
                    )
                    for p in parts
                ]
                yield np.concatenate(
                    [(p * s).reshape(len(p), -1) for p, s in zip(turned, signs, strict=True)],
                    axis=1,
                )


def _invariant(signatures: Matrix) -> Matrix:
    """What no orientation changes: two images are never farther apart in it than in any of them."""
    turned = np.stack([np.abs(t) for t in _orientations(signatures)][::4])  # as it is, transposed
    upper = np.concatenate([np.triu(np.ones((s, s), bool)).ravel() for s in (8, 4, 4)])
    found: Matrix = np.where(upper, turned.max(axis=0), turned.min(axis=0))
    return found


def _search(signatures: Matrix) -> NDArray[np.intp]:
    """All pairs that may be within the widest distance; images of one colour are in none."""
    some = np.flatnonzero(signatures.any(axis=1))
    invariant = _invariant(signatures[some])
    found = [np.empty((0, 2), np.intp)]
    for start in range(0, len(some), _BLOCK):
        alike = invariant[start : start + _BLOCK] @ invariant[start:].T
        first, second = np.nonzero(np.triu(alike >= 1 - _WIDEST, 1))
        pairs = some[np.stack([first, second], axis=1) + start]
        found.append(pairs[_distances(signatures, pairs) <= _WIDEST])
    return np.concatenate(found)


def _distances(signatures: Matrix, pairs: NDArray[np.intp]) -> NDArray[np.float64]:
    """Cosine distance of each pair in the best orientation."""
    best = np.full(len(pairs), -1.0)
    for turned in _orientations(signatures):
        for start in range(0, len(pairs), 2**16):
            i, j = pairs[start : start + 2**16].T
            here = np.einsum("ij,ij->i", signatures[i], turned[j])
            np.maximum(best[start : start + 2**16], here, out=best[start : start + 2**16])
    distance: NDArray[np.float64] = np.maximum(1 - best, 0)
    return distance


def _chance(
    signatures: Matrix, distances: NDArray[np.float64], rows: int = 500
) -> NDArray[np.float64]:
    """How many pairs of different images to expect within each distance, estimated from some rows.

    c d^a, fitted to the numbers of pairs in two bands of distances: 0.2 to 0.3 and 0.3 to 0.4, and
    0.1 to 0.2 and 0.2 to 0.3 where so many lie that they cannot be duplicates; the larger counts.
    """
    n = len(signatures)
    chosen = np.random.default_rng(0).permutation(n)[:rows]
    best = np.max([signatures[chosen] @ turned.T for turned in _orientations(signatures)], axis=0)
    counts = np.histogram(1 - best, [0.1, 0.2, 0.3, 0.4])[0]
    powers = np.linspace(1, 40, 400)
    expected = np.zeros(len(distances))
    for band, edge in ((1, 0.2), (0, 0.1)):
        near, far = counts[band : band + 2]
        if band == 0 and near < len(chosen):
            continue
        within, beyond = ((edge + k) ** powers - (edge + k - 0.1) ** powers for k in (0.1, 0.2))
        a = powers[np.argmin(np.abs(within / beyond - near / max(far, 1)))]
        factor = near * n / len(chosen) / 2 / ((edge + 0.1) ** a - edge**a)
        expected = np.maximum(expected, factor * distances**a)
    return expected
