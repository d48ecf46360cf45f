"""Plan how to cut regions out of a raster: check everything, read nothing but headers."""

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from dask.utils import parse_bytes
from numpy.typing import NDArray

from workbench.rasters.errors import NoOverlapError, RegionError
from workbench.rasters.form import make_form
from workbench.rasters.georeference import Raster, crs_name, extent, read_header
from workbench.rasters.layout import Ints, clipped
from workbench.rasters.plans import Plan
from workbench.rasters.reading import make_reading
from workbench.rasters.regions import BOX, check_boxes

Marks = NDArray[np.bool_]
Edge = Literal["pad", "clip", "skip", "raise"]
EDGES = ("pad", "clip", "skip", "raise")
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
    decoder: Literal["auto", "gdal"] = "auto",
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
    decoder
        ``"gdal"`` reads everything through GDAL, ``"auto"`` plain local TIFFs by imagecodecs.

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
    header = read_header(raster)
    _check(regions, edge)
    budget = parse_bytes(memory)
    if budget < _LEAST_MEMORY:
        raise ValueError(f"memory={memory!r} is too little to work with; give 16MiB or more")
    chosen = _bands(bands, header)
    table, skipped, boxes = _at_edges(header, regions, check_boxes(regions), edge)
    reading = make_reading(header, boxes, size if overviews else None)
    form = make_form(header, boxes, reading.boxes, size, len(chosen), fill, resampling, mask,
                     budget)  # fmt: skip
    return Plan(header, table, skipped, form, chosen, budget, decoder, boxes, reading)


def _check(regions: pd.DataFrame, edge: str) -> None:
    if edge not in EDGES:
        raise RegionError(f"edge={edge!r} is none of {', '.join(EDGES)}")
    if len(regions) == 0:
        raise RegionError("the table of regions has no rows")
    if not regions.index.is_unique:
        twice = regions.index[regions.index.duplicated()][0]
        raise RegionError(f"ids must be unique; {twice!r} occurs twice")


def _bands(bands: Sequence[int] | None, header: Raster) -> list[int]:
    if bands is None:
        return list(range(1, header.bands + 1))
    chosen = [int(band) for band in ([bands] if isinstance(bands, int) else bands)]
    if wrong := [band for band in chosen if not 1 <= band <= header.bands]:
        raise RegionError(
            f"there is no band {wrong[0]}: {header.path} has the bands 1 to {header.bands}"
        )
    if not chosen:
        raise RegionError("bands=[] leaves nothing to read")
    return chosen


def _at_edges(
    header: Raster, table: pd.DataFrame, boxes: Ints, edge: Edge
) -> tuple[pd.DataFrame, pd.DataFrame, Ints]:
    """Apply the rule for regions that stick out: what to cut, what not, and the boxes."""
    inside = clipped(boxes, header.height, header.width)
    touching = inside[:, 1] > 0
    if not touching.any():
        raise NoOverlapError(_apart(header, boxes))
    clip = np.stack([inside[:, 2], inside[:, 0], inside[:, 3] - inside[:, 2],
                     inside[:, 1] - inside[:, 0]], axis=1)  # fmt: skip
    whole = (clip == boxes).all(axis=1)
    if edge == "raise" and not whole.all():
        raise RegionError(_sticking_out(header, table, boxes, whole))
    kept = np.ones(len(table), np.bool_)
    if edge in ("clip", "skip"):
        kept = touching if edge == "clip" else whole
        if not kept.any():
            raise RegionError('every region sticks out of the raster; use edge="pad" or "clip"')
        boxes = (clip if edge == "clip" else boxes)[kept]
    return _with_boxes(table.loc[kept] if not kept.all() else table, boxes), table.loc[~kept], boxes


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
