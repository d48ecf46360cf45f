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

import numpy as np
import rasterio
from numpy.typing import NDArray

from workbench.rasters import chips
from workbench.rasters.errors import RegionError
from workbench.rasters.plan_data import PlanData
from workbench.rasters.schedule import Ints

_LONGEST_NAME = 200


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
        partial = folder.with_name(f".{folder.name}.partial")
        partial.mkdir()
        names = [""] * len(image)
        for i, chip, good, region in self.members(group, image, valid, failed):
            name = file_name(self._plan.table.index[region]) + self.suffix
            (partial / name).write_bytes(self.encode(chip, good, region))
            names[i] = f"{folder.name}/{name}"
        shutil.rmtree(folder, ignore_errors=True)  # written, but not recorded any more
        partial.replace(folder)
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
    """A file's name that no file system minds and that can be read back by unquoting.

    Examples
    --------
    >>> file_name("farm 7/b"), file_name(12), file_name("..")
    ('farm 7%2Fb', '12', '%2E.')
    """
    name = quote(str(identity), safe=" ,()+=@&'#!")
    return "%2E" + name[1:] if name.startswith(".") else name or "%00"


class GeoTiffWriter(FileWriter):
    """GeoTIFF: its own geotransform, the raster's CRS and nodata, a mask where it is not valid."""

    suffix = ".tif"

    def encode(self, chip: NDArray[Any], valid: NDArray[np.bool_], region: int) -> bytes:
        """Return a GeoTIFF."""
        plan = self._plan
        profile = {
            "driver": "GTiff",
            "height": chip.shape[0],
            "width": chip.shape[1],
            "count": plan.chip_format.channels,
            "dtype": plan.chip_format.dtype,
            "nodata": plan.raster.bands[plan.bands[0] - 1].nodata,
            "crs": plan.raster.crs,
            "transform": rasterio.Affine.from_gdal(
                *chips.geotransforms(plan, np.array([region]))[0]
            ),
            "compress": "deflate",
            "zlevel": 1,
            "interleave": "pixel",
        }
        if plan.chip_format.mask:
            valid = valid & (chip[..., plan.chip_format.channels] != 0)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.MemoryFile() as memory:
            with memory.open(**profile) as target:
                target.write(chip[..., : plan.chip_format.channels].transpose(2, 0, 1))
                names = [plan.raster.bands[band - 1].description or None for band in plan.bands]
                target.descriptions = tuple(names)
                if not valid.all():
                    target.write_mask(valid)
            return bytes(memory.read())


class PngWriter(FileWriter):
    """PNG: 8 or 16 bits, one to four bands; without a place on the map but in the manifest."""

    suffix = ".png"

    def check(self) -> None:
        """Raise ``RegionError`` for other types and numbers of bands, too."""
        super().check()
        if not fits_png(self._plan):
            form = self._plan.chip_format
            raise RegionError(
                f"PNG holds 1 to 4 bands of uint8 or uint16, not {form.channels} of {form.dtype}; "
                'choose bands=, or format="geotiff" or "zarr"'
            )

    def encode(self, chip: NDArray[Any], valid: NDArray[np.bool_], region: int) -> bytes:  # noqa: ARG002
        """Return a PNG."""
        return as_png(chip[..., : self._plan.chip_format.channels])


def fits_png(plan: PlanData) -> bool:
    """Say whether PNG can hold a plan's chips."""
    return plan.chip_format.dtype in ("uint8", "uint16") and plan.chip_format.channels <= 4


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
        partial = target.with_name(f".{target.name}.partial")
        png = fits_png(self._plan)
        label, names = chips.labels(self._plan)
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for _, chip, good, region in self.members(group, image, valid, failed):
                # a key ends at the first dot of the file's name
                key = file_name(self._plan.table.index[region]).replace(".", "%2E")
                pixels = chip[..., : self._plan.chip_format.channels]
                if png:
                    _add(tar, f"{key}.png", as_png(pixels))
                else:
                    _add(tar, f"{key}.npy", _as_npy(pixels))
                facts = self._facts(region)
                if label is not None:
                    _add(tar, f"{key}.cls", str(label[region]).encode())
                    facts["label"] = names[label[region]] if label[region] >= 0 else None
                if not good.all():
                    _add(tar, f"{key}.valid.npy", _as_npy(good))
                _add(tar, f"{key}.json", json.dumps(facts).encode())
        partial.replace(target)
        return ["" if i in failed else target.name for i in range(len(valid))]

    def _facts(self, region: int) -> dict[str, Any]:
        plan, row = self._plan, self._plan.table.iloc[region]
        facts = {
            "sample": plan.table.index[region],
            "geotransform": chips.geotransforms(plan, np.array([region]))[0].tolist(),
            **row.drop("polygon", errors="ignore").to_dict(),
        }
        return {str(name): _plain(value) for name, value in facts.items()}


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
