"""The formats that chips are written in: GeoTIFF, PNG, WebDataset's tar files, and Zarr."""

import io
import json
import shutil
import tarfile
import warnings
from collections.abc import Set
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from workbench.rasters import chips
from workbench.rasters.errors import RegionError
from workbench.rasters.plan_data import PlanData
from workbench.rasters.raster import Band, Raster
from workbench.rasters.schedule import Ints

_LONGEST_NAME = 200


def unique_partial(target: Path) -> Path:
    """A name beside a target that no other worker, nor this one after a crash, writes to."""
    return target.with_name(f".{target.name}.{uuid4().hex[:8]}.partial")


class FileWriter:
    """One file a chip, one folder a group; a folder appears when it is complete."""

    suffix = ""

    def __init__(self, plan: PlanData, path: Path) -> None:
        self._plan, self._path = plan, path
        self.check()

    def check(self) -> None:
        """Raise ``RegionError`` where the format cannot hold the chips."""
        if self._plan.chip_format.pieces > 1:
            size = self._plan.chip_format.chip_bytes / 2**20
            raise RegionError(
                f"a chip of {size:,.0f} MiB is too large to be encoded as one file with "
                f"memory={self._plan.memory / 2**20:,.0f}MiB; give more, or write Zarr"
            )

    def prepare(self, folder: Path) -> None:  # noqa: ARG002
        """Check the files' names: nothing else is there before the first group."""
        for name in chips.ids(self._plan.table.index).tolist():
            if len(file_name(name)) > _LONGEST_NAME:
                raise RegionError(f"the id {name!r} is too long for a file's name")

    def write(
        self, group: int, image: NDArray[Any], valid: NDArray[np.bool_], failed: Set[int]
    ) -> list[str]:
        """Write a group's files, none for what failed."""
        folder = self._path / f"{group:06d}"
        partial = unique_partial(folder)
        partial.mkdir()
        names = [""] * len(image)
        for i, chip, good, region in self.members(group, image, valid, failed):
            name = file_name(self._plan.table.index[region]) + self.suffix
            (partial / name).write_bytes(self.encode(chip, good, region))
            names[i] = f"{folder.name}/{name}"
        shutil.rmtree(folder, ignore_errors=True)  # written, but not recorded any more
        try:
            partial.replace(folder)
        except OSError:  # another worker was given the same group, and was faster
            if not folder.is_dir():
                raise
            shutil.rmtree(partial)
        return names

    def members(
        self, group: int, image: NDArray[Any], valid: NDArray[np.bool_], failed: Set[int]
    ) -> Any:
        """Yield each chip's number in the group, pixels and validity, and its row of the table."""
        form = self._plan.chip_format
        regions = self._plan.layout.order[self._plan.layout.members(group)]
        for i, region in enumerate(regions.tolist()):
            if i in failed:
                continue
            width, height = self._plan.boxes[region, 2:].tolist()
            if form.resampled:
                width, height = form.width, form.height
            yield i, image[i, :height, :width], valid[i, :height, :width], region

    def encode(self, chip: NDArray[Any], valid: NDArray[np.bool_], region: int) -> bytes:
        """Return the file's content."""
        raise NotImplementedError

    def clean(self) -> None:
        """Remove what was not finished."""
        for leftover in self._path.glob(".*.partial"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def file_name(identity: Any) -> str:
    """A file's name that no file system minds and that can be read back by unquoting."""
    name = quote(str(identity), safe=" ,()+=@&'#!")
    return "%2E" + name[1:] if name.startswith(".") else name or "%00"


class GeoTiffWriter(FileWriter):
    """GeoTIFF: all that the raster says of its pixels, and a mask where some hold no data."""

    suffix = ".tif"

    def encode(self, chip: NDArray[Any], valid: NDArray[np.bool_], region: int) -> bytes:
        """Return a GeoTIFF."""
        form = self._plan.chip_format
        raster = self._plan.raster
        bands = self._plan.read_bands
        pixels = chip[..., : form.channels]
        nodata = [band.nodata for band in bands]
        same = len({repr(value) for value in nodata}) == 1
        colors = [band.color for band in bands]
        missing = self._plan.without_data(pixels, None)
        seen = ~missing
        if colors[-1] == "alpha":
            seen = seen & (pixels[..., -1] != 0)
        holds = valid & ~missing
        if form.mask:
            holds &= chip[..., form.channels] != 0
        profile = {
            "driver": "GTiff",
            "height": chip.shape[0],
            "width": chip.shape[1],
            "count": form.channels,
            "dtype": form.dtype,
            "nodata": nodata[0] if same else None,
            "crs": raster.crs,
            "compress": "deflate",
            "zlevel": 1,
            "interleave": "pixel",
            "photometric": "rgb" if colors[:3] == ["red", "green", "blue"] else "minisblack",
            "alpha": "yes" if colors[-1] == "alpha" else "no",
        }
        if raster.placed:
            numbers = chips.geotransforms(self._plan, np.array([region]))[0]
            profile["transform"] = rasterio.Affine.from_gdal(*numbers)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.MemoryFile() as memory:
            with memory.open(**profile) as target:
                if not raster.placed:
                    col, row, width, height = self._plan.boxes[region].tolist()
                    across = form.width / width if form.resampled else 1.0
                    down = form.height / height if form.resampled else 1.0
                    place_by_points(target, raster, (col, row), across, down)
                self._describe(target, bands)
                target.write(pixels.transpose(2, 0, 1))
                if not np.array_equal(holds, seen if same else np.ones_like(seen)):
                    target.write_mask(holds)
                if not same:
                    target.update_tags(NODATA_VALUES=" ".join(map(str, nodata)))
            return bytes(memory.read())

    def _describe(self, target: Any, bands: list[Band]) -> None:
        """What the raster says of itself and of its bands."""
        if bands[0].colors and len(bands) == 1 and bands[0].dtype in ("uint8", "uint16"):
            target.write_colormap(1, {value: rgba for value, *rgba in bands[0].colors})
        else:
            # GDAL derives a palette only from its colours
            target.colorinterp = [
                ColorInterp.gray if band.color == "palette" else ColorInterp[band.color]
                for band in bands
            ]
        target.update_tags(**dict(self._plan.raster.tags))
        target.descriptions = tuple(band.description or None for band in bands)
        if any(band.scale != 1 or band.offset != 0 for band in bands):
            target.scales = tuple(band.scale for band in bands)
            target.offsets = tuple(band.offset for band in bands)
        if any(band.unit for band in bands):
            target.units = tuple(band.unit for band in bands)
        for number, band in enumerate(bands, 1):
            if band.tags:
                target.update_tags(number, **dict(band.tags))


def place_by_points(
    target: Any, raster: Raster, corner: tuple[int, int], across: float = 1.0, down: float = 1.0
) -> None:
    """Ground control points, or rational polynomials, counted from a corner (column, row)."""
    col, row = corner
    if raster.gcps:
        points = [
            GroundControlPoint((r - row) * down, (c - col) * across, x, y, z)
            for r, c, x, y, z in raster.gcps
        ]
        target.gcps = points, rasterio.crs.CRS.from_wkt(raster.crs or "")
    else:
        rpc = RPC.from_gdal(dict(raster.rpcs))
        rpc.line_off = (rpc.line_off + 0.5 - row) * down - 0.5
        rpc.samp_off = (rpc.samp_off + 0.5 - col) * across - 0.5
        rpc.line_scale *= down
        rpc.samp_scale *= across
        target.rpcs = rpc


class PngWriter(FileWriter):
    """PNG: 8 or 16 bits, one to four bands; without a place on the map but in the manifest."""

    suffix = ".png"

    def check(self) -> None:
        """Raise ``RegionError`` for other types and numbers of bands, too."""
        super().check()
        if not fits_png(self._plan):
            form = self._plan.chip_format
            raise RegionError(
                "PNG holds 1 or 3 bands of uint8 or uint16, and one of alpha after them, not "
                f"{form.channels} of {form.dtype} without alpha; choose bands=, or "
                'format="geotiff" or "zarr"'
            )

    def encode(self, chip: NDArray[Any], valid: NDArray[np.bool_], region: int) -> bytes:  # noqa: ARG002
        """Return a PNG."""
        return as_png(chip[..., : self._plan.chip_format.channels])


def fits_png(plan: PlanData) -> bool:
    """Say whether PNG can hold a plan's chips: of two or four bands it shows the last as alpha."""
    form = plan.chip_format
    alpha = plan.raster.bands[plan.bands[-1] - 1].color == "alpha"
    return form.dtype in ("uint8", "uint16") and form.channels in ((2, 4) if alpha else (1, 3))


def as_png(chip: NDArray[Any]) -> bytes:
    """Encode a chip."""
    import imagecodecs

    chip = chip[..., 0] if chip.shape[2] == 1 else chip
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(chip), level=3))


class WebDatasetWriter(FileWriter):
    """Tar files as webdataset reads them: for each sample its pixels, ``json`` and ``cls``."""

    def write(
        self, group: int, image: NDArray[Any], valid: NDArray[np.bool_], failed: Set[int]
    ) -> list[str]:
        """Write a group's tar file, without what failed."""
        target = self._path / f"{group:06d}.tar"
        partial = unique_partial(target)
        png = fits_png(self._plan)
        label, names = chips.labels(self._plan)
        regions = [region for *_, region in self.members(group, image, valid, failed)]
        # row by row as records, for a row as a series would make 64-bit ids floats
        table = self._plan.table.iloc[regions].drop(columns="polygon", errors="ignore")
        rows = zip(table.index.tolist(), table.to_dict("records"), strict=True)
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for _, chip, good, region in self.members(group, image, valid, failed):
                # a key ends at the first dot of the file's name
                key = file_name(self._plan.table.index[region]).replace(".", "%2E")
                pixels = chip[..., : self._plan.chip_format.channels]
                if png:
                    _add(tar, f"{key}.png", as_png(pixels))
                else:
                    _add(tar, f"{key}.npy", _as_npy(pixels))
                identity, row = next(rows)
                facts = {"sample": identity, "position": region} | {
                    str(key): _plain(row[key]) for key in row
                }
                if label is not None:
                    _add(tar, f"{key}.cls", str(label[region]).encode())
                    facts["label"] = names[label[region]] if label[region] >= 0 else None
                place = chips.geotransforms(self._plan, np.array([region]))[0]
                facts["geotransform"] = place.tolist()
                if not good.all():
                    _add(tar, f"{key}.valid.npy", _as_npy(good))
                _add(tar, f"{key}.json", json.dumps(facts).encode())
        partial.replace(target)
        return ["" if i in failed else target.name for i in range(len(valid))]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, int | float | str | bool | list | None) else str(value)


def _as_npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


#: Bytes of a chunk within a shard: what a reader of single chips has to decode.
_CHUNK = 2**20
#: Samples whose geotransforms are one chunk.
_ROWS = 2**16


class ZarrWriter:
    """Writes ``image``, ``valid`` and what is known of each sample, in read order."""

    def __init__(self, plan: PlanData, path: Path) -> None:
        self._plan, self._path = plan, path

    def prepare(self, folder: Path) -> None:
        """Write everything but pixels; ``position`` is each sample's place in the table."""
        import zarr

        plan, total = self._plan, len(self._plan.table)
        # pieces of very large chips are written where they belong, in the table's order
        order = plan.layout.order if plan.chip_format.pieces == 1 else np.arange(total)
        table = chips.described(plan, order).assign_coords(position=("sample", order))
        with warnings.catch_warnings():
            # fixed-length text is not yet in the format's specification; every reader has it
            warnings.simplefilter("ignore")
            table.to_zarr(folder, zarr_format=3, mode="w", consolidated=False)
        root = zarr.open_group(folder, mode="a")
        form = plan.chip_format
        shape = (total, form.height, form.width)
        self._create(root, "image", (*shape, form.channels), form.dtype, form.fill[0])
        self._create(root, "valid", shape, "bool", True)
        if form.mask:
            self._create(root, "mask", shape, "bool", True)
        self._write_geotransforms(root, order)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not in the specification either, and all read it
            zarr.consolidate_metadata(folder)

    def _write_geotransforms(self, root: Any, order: Ints) -> None:
        """A million of them take 50 MB: write some at a time."""
        array = root.create_array(
            "geotransform",
            shape=(len(order), 6),
            dtype="float64",
            fill_value=np.nan,
            chunks=(min(_ROWS, len(order)), 6),
            dimension_names=("sample", "coefficient"),
        )
        for start in range(0, len(order), _ROWS):
            rows = slice(start, start + _ROWS)
            array[rows] = chips.geotransforms(self._plan, order[rows])

    def _create(self, root: Any, name: str, shape: tuple[int, ...], dtype: str, fill: Any) -> None:
        from zarr.codecs import BloscCodec

        size = self._plan.layout.size
        itemsize = np.dtype(dtype).itemsize
        chip = (self._plan.chip_format.rows, *shape[2:])
        fits = max(1, _CHUNK // (int(np.prod(chip)) * itemsize))
        inner = max(d for d in range(1, min(size, fits) + 1) if size % d == 0)
        root.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(inner, *chip),
            shards=(size, *chip),
            compressors=BloscCodec(cname="lz4", clevel=3, shuffle="bitshuffle", typesize=itemsize),
            fill_value=fill,
            dimension_names=("sample", "y", "x", "channel")[: len(shape)],
        )

    def write(
        self,
        group: int,
        image: NDArray[Any],
        valid: NDArray[np.bool_],
        failed: Set[int],  # noqa: ARG002
    ) -> list[str]:
        """Write one shard of each array; all-True shards of `valid` are left to the fill value."""
        import zarr

        root = zarr.open_group(self._path, mode="r+", use_consolidated=False)
        where: Any = self._plan.layout.members(group)
        if self._plan.chip_format.pieces > 1:
            region, rows = self._plan.slot(int(self._plan.layout.order[where.start]))
            rows = slice(rows.start, min(rows.stop, self._plan.chip_format.height))
            where = slice(region, region + 1), rows
            image, valid = image[:, : rows.stop - rows.start], valid[:, : rows.stop - rows.start]
        channels = self._plan.chip_format.channels
        root["image"][where] = image[..., :channels]
        parts = {"valid": valid}
        if self._plan.chip_format.mask:
            parts["mask"] = image[..., channels] != 0
        for name, part in parts.items():
            root[name][where] = part
        return [""] * len(valid)

    def clean(self) -> None:
        """Remove the store's own half-written files."""
        for leftover in self._path.rglob("*.partial"):
            leftover.unlink()
