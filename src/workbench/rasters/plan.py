"""Plan how to cut regions out of a raster: check everything, read nothing but headers."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from workbench._units import parse_size, show_size
from workbench.rasters import chips, crop
from workbench.rasters.dask_tasks import to_xarray
from workbench.rasters.data_share import data_share
from workbench.rasters.errors import NoOverlapError, RasterError, RasterWarning, RegionError
from workbench.rasters.plan_data import PlanData, make_chip_format, make_read_source
from workbench.rasters.prediction import predict_raster
from workbench.rasters.preview import preview
from workbench.rasters.raster import Raster, crs_name, extent, read_header
from workbench.rasters.regions import BOX, check_boxes
from workbench.rasters.schedule import Ints, block_counts, clipped
from workbench.rasters.write import Format, Written, write
from workbench.rasters.zonal import Statistic, zonal

#: Bytes that the order, the schedule and the table's boxes take for each region.
_BYTES_A_REGION = 200
#: What Zarr, its codecs and the parts of the manifest take as they set to work.
_LIBRARIES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Plan(PlanData):
    """How to cut regions out of a raster; made by `plan`. Nothing has been read but the header.

    Attributes
    ----------
    raster
        The raster's header.
    table, boxes
        The regions that will be cut, with all their columns, and (region, 4) their columns, rows,
        widths and heights in the raster's pixels, clipped where ``edge="clip"``.
    skipped
        The regions that will not: wholly outside, or with ``edge="skip"`` those that stick out.
    source
        What is read, and where: the raster itself or one of its overviews.
    memory
        The budget in bytes.
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
        grid = self.layout.grid
        schedule = self.schedule()
        form = self.chip_format
        counts = block_counts(self.source.boxes, grid)
        cells = len(np.unique(schedule.cells)) if len(schedule.cells) else 0
        down = -(-grid.height // grid.block[0])
        across = -(-grid.width // grid.block[1])
        working = self.threads() * self.thread_bytes + schedule.shared_peak
        return pd.Series(
            {
                "regions": len(self.table),
                "skipped": len(self.skipped),
                "groups": self.layout.groups,
                "blocks": len(counts),
                "blocks_in_raster": down * across,
                "naive_decodes": int(counts.sum()),
                "naive_decodes_per_block": float(counts.mean()) if len(counts) else 0.0,
                "decodes_per_block": schedule.decodes / cells if cells else 1.0,
                "bytes_to_decode": len(counts) * grid.block[0] * grid.block[1] * form.pixel_bytes,
                "expected_peak_memory": working + _LIBRARIES + _BYTES_A_REGION * len(self.table),
                "output_bytes": len(self.table) * form.chip_bytes,
            },
            name=self.raster.path,
            dtype=object,
        )

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

    def to_xarray(self, *, on_error: crop.OnError = "list") -> xr.Dataset:
        """The same as `load`, cut when it is computed: a dask task, and a chunk, for each group.

        Chips come in the order in which they are read; ``.sel(sample=plan.table.index)`` brings
        results into the table's. What goes through it chunk after chunk, such as a network, decodes
        each block once, in little memory. What failed (see `load`) is filled and nowhere `valid`.
        """
        return to_xarray(self, on_error)

    def preview(self, *, side: int = 1000) -> Figure:
        """Draw the regions over the raster: outlines by ``label``, or above 3,000 their density.

        The picture's longer side is `side` pixels. Where the raster has no overview and is too
        large to be decoded whole, blocks that fit into a fourth of the memory are, evenly spread.
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
            region at its own size. ``"webdataset"``: tar files; where `path` ends in ``.tar`` one,
            with its manifest in the folder of that name and ``.parts``.
        resume
            Go on with an earlier run of the same plan; False refuses a folder that holds one.
        retry_failed
            Read again the groups in which regions failed, after the raster was repaired or came
            within reach: it may then have changed, which otherwise makes it another plan. What was
            written without a fault stays.
        on_error
            ``"list"``: regions on a block that cannot be decoded are listed in the result, with a
            warning; in Zarr they are filled and not valid, in the other formats they have no file.
        threads, progress
            As in `load`.
        client
            A ``distributed.Client``, whose workers see the raster and the folder under the same
            paths: one task a group. Credentials for remote rasters, and GDAL's other options, they
            take from environment variables of their own.

        Returns
        -------
        Written
            False as a truth value when some region could not be read.

        Raises
        ------
        OutputError
            The folder holds something else or the chips of another plan, or another process is
            writing to it.
        OSError
            Such as a full disk: make room and write again.
        """
        return write(
            self,
            path,
            format,
            resume=resume,
            retry_failed=retry_failed,
            on_error=on_error,
            threads=threads,
            client=client,
            progress=progress,
        )

    def map(
        self,
        network: Any,
        path: str | os.PathLike[str],
        *,
        context: int = 0,
        classes: bool = False,
        resume: bool = True,
        on_error: crop.OnError = "list",
        threads: int | None = None,
        progress: bool = True,
    ) -> Path:
        """Inference over the raster: a network's answer for every pixel of the regions.

        Each block is decoded once. A run that was stopped or killed goes on from there when it is
        started again with the same plan and network, and ends with the same bytes.

        Parameters
        ----------
        network
            A torch module, of (sample, channel, y, x) with whole numbers scaled to 0 to 1, or a
            function of an array (sample, y, x, channel). It answers for each pixel: (sample, class,
            y, x) the one, (sample, y, x) or (sample, y, x, class) the other.
        path
            Of the GeoTIFF. What is done is kept beside it, in the folder of that name and
            ``.parts``, until all is.
        context
            Pixels around each region that the network sees too, up to the raster's edge: half its
            receptive field (``gradcam.receptive_field``), so that regions meet without a seam.
            For a network with strides, regions and context are multiples of its stride.
        classes
            Write the number of the greatest score (uint8, 255 where there is no data) instead of
            all scores (a band a class; float32, NaN where there is no data, or whole numbers).
        resume, on_error, threads, progress
            As in `write`.

        Raises
        ------
        RegionError
            The plan resamples its regions, or its memory does not hold one with its context.
        OutputError
            What is at `path` is of another plan or network.
        """
        table = self.table.drop(columns=["polygon", "valid_share"], errors="ignore")
        boxes = self.boxes + np.array([-context, -context, 2 * context, 2 * context])
        options: dict[str, Any] = {"edge": "clip", "memory": self.memory, "decoder": self.decoder}
        grown = plan(self.raster, _with_boxes(table, boxes), bands=self.bands, **options)
        cores = self.boxes[self.table.index.get_indexer(grown.table.index)]
        if self.chip_format.resampled:
            raise RegionError("map() answers for the raster's own pixels: plan without size=")
        target = Path(path).expanduser().absolute()
        options = {"on_error": on_error, "threads": threads, "progress": progress}
        return predict_raster(grown, cores, network, target, classes, resume=resume, **options)

    def zonal(
        self,
        statistics: Sequence[Statistic] = ("count", "mean", "min", "max"),
        *,
        threads: int | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Zonal statistics: what lies in each region's polygon, pixels counted by their share.

        Parameters
        ----------
        statistics
            Of ``"count"``, ``"sum"``, ``"mean"``, ``"min"``, ``"max"``, ``"median"`` and
            ``"majority"``. Pixels without data are left out, the others weighted by the share of
            their area that the polygon covers; that is what ``count`` sums up. Of values that cover
            as much the majority is the greatest.
        threads, progress
            As in `load`.

        Returns
        -------
        pandas.DataFrame
            One row a region, in the table's order, and a column a statistic; of several bands
            ``mean_1``, ``mean_2``... NaN where a polygon covers no data or could not be read.

        Raises
        ------
        RegionError
            There are no polygons: ``rasters.regions(..., polygon_mask=True)`` keeps them. Or `size`
            resamples them.
        """
        return zonal(self, statistics, threads, progress)


Marks = NDArray[np.bool_]
Edge = Literal["pad", "clip", "skip", "raise"]
EDGES = ("pad", "clip", "skip", "raise")
Outside = Literal["skip", "keep"]
#: Below this nothing useful can be planned.
_LEAST_MEMORY = 2**24


def plan(
    raster: str | os.PathLike[str] | Raster,
    regions: pd.DataFrame,
    size: int | tuple[int, int] | None = None,
    bands: Sequence[int] | None = None,
    edge: Edge = "pad",
    fill: float | None = None,
    resampling: str = "nearest",
    memory: int | str = "1GiB",
    *,
    mask: bool = False,
    overviews: bool = True,
    outside: Outside = "skip",
    decoder: Literal["auto", "gdal"] = "auto",
    allow_remote: bool = False,
    scale: bool = False,
    min_valid: float | None = None,
) -> Plan:
    """Plan how to cut regions out of a raster. Only headers are read.

    Parameters
    ----------
    raster
        A path or URL that GDAL reads: a file, a VRT, ``/vsicurl/...``, ``s3://...``.
    regions
        Integer boxes of pixels: columns ``col``, ``row``, ``width``, ``height``, ids in the
        index. `regions` makes them of points, map boxes and geometries.
    size
        Of every chip, in pixels: a number, or (height, width). Regions of another size are
        resampled to it. By default each keeps its own; in an array the smaller are padded on the
        right and below up to the largest.
    bands
        Numbers from 1, in the wanted order; by default all.
    edge
        What to do with regions that stick out of the raster: ``"pad"`` them with `fill`,
        ``"clip"`` them, ``"skip"`` them, or ``"raise"``.
    fill
        Pixels outside the raster; by default its nodata, or else 0. They are never `valid`.
    resampling
        One of rasterio's methods: ``"nearest"``, ``"bilinear"``, ``"cubic"``, ``"average"``...
    memory
        The budget for everything but the result of `Plan.load`: bytes, or a text such as
        ``"1GiB"``.
    mask
        Read the raster's own mask too (nodata, alpha or a mask band): ``mask`` (sample, y, x) is
        True where there is data.
    overviews
        Read from the raster's coarsest overview that is no coarser than the chips of any region,
        as GDAL does, where `size` makes every region smaller; with False, and where there is no
        such overview, from the full resolution.
    outside
        What to do with regions that lie wholly outside the raster: ``"skip"`` them with a warning
        (they are listed in `Plan.skipped`), or with ``edge="pad"`` ``"keep"`` them as chips of
        `fill`.
    decoder
        ``"gdal"`` reads everything through GDAL, ``"auto"`` plain local TIFFs by imagecodecs.
    allow_remote
        Let a local file name data anywhere, as a VRT or a WMS description may. By default a local
        file is opened by the driver of its suffix; a file called ``.vrt`` may name local files, and
        those outside its folder are named in a warning. Paths and URLs given here are explicit.
    scale
        Apply the bands' scale and offset: chips are float32 (float64 for wider types), and NaN
        where there is no data.
    min_valid
        Least share, 0 to 1, of a region's pixels that lie in the raster and its polygon and hold
        data in any band. Regions with less go to `Plan.skipped`, with a warning. It is the new
        column ``valid_share``. Where pixels may be missing, they are read once for it.

    Returns
    -------
    Plan

    Raises
    ------
    FileNotFoundError, RasterError
        The raster cannot be opened or used.
    RegionError
        The table or an option is not what it should be; with ``edge="raise"`` a region sticks out.
    NoOverlapError
        No region touches the raster.

    Examples
    --------
    >>> from workbench.rasters import plan
    >>> table = pd.DataFrame({"col": [0], "row": [8], "width": [4], "height": [4]})
    >>> plan("big.tif", table, memory="512MiB").load()  # doctest: +SKIP
    """
    header = read_header(raster, allow_remote=allow_remote)
    header = header.scaled() if scale else header
    if outside not in ("skip", "keep"):
        raise RegionError(f'outside={outside!r} is neither "skip" nor "keep"')
    if edge not in EDGES:
        raise RegionError(f"edge={edge!r} is none of {', '.join(EDGES)}")
    if len(regions) == 0:
        raise RegionError("the table of regions has no rows")
    if not regions.index.is_unique:
        twice = regions.index[regions.index.duplicated()][0]
        raise RegionError(f"ids must be unique; {twice!r} occurs twice")
    budget = parse_size(memory)
    if budget < _LEAST_MEMORY:
        raise ValueError(f"memory={memory!r} is too little to work with; give 16MiB or more")
    chosen = _chosen_bands(bands, header)
    table, skipped, boxes = _at_edges(header, regions, check_boxes(regions), edge, outside)
    together = chosen if header.interleave == "band" else range(1, len(header.bands) + 1)
    pixel_bytes = sum(header.bands[band - 1].itemsize for band in together)
    block = header.block[0] * header.block[1] * pixel_bytes
    if block > budget:
        raise RasterError(
            f"each block of {header.path} takes {show_size(block)} and is read whole; give more "
            f"than memory={memory!r}, or make it tiled: gdal_translate -co TILED=YES"
        )
    source = make_read_source(header, boxes, size if overviews else None)
    chip_format = make_chip_format(source, boxes, chosen, size, fill, resampling, mask, budget)
    made = Plan(header, table, skipped, chip_format, chosen, budget, decoder, boxes, source)
    if min_valid is None:
        return made
    kept, dropped = _with_data(made, min_valid)
    options: dict[str, Any] = {"mask": mask, "overviews": overviews, "outside": outside}
    options |= {"resampling": resampling, "memory": budget, "decoder": decoder}
    again = plan(header, kept, size, bands, edge, fill, **options)
    return replace(again, skipped=pd.concat([skipped, dropped]))


def _with_data(made: Plan, least: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The regions with at least that share of data, and the others, with a warning."""
    if not 0 <= least <= 1:
        raise RegionError(f"min_valid={least!r} must be a share, from 0 to 1")
    table = made.table.assign(valid_share=data_share(made))
    enough = table["valid_share"] >= least
    if not enough.any():
        most = table["valid_share"].max()
        raise RegionError(f"no region holds min_valid={least:g} of data; the most is {most:.3g}")
    if not enough.all():
        warnings.warn(
            f"{(~enough).sum():,} of {len(table):,} regions hold less than min_valid={least:g} of "
            f"data and are not cut ({chips.first_ids(table.index[~enough])})",
            RasterWarning,
            stacklevel=3,
        )
    return table[enough], table[~enough]


def _chosen_bands(bands: Sequence[int] | None, header: Raster) -> list[int]:
    last = len(header.bands)
    if bands is None:
        return list(range(1, last + 1))
    chosen = [int(band) for band in ([bands] if isinstance(bands, int) else bands)]
    if wrong := [band for band in chosen if not 1 <= band <= last]:
        raise RegionError(f"there is no band {wrong[0]}: {header.path} has the bands 1 to {last}")
    if not chosen:
        raise RegionError("bands=[] leaves nothing to read")
    return chosen


def _at_edges(
    header: Raster, table: pd.DataFrame, boxes: Ints, edge: Edge, outside: Outside
) -> tuple[pd.DataFrame, pd.DataFrame, Ints]:
    """Apply the rules for regions that stick out: what to cut, what not, and the boxes."""
    inside = clipped(boxes, header.height, header.width)
    touching = inside[:, 1] > 0
    if not touching.any():
        raise NoOverlapError(_apart(header, boxes) + _hint(table))
    low = inside[:, [2, 0]]
    clip = np.hstack([low, inside[:, [3, 1]] - low])
    whole = (clip == boxes).all(axis=1)
    if edge == "raise" and not whole.all():
        raise RegionError(_sticking_out(header, table, boxes, whole))
    kept = whole if edge == "skip" else touching
    if edge == "pad" and outside == "keep":
        kept = np.ones(len(table), np.bool_)
    if not kept.any():
        raise RegionError('every region sticks out of the raster; use edge="pad" or "clip"')
    if edge != "skip" and not kept.all():
        lost = table.index[~kept]
        warnings.warn(
            f"{len(lost):,} of {len(table):,} regions lie wholly outside the raster and are not "
            f"cut ({chips.first_ids(lost)}){_hint(table)}",
            RasterWarning,
            stacklevel=3,
        )
    boxes = (clip if edge == "clip" else boxes)[kept]
    return _with_boxes(table.loc[kept] if not kept.all() else table, boxes), table.loc[~kept], boxes


def _hint(table: pd.DataFrame) -> str:
    """What `regions` found that would bring regions into the raster."""
    hint = table.attrs.get("hint")
    return f"; {hint}" if hint else ""


def _with_boxes(table: pd.DataFrame, boxes: Ints) -> pd.DataFrame:
    """A table of one's own with these boxes; pandas 3 copies no column before it is changed."""
    used = table.copy(deep=int(pd.__version__.split(".")[0]) < 3)
    for column, name in enumerate(BOX):
        if used[name].dtype != np.int64 or (used[name].to_numpy() != boxes[:, column]).any():
            used[name] = boxes[:, column].copy()
    return used


def _sticking_out(header: Raster, table: pd.DataFrame, boxes: Ints, whole: Marks) -> str:
    at = int(np.argmin(whole))
    col, row, width, height = boxes[at].tolist()
    return (
        f"region {table.index[at]!r} (columns {col} to {col + width}, rows {row} to "
        f"{row + height}) sticks out of the raster of {header.width} columns and "
        f"{header.height} rows, and so do {int((~whole).sum()) - 1} more; edge= can be "
        '"pad", "clip" or "skip"'
    )


def _apart(header: Raster, boxes: Ints) -> str:
    x0, xc, xr, y0, yc, yr = header.transform
    columns = np.stack([boxes[:, 0], boxes[:, 0] + boxes[:, 2]] * 2)
    rows = np.stack([boxes[:, 1]] * 2 + [boxes[:, 1] + boxes[:, 3]] * 2)
    x, y = x0 + columns * xc + rows * xr, y0 + columns * yc + rows * yr
    crs = crs_name(header.crs) if header.crs else "a CRS that the raster does not name"
    return (
        f"no region touches the raster. In {crs} the raster covers {extent(header.bounds())}; "
        f"the regions cover {extent((x.min(), y.min(), x.max(), y.max()))}"
    )
