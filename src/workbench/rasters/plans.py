"""A plan, and all that can be asked of it."""

import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from workbench.rasters import chips, crop
from workbench.rasters.division import Division
from workbench.rasters.lazy import Order, to_xarray
from workbench.rasters.preview import preview
from workbench.rasters.stats import stats
from workbench.rasters.write import Format, Written, write


@dataclass(frozen=True, eq=False)
class Plan(Division):
    """How to cut regions out of a raster; made by `plan`. Nothing has been read but the header.

    Attributes
    ----------
    raster
        The raster's header.
    table
        The regions that will be cut: their boxes, clipped where ``edge="clip"``, and all other
        columns.
    skipped
        The regions that will not: with ``edge="skip"`` those that stick out, with ``"clip"``
        those with no pixel in the raster.
    memory
        The budget in bytes.
    boxes
        (region, 4): column, row, width and height in the raster's pixels.
    reading
        What is read, and where: the raster itself or one of its overviews.
    """

    def stats(self) -> pd.Series:
        """What reading will take.

        Returns
        -------
        pandas.Series
            ``regions`` and ``skipped``; ``groups``; ``blocks`` that some region touches and
            ``blocks_in_raster``; ``naive_decodes``, the decodes when each region is read for
            itself, and ``naive_decodes_per_block``; ``decodes_per_block`` of this plan, 1 unless
            the memory does not suffice; ``bytes_to_decode``; ``expected_peak_memory`` above the
            interpreter's, without the result of `load`; ``output_bytes``, uncompressed.
        """
        return stats(self)

    def load(
        self, *, on_error: crop.OnError = "list", threads: int | None = None, progress: bool = True
    ) -> xr.Dataset:
        """Cut all regions into memory.

        Parameters
        ----------
        on_error
            ``"list"``: regions on a block that cannot be decoded come back filled and not valid,
            with a warning, and are listed in ``attrs["failed"]``. ``"raise"`` stops at the first.
        threads
            By default as many as there are processors and memory for.
        progress
            Show a bar.

        Returns
        -------
        xarray.Dataset
            The image dataset in the table's order: ``image`` (sample, y, x, channel) in the
            raster's dtype; ``valid`` (sample, y, x), False outside the raster, the polygon or a
            smaller region, and read-only where it is True throughout; per sample ``row``, ``col``,
            ``height``, ``width`` (pixels of the raster), ``geotransform`` (GDAL's six numbers)
            and the table's other columns.

        Raises
        ------
        MemoryError
            The result is larger than the memory that is free.
        BlockError
            A block cannot be decoded, with ``on_error="raise"``.
        """
        return chips.load(self, on_error=on_error, threads=threads, progress=progress)

    def to_xarray(self, *, order: Order = "table", on_error: crop.OnError = "list") -> xr.Dataset:
        """The same as `load`, cut when it is computed: a dask task, and a chunk, for each group.

        Parameters
        ----------
        order
            ``"table"``: a chunk of the table's order needs all groups that its regions lie in.
            ``"read"``: each chunk is one group, so that chunk after chunk streams through little
            memory; ``sample`` tells which regions they are.
        on_error
            As in `load`, but without a list: what failed is filled and nowhere `valid`.

        Returns
        -------
        xarray.Dataset
        """
        return to_xarray(self, order, on_error)

    def preview(self, *, side: int = 1000) -> Figure:
        """Draw the regions over the raster.

        Parameters
        ----------
        side
            The picture's longer side in pixels. An overview serves it where the raster has some.
            Where it has none and is too large to be decoded whole, as many of its blocks are as
            fit into a fourth of the memory, evenly spread; the rest is left grey.

        Returns
        -------
        matplotlib.figure.Figure
            Outlines, coloured by the table's ``label``; above 3,000 regions their density.
        """
        return preview(self, side)

    def write(
        self,
        path: str | os.PathLike[str],
        format: Format = "zarr",  # noqa: A002 - what every writer calls it
        *,
        resume: bool = True,
        retry_failed: bool = False,
        on_error: crop.OnError = "list",
        threads: int | None = None,
        client: Any = None,
        progress: bool = True,
    ) -> Written:
        """Write all chips to a folder, in bounded memory.

        A run that was stopped or killed goes on from there when it is started again, reads
        nothing for what is written, and ends with the same bytes.

        Parameters
        ----------
        path
            A folder of this name is made. One that holds anything else is refused.
        format
            ``"zarr"``: a Zarr v3 store that ``xarray.open_zarr`` opens, in read order;
            ``ds.sortby("position")`` restores the table's. ``"geotiff"`` and ``"png"``: a file a
            region at its own size. ``"webdataset"``: tar files.
        resume
            Go on with an earlier run of the same plan; False refuses a folder that holds one.
        retry_failed
            Read again the groups in which regions failed, after the raster was repaired or came
            within reach: it may then have changed, which otherwise makes it another plan. What was
            written without a fault stays.
        on_error
            ``"list"``: regions on a block that cannot be decoded are listed in the result, with a
            warning; in Zarr they are filled and not valid, in the other formats they have no file.
            ``"raise"`` stops at the first.
        threads
            By default as many as there are processors and memory for.
        client
            A ``distributed.Client``, whose workers see the raster and the folder under the same
            paths: one task a group.
        progress
            Show a bar.

        Returns
        -------
        Written
            False as a truth value when some region could not be read.

        Raises
        ------
        OutputError
            The folder holds something else, or the chips of another plan.
        OSError
            Such as a full disk: make room and write again.
        """
        return write(self, path, format, resume=resume, retry_failed=retry_failed,
                     on_error=on_error, threads=threads, client=client,
                     progress=progress)  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """Tells two plans apart: of the raster's header, the boxes, the ids and all options.

        The raster's size in bytes and its time, `Raster.state`, are no part of it.
        """
        header = replace(self.reading.raster, state=None)
        sha = hashlib.sha256(repr((header, self.form, self.bands, self.memory)).encode())
        sha.update(np.ascontiguousarray(self.boxes).tobytes())
        sha.update(pd.util.hash_pandas_object(self.table.index.to_series()).to_numpy().tobytes())
        return sha.hexdigest()
