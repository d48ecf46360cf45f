"""Small rasters of every kind, and rasterio's own answer to what a region holds."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

NORTH_UP = rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)


def write_raster(path, pixels, *, block=None, transform=NORTH_UP, crs="EPSG:32633", **profile):
    """Write (band, row, column) pixels; `block` is a tile's side, else the file is striped."""
    if block:
        profile |= {"tiled": True, "blockxsize": block, "blockysize": block}
    bands, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=height, width=width,
        dtype=pixels.dtype, transform=transform, crs=crs, **profile,
    ) as target:  # fmt: skip
        target.write(pixels)
    return str(path)


def noise(shape, dtype="uint8", seed=0):
    """Random pixels over a type's whole range."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    if dtype.kind == "c":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def boxes(n, height, width, side=16, seed=0, beyond=0):
    """A table of regions; some lie partly or wholly outside where `beyond` is more than 0."""
    rng = np.random.default_rng(seed)
    low = -beyond
    return pd.DataFrame(
        {
            "col": rng.integers(low, max(1, width - side + beyond), n),
            "row": rng.integers(low, max(1, height - side + beyond), n),
            "width": side,
            "height": side,
        },
        index=[f"r{i}" for i in range(n)],
    )


def expected(path, region, bands=None, fill=None):
    """What lies in the raster by rasterio's plain windowed read, in a chip of the fill."""
    with rasterio.open(path) as source:
        bands = bands or list(range(1, source.count + 1))
        fill = fill if fill is not None else source.nodata if source.nodata is not None else 0
        chip = np.full((len(bands), region.height, region.width), fill, source.dtypes[0])
        left, top = max(0, region.col), max(0, region.row)
        right = min(source.width, region.col + region.width)
        bottom = min(source.height, region.row + region.height)
        if left < right and top < bottom:
            rows = slice(top - region.row, bottom - region.row)
            columns = slice(left - region.col, right - region.col)
            window = Window(left, top, right - left, bottom - top)
            chip[:, rows, columns] = source.read(bands, window=window)
    return np.moveaxis(chip, 0, 2)


def boundless(path, region, bands=None, fill=None):
    """Rasterio's own boundless windowed read; it goes wrong on rotated and on complex rasters."""
    window = Window(int(region.col), int(region.row), int(region.width), int(region.height))
    with rasterio.open(path) as source:
        pixels = source.read(bands, window=window, boundless=True, fill_value=fill)
    return np.moveaxis(pixels, 0, 2)


def with_alpha(path):
    """Mark the last band as alpha."""
    with rasterio.open(path, "r+") as target:
        target.colorinterp = [*target.colorinterp[:-1], ColorInterp.alpha]


def corrupt(path, row, column):
    """Overwrite one block of a TIFF with bytes that no codec understands."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        across = -(-page.imagewidth // (page.tilewidth if page.is_tiled else page.imagewidth))
        at = row * across + column
        offset, length = page.dataoffsets[at], page.databytecounts[at]
    with Path(path).open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * length)


def tree(folder):
    """Every file of a folder, with a digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }
