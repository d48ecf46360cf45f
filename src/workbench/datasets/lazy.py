"""Pictures as a dask array that decodes, of scattered samples, these alone."""

import hashlib
from typing import Any

import dask.array as da
import numpy as np

from workbench.datasets.images import Pictures

_BLOCK = 128
_BLOCK_BYTES = 64 * 2**20


class LazyPictures(da.Array):
    """Dask array of pictures, which are decoded block by block.

    Dask would decode a whole block for each picture of a shuffled choice; chosen by a list of
    positions, the pictures make an array with blocks of their own in the order of the list.
    """

    __slots__ = ("pictures",)
    pictures: Pictures

    def __getitem__(self, index: Any) -> Any:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if not (isinstance(first, list | np.ndarray) and np.ndim(first) == 1):
            return super().__getitem__(index)  # type: ignore[no-untyped-call, unused-ignore]
        rows = np.arange(len(self))[np.asarray(first)]
        token = hashlib.sha256(self.name.encode() + rows.tobytes()).hexdigest()
        return lazy(self.pictures.keep(rows), token)[(slice(None), *rest)]


def lazy(pictures: Pictures, token: str) -> Any:
    """Return the pictures as a dask array named after ``token``, what they are read from."""
    block = min(_BLOCK, max(1, _BLOCK_BYTES // max(1, int(np.prod(pictures.shape[1:])))))
    plain = da.from_array(  # type: ignore[no-untyped-call, unused-ignore]
        pictures,
        chunks=(block, *pictures.shape[1:]),
        name=f"pictures-{token}",
        asarray=False,
        meta=np.empty((0, 0, 0, 0), np.uint8),
    )
    array: Any = LazyPictures(  # type: ignore[no-untyped-call, unused-ignore]
        plain.dask, plain.name, plain.chunks, meta=plain._meta
    )
    array.pictures = pictures
    return array
