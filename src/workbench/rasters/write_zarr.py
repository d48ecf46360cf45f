"""Chips as a Zarr store, sharded along ``sample``: a shard is a group, written by one thread."""

import warnings
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench._extras import need
from workbench.rasters import chips
from workbench.rasters.layout import Ints

if TYPE_CHECKING:
    from workbench.rasters.plans import Plan

#: Bytes of a chunk within a shard: what a reader of single chips has to decode.
_CHUNK = 2**20
#: Samples whose geotransforms are one chunk.
_ROWS = 2**16


class ZarrShards:
    """Writes ``image``, ``valid`` and what is known of each sample, in read order."""

    def __init__(self, plan: "Plan", path: Path) -> None:
        self._plan, self._path = plan, path

    def prepare(self, folder: Path) -> None:
        """Write everything but pixels; ``position`` is each sample's place in the table."""
        zarr = need("zarr", extra="rasters")
        plan, total = self._plan, len(self._plan.table)
        # pieces of very large chips are written where they belong, in the table's order
        order = plan.layout.order if plan.form.pieces == 1 else np.arange(total)
        table = chips.described(plan, order).assign_coords(position=("sample", order))
        with warnings.catch_warnings():
            # fixed-length text is not yet in the format's specification; every reader has it
            warnings.simplefilter("ignore")
            table.to_zarr(folder, zarr_format=3, mode="w", consolidated=False)
        root = zarr.open_group(folder, mode="a")
        shape = (total, plan.form.height, plan.form.width)
        dims = ("sample", "y", "x")
        self._create(root, "image", (*shape, plan.form.channels), plan.form.dtype, plan.form.fill,
                     (*dims, "channel"))  # fmt: skip
        self._create(root, "valid", shape, "bool", True, dims)
        if plan.form.mask:
            self._create(root, "mask", shape, "bool", True, dims)
        self._write_geotransforms(root, order)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not in the specification either, and all read it
            zarr.consolidate_metadata(folder)

    def _write_geotransforms(self, root: Any, order: Ints) -> None:
        """A million of them take 50 MB: write some at a time."""
        array = root.create_array(
            "geotransform", shape=(len(order), 6), dtype="float64", fill_value=np.nan,
            chunks=(min(_ROWS, len(order)), 6), dimension_names=("sample", "coefficient"),
        )  # fmt: skip
        for start in range(0, len(order), _ROWS):
            rows = slice(start, start + _ROWS)
            array[rows] = chips.geotransforms(self._plan, order[rows])

    def _create(self, root: Any, name: str, shape: tuple[int, ...], dtype: str, fill: Any,
                dims: tuple[str, ...]) -> None:  # fmt: skip
        codecs = need("zarr.codecs", extra="rasters")
        size, itemsize = self._plan.layout.size, np.dtype(dtype).itemsize
        chip = (self._plan.form.rows, *shape[2:])
        fits = max(1, _CHUNK // (int(np.prod(chip)) * itemsize))
        inner = max(d for d in range(1, min(size, fits) + 1) if size % d == 0)
        root.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(inner, *chip),
            shards=(size, *chip),
            compressors=codecs.BloscCodec(
                cname="lz4", clevel=3, shuffle="bitshuffle", typesize=itemsize
            ),
            fill_value=fill,
            dimension_names=dims,
        )

    def write(
        self,
        group: int,
        image: NDArray[Any],
        valid: NDArray[np.bool_],
        failed: Set[int],  # noqa: ARG002
    ) -> list[str]:
        """Write one shard of each array; all-True shards of `valid` are left to the fill value."""
        zarr = need("zarr", extra="rasters")
        root = zarr.open_group(self._path, mode="r+", use_consolidated=False)
        where: Any = self._plan.layout.members(group)
        if self._plan.form.pieces > 1:
            region, rows = self._plan.slot(int(self._plan.layout.order[where.start]))
            rows = slice(rows.start, min(rows.stop, self._plan.form.height))
            where = slice(region, region + 1), rows
            image, valid = image[:, : rows.stop - rows.start], valid[:, : rows.stop - rows.start]
        channels = self._plan.form.channels
        root["image"][where] = image[..., :channels]
        parts = {"valid": valid}
        if self._plan.form.mask:
            parts["mask"] = image[..., channels] != 0
        for name, part in parts.items():
            root[name][where] = part
        return [""] * len(valid)

    def clean(self) -> None:
        """Remove the store's own half-written files."""
        for leftover in self._path.rglob("*.partial"):
            leftover.unlink()
