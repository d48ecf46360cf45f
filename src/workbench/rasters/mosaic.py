"""Values of chips laid together into one georeferenced raster, tile by tile."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import rasterio
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from workbench._units import parse_size
from workbench.rasters.chips import first_ids
from workbench.rasters.crop import sampled
from workbench.rasters.errors import RasterError, RasterWarning, RegionError
from workbench.rasters.formats import place_by_points, unique_partial
from workbench.rasters.raster import Raster, read_header
from workbench.rasters.schedule import Ints, clipped, make_grid, make_layout, touched

Blend = Literal["mean", "last", "feather"]
#: Side of the tiles of the raster that is written.
_TILE = 256


class Mosaic:
    """A raster in the making: a tile is written, and let go, when its last chip is there.

    ``blank`` counts pixels without a value, ``differing`` means of different whole numbers.
    """

    def __init__(
        self, target: Any, boxes: Ints, blend: Blend, nodata: float | None, memory: int
    ) -> None:
        if blend not in ("mean", "last", "feather"):
            raise ValueError(f'blend={blend!r} is none of "mean", "last", "feather"')
        self._target = target
        self._boxes = boxes
        self._blend = blend
        self._nodata = 0 if nodata is None else nodata
        self._dtype = np.dtype(target.dtypes[0])
        self._inside = clipped(boxes, target.height, target.width)
        self._touched = touched(self._inside, (_TILE, _TILE))
        down, across = -(-target.height // _TILE), -(-target.width // _TILE)
        change = np.zeros((down + 1, across + 1), np.int64)
        for end, other in product((0, 1), (2, 3)):
            sign = 1 if end + other in (2, 4) else -1
            np.add.at(change, (self._touched[:, end], self._touched[:, other]), sign)
        self._waiting = change.cumsum(0).cumsum(1)
        self._tiles: dict[tuple[int, int], tuple[NDArray[Any], NDArray[Any]]] = {}
        sums = self._dtype if blend == "last" else np.result_type(self._dtype, np.float32)
        self._sums = np.dtype(sums)
        self._most = memory // (_TILE**2 * (target.count * self._sums.itemsize + 8))
        self.differing = 0
        self.blank = target.height * target.width

    def add(self, at: int, values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
        """Lay values (height, width, band) over the box of that number."""
        first, last, left, right = self._inside[at].tolist()
        col, row = self._boxes[at, :2].tolist()
        mine = slice(first - row, last - row), slice(left - col, right - col)
        weight = self._weight(at)[mine]
        values = values[mine]
        if valid is not None:
            weight = weight * valid[mine]
        if values.dtype.kind in "fc":
            weight = weight * ~np.isnan(values).any(axis=2)
        top, bottom, start, stop = self._touched[at].tolist()
        for tile in product(range(top, bottom), range(start, stop)):
            y, x = tile[0] * _TILE, tile[1] * _TILE
            rows = slice(max(first, y), min(last, y + _TILE))
            columns = slice(max(left, x), min(right, x + _TILE))
            there, here = (
                (slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x))
                for y, x in ((y, x), (first, left))
            )
            self._lay(tile, there, values[here], weight[here])
            self._waiting[tile] -= 1
            if not self._waiting[tile]:
                self._flush(tile)

    def _weight(self, at: int) -> NDArray[np.float64]:
        """What each pixel of a chip counts: its place in the table, 1, or its way to the edge."""
        width, height = self._boxes[at, 2:].tolist()
        if self._blend == "feather":
            down, across = (
                np.minimum(np.arange(n) + 1.0, n - np.arange(n)) for n in (height, width)
            )
            return np.asarray(np.minimum(down[:, None], across[None, :]))
        return np.full((height, width), at + 1.0 if self._blend == "last" else 1.0)

    def _lay(self, tile: tuple[int, int], there: Any, values: Any, weight: Any) -> None:
        if tile not in self._tiles:
            if len(self._tiles) >= max(self._most, 4):
                raise MemoryError(
                    f"{len(self._tiles)} tiles wait for more of their chips: give chips in the "
                    "order in which they lie, as plan.to_xarray() does, or more memory="
                )
            shape = _TILE, _TILE, self._target.count
            self._tiles[tile] = np.zeros(shape, self._sums), np.zeros(shape[:2])
        sums, total = (array[there] for array in self._tiles[tile])
        if self._blend == "last":
            newer = weight > total
            sums[newer] = values[newer]
            total[newer] = weight[newer]
            return
        seen = weight > 0
        if self._dtype.kind in "iu":
            differ = seen & (total > 0) & (values != sums).any(axis=2)
            self.differing += int(np.count_nonzero(differ))
        total += weight
        # the running mean, for of equal values it is that value, to the last bit
        share = np.divide(weight, total, out=np.zeros_like(total), where=seen)
        step = np.where(seen[..., None], values - sums, 0)
        sums += (step * share[..., None]).astype(self._sums)

    def _flush(self, tile: tuple[int, int]) -> None:
        sums, total = self._tiles.pop(tile)
        y, x = tile[0] * _TILE, tile[1] * _TILE
        height = min(_TILE, self._target.height - y)
        width = min(_TILE, self._target.width - x)
        covered = total[:height, :width] > 0
        pixels = sums[:height, :width]
        if self._dtype.kind in "iu" and self._sums != self._dtype:
            pixels = np.rint(pixels)
        pixels = np.where(covered[..., None], pixels, self._nodata).astype(self._dtype)
        self.blank -= int(np.count_nonzero(covered))
        window = rasterio.windows.Window(x, y, width, height)
        self._target.write(pixels.transpose(2, 0, 1), window=window)


@contextmanager
def new_raster(
    path: Path, like: Raster, count: int, dtype: str, nodata: float | None, names: Sequence[str]
) -> Iterator[Any]:
    """Open a GeoTIFF of another raster's size and place; it appears when it is complete."""
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": like.width,
        "height": like.height,
        "count": count,
        "dtype": dtype,
        "nodata": nodata,
        "crs": like.crs,
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
        "sparse_ok": True,
    }
    if like.placed:
        profile["transform"] = rasterio.Affine.from_gdal(*like.transform)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = unique_partial(path)
    try:
        # one thread and a small cache of its own: the same tiles give the same bytes
        with (
            rasterio.Env(GDAL_CACHEMAX=2**25, GDAL_NUM_THREADS=1),
            rasterio.open(partial, "w", **profile) as target,
        ):
            if not like.placed:
                place_by_points(target, like, (0, 0))
            if len(names) == count:
                target.descriptions = tuple(map(str, names))
            yield target
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def warn_of_gaps(mosaic: Mosaic, nodata: float | None, blend: Blend) -> None:
    """Say which pixels hold what nobody gave them."""
    if mosaic.blank and nodata is None:
        warnings.warn(
            f"{mosaic.blank:,} pixels lie in no chip, or hold no value in any, and are 0; give "
            "nodata= to tell them apart",
            RasterWarning,
            stacklevel=3,
        )
    if mosaic.differing:
        warnings.warn(
            f"blend={blend!r}: chips disagree on {mosaic.differing:,} pixels, and their whole "
            'numbers were averaged and rounded; for classes take blend="last", or average '
            "probabilities",
            RasterWarning,
            stacklevel=3,
        )


def to_raster(
    path: str | os.PathLike[str],
    ds: xr.Dataset,
    values: Any,
    like: str | os.PathLike[str] | Raster,
    blend: Blend = "mean",
    *,
    nodata: float | None = None,
    memory: int | str = "1GiB",
    progress: bool = True,
) -> Path:
    """Write per-chip values into one georeferenced raster, tile by tile.

    Parameters
    ----------
    path
        Of the GeoTIFF. What is there is replaced once the new one is complete.
    ds
        The chips' dataset: ``row``, ``col``, ``height``, ``width`` and, where there are,
        ``geotransform`` and `valid` are used.
    values
        One for each chip, (sample,); one for each chip and band, (sample, band); masks,
        (sample, y, x); or (sample, y, x, band). NumPy, dask or a DataArray, which is aligned by its
        ids. Values of another size than the region get it by the nearest pixel. What is dask is
        computed once, chunk after chunk.
    like
        The raster that the chips were cut from, or one of the same grid.
    blend
        Where chips overlap: ``"mean"``; ``"last"``, the last in `ds`; or ``"feather"``, a mean in
        which a pixel counts the more, the farther it is from its chip's edge.
    nodata
        Of pixels that lie in no chip, or in none where it is `valid` and not NaN. By default NaN
        for floats, and for whole numbers that of `like` where it has the same type.
    memory
        The most that tiles may take which wait for further chips.
    progress
        Show a bar.

    Raises
    ------
    RegionError
        `ds` does not say where its chips lie, or `values` are not one for each chip.
    MemoryError
        Lazy chips come in an order that has too many tiles wait.

    Examples
    --------
    >>> to_raster("classes.tif", ds, classes, like="big.tif", blend="last")  # doctest: +SKIP
    """
    header = read_header(like)
    target = Path(path).expanduser().absolute()
    if str(target) in [str(Path(file).absolute()) for file in header.files]:
        raise RasterError(f"{target} is the raster that the chips were cut from; give another path")
    boxes = _boxes(ds)
    array, names = _as_bands(ds, values)
    dtype = {"bool": "uint8", "float16": "float32"}.get(str(array.dtype), str(array.dtype))
    if nodata is None:
        kind = np.dtype(dtype).kind
        nodata = np.nan if kind in "fc" else header.bands[0].nodata
        nodata = nodata if kind in "fc" or header.bands[0].dtype == dtype else None
    budget = parse_size(memory)
    parts = _parts(ds, header, array.shape[1:3])
    valid = ds["valid"].data if "valid" in ds else None
    with new_raster(target, header, array.shape[3], dtype, nodata, names) as sink:
        mosaic = Mosaic(sink, boxes, blend, nodata, budget)
        chunks = _chunks(array, valid, header, boxes, budget)
        with tqdm(total=len(boxes), desc="lay", unit="chip", disable=not progress) as bar:
            for numbers, some, good in chunks:
                for i, at in enumerate(numbers.tolist()):
                    width, height = boxes[at, 2:].tolist()
                    own = None if good is None else _at_size(good[i], parts[1][at], height, width)
                    mosaic.add(at, _at_size(some[i], parts[0][at], height, width), own)
                bar.update(len(numbers))
    warn_of_gaps(mosaic, nodata, blend)
    return target


def _boxes(ds: xr.Dataset) -> Ints:
    if missing := {"col", "row", "width", "height"} - set(ds):
        raise RegionError(
            f"the dataset has no {', '.join(sorted(missing))}: it does not say where its chips lie"
        )
    return np.stack([ds[name].values for name in ("col", "row", "width", "height")], 1).astype(int)


def _as_bands(ds: xr.Dataset, values: Any) -> tuple[Any, list[str]]:
    """Values as (sample, y, x, band), in the dataset's order, and the bands' names."""
    names: list[str] = []
    if isinstance(values, xr.DataArray):
        if "sample" in values.coords:
            theirs, ours = values["sample"].values, ds["sample"].values
            if len(theirs) == len(ours) and (theirs != ours).any():
                lost = ours[~np.isin(ours, theirs)]
                if len(lost):
                    raise RegionError(f"values lack {len(lost)} chips ({first_ids(lost)})")
                values = values.sel(sample=ours)
        last = [dim for dim in values.dims if dim not in ("sample", "y", "x")]
        places = [dim for dim in ("y", "x") if dim in values.dims]
        values = values.transpose("sample", *places, *last)
        if len(last) == 1 and last[0] in values.coords:
            names = values[last[0]].values.tolist()
        shape = (values.shape[0], *(values.shape[1:3] if places else (1, 1)), -1)
        array = values.data
    else:
        array = values if hasattr(values, "dask") else np.asarray(values)
        shape = (len(array), *(array.shape[1:3] if array.ndim > 2 else (1, 1)), -1)
    if len(array) != ds.sizes["sample"]:
        raise RegionError(f"there are {len(array)} values for {ds.sizes['sample']} chips")
    count = int(np.prod(array.shape[1:])) // (shape[1] * shape[2])
    return array.reshape(*shape[:3], count), names


def _parts(ds: xr.Dataset, header: Raster, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Rows and columns of each chip's arrays that its region takes: of the values, and of valid."""
    sides = np.stack([ds["height"].values, ds["width"].values], axis=1).astype(float)
    if "geotransform" in ds:
        place = ds["geotransform"].values
        across, down = header.pixel_size()
        steps = np.hypot(place[:, [2, 1]], place[:, [5, 4]]) / (down, across)
        sides = np.round(sides / steps)
    whole = np.array([ds.sizes.get("y", shape[0]), ds.sizes.get("x", shape[1])])
    scaled = sides * (np.array(shape) / whole)
    return np.where(np.array(shape) == 1, 1.0, scaled), sides


def _at_size(array: Any, part: Any, height: int, width: int) -> Any:
    """Bring the region's part of a chip's array to the region's size, by the nearest pixel."""
    if part[0] == height and part[1] == width:
        return array[:height, :width]
    rows = sampled(0, part[0], height).clip(0, len(array) - 1)
    return array[rows[:, None], sampled(0, part[1], width).clip(0, array.shape[1] - 1)]


def _chunks(
    array: Any, valid: Any, header: Raster, boxes: Ints, memory: int
) -> Iterator[tuple[Ints, Any, Any]]:
    """Chips' numbers, values and validity: lazy ones chunk after chunk, others as they lie."""
    lazy = next((one for one in (array, valid) if hasattr(one, "dask")), None)
    if lazy is None:
        grid = make_grid(header, array.dtype.itemsize * array.shape[3], memory)
        chip = int(boxes[:, 2:].max(axis=0).prod()) * array.dtype.itemsize * array.shape[3]
        order = make_layout(grid, boxes, chip, array.shape[3] * 8, memory).order
        for at in order:
            one = slice(at, at + 1)
            yield np.array([at]), array[one], None if valid is None else valid[one]
        return
    stop = np.cumsum(lazy.chunks[0])
    for first, last in zip(stop - lazy.chunks[0], stop, strict=True):
        # together, so that what both are made of is made once
        some, good = dask.compute(  # type: ignore[attr-defined, no-untyped-call]
            array[first:last], None if valid is None else valid[first:last]
        )
        yield np.arange(first, last), some, good
