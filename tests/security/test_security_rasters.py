"""Rasters and tables are data: reading one fetches nothing and follows no name unasked."""

import gzip
import os
import socket
import threading
import warnings
import zipfile
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import rasterio

from workbench import rasters

BOX = pd.DataFrame({"col": [0], "row": [0], "width": [8], "height": [8]})
VRT = (
    '<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand dataType="Byte" band="1">'
    '<SimpleSource><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename>'
    "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
)
WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>http://{host}/${{z}}/${{x}}/${{y}}.png</ServerUrl>'
    "</Service><DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>32</UpperLeftY>"
    "<LowerRightX>32</LowerRightX><LowerRightY>0</LowerRightY><SizeX>32</SizeX><SizeY>32</SizeY>"
    "<TileLevel>0</TileLevel></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
)


@pytest.fixture
def network():
    """A server that notes who knocks."""
    seen = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            seen.append(connection.recv(200))
            connection.close()

    threading.Thread(target=listen, daemon=True).start()
    yield f"127.0.0.1:{server.getsockname()[1]}", seen
    server.close()


@pytest.fixture
def secret(tmp_path):
    """A raster of somebody else."""
    (tmp_path / "theirs").mkdir()
    path = tmp_path / "theirs" / "secret.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=32, height=32, count=1, dtype="uint8"
    ) as target:
        target.write(np.full((1, 32, 32), 42, np.uint8))
    return path


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def read(path, **options):
    return rasters.plan(path, BOX, **options).load(progress=False).image.values


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.png", "a.jp2", "a", "a.img", "a.TIF"])
def test_a_vrt_under_another_name_is_no_raster(mine, secret, name):
    (mine / name).write_text(VRT.format(relative=0, source=secret))
    with pytest.raises(
        rasters.RasterError, match=r"names other data; call it \.vrt|not recognized"
    ):
        read(mine / name)


def test_a_vrt_s_files_outside_its_folder_are_named(mine, secret):
    (mine / "a.vrt").write_text(VRT.format(relative=0, source=secret))
    with pytest.warns(rasters.RasterWarning, match=r"1 files outside its own folder.*secret\.tif"):
        assert (read(mine / "a.vrt") == 42).all()
    (mine / "b.vrt").write_text(VRT.format(relative=1, source="../theirs/secret.tif"))
    with pytest.warns(rasters.RasterWarning, match=r"secret\.tif"):
        read(mine / "b.vrt")
    (mine / "link.tif").symlink_to(secret)
    (mine / "c.vrt").write_text(VRT.format(relative=1, source="link.tif"))
    with pytest.warns(rasters.RasterWarning, match="outside its own folder"):
        read(mine / "c.vrt")


def test_a_vrt_of_its_own_folder_needs_no_word(mine, secret):
    secret.rename(mine / "own.tif")
    (mine / "a.vrt").write_text(VRT.format(relative=1, source="own.tif"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", rasters.RasterWarning)
        assert (read(mine / "a.vrt") == 42).all()


@pytest.mark.parametrize("name", ["a.tif", "a.xml", "a.wms", "a"])
def test_a_web_map_service_under_any_name_calls_nobody(mine, network, name):
    host, seen = network
    (mine / name).write_text(WMS.format(host=host))
    with pytest.raises(rasters.RasterError, match="names other data"):
        read(mine / name)
    assert not seen


@pytest.mark.parametrize(
    "source", ["/vsicurl/http://{host}/x.tif", "http://{host}/x.tif", "WMS:http://{host}/?x"]
)
def test_a_vrt_of_something_remote_calls_nobody(mine, network, source):
    host, seen = network
    (mine / "a.vrt").write_text(VRT.format(relative=0, source=source.format(host=host)))
    (mine / "outer.vrt").write_text(VRT.format(relative=1, source="a.vrt"))
    for name in ("a.vrt", "outer.vrt"):
        with pytest.raises(
            rasters.RasterError, match=r"reads .* give allow_remote=True if you trust"
        ):
            read(mine / name)
    with pytest.raises(rasters.RasterError, match="allow_remote"):
        rasters.regions(BOX, mine / "a.vrt")
    assert not seen


def test_a_vrt_s_source_that_is_a_service_in_disguise_calls_nobody(mine, network):
    host, seen = network
    (mine / "tile.tif").write_text(WMS.format(host=host))
    (mine / "a.vrt").write_text(VRT.format(relative=1, source="tile.tif"))
    with pytest.raises(rasters.RasterError, match=r"tile\.tif, a text that names other data"):
        read(mine / "a.vrt")
    inline = WMS.format(host=host).replace("<", "&lt;").replace(">", "&gt;")
    (mine / "b.vrt").write_text(VRT.format(relative=0, source=inline))
    with pytest.raises(rasters.RasterError, match="allow_remote"):
        read(mine / "b.vrt")
    assert not seen


def test_who_trusts_it_says_so(mine, network):
    host, seen = network
    (mine / "a.wms").write_text(WMS.format(host=host))
    with pytest.warns(rasters.FailedRegionsWarning):
        read(mine / "a.wms", allow_remote=True)
    assert seen


def test_python_in_a_vrt_does_not_run(mine, secret):
    text = VRT.format(relative=0, source=secret).replace(
        '<VRTRasterBand dataType="Byte" band="1">',
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python"
        "</PixelFunctionLanguage><PixelFunctionCode><![CDATA[\n"
        f"open({str(mine / 'ran')!r}, 'w')\n]]></PixelFunctionCode>",
    )
    (mine / "a.vrt").write_text(text)
    with pytest.warns((rasters.RasterWarning, rasters.FailedRegionsWarning)):
        read(mine / "a.vrt")
    assert not (mine / "ran").exists()


OGR = (
    '<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>{}</SrcDataSource></OGRVRTLayer>'
    "</OGRVRTDataSource>"
)


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.shp", "a"])
def test_a_table_that_names_other_data_is_refused(mine, network, name):
    host, seen = network
    (mine / name).write_text(OGR.format(f"/vsicurl/http://{host}/x.geojson"))
    with pytest.raises(rasters.RegionError, match="names other data"):
        rasters.read_table(mine / name)
    (mine / "a.vrt").write_text(OGR.format(f"/vsicurl/http://{host}/x.geojson"))
    with pytest.raises(rasters.RasterError, match="allow_remote"):
        rasters.read_table(mine / "a.vrt")
    assert not seen


@pytest.mark.timeout(60)
def test_only_regular_files_are_read(mine):
    os.mkfifo(mine / "pipe.tif")
    (mine / "zero.tif").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(mine / "s.tif"))
        for name in ("pipe.tif", "zero.tif", "s.tif"):
            with pytest.raises(rasters.RasterError, match="a device, a pipe or a socket"):
                read(mine / name)
            with pytest.raises(rasters.RasterError, match="a device, a pipe or a socket"):
                rasters.read_table(mine / name)
    with pytest.raises(FileNotFoundError):
        read("a\0b.tif")
    with pytest.raises(FileNotFoundError):
        rasters.read_table("a\0b.csv")


def test_a_block_larger_than_the_memory_is_refused_before_it_is_read(mine):
    with rasterio.open(
        mine / "bomb.tif", "w", driver="GTiff", width=30_000, height=30_000, count=1,
        dtype="uint8", tiled=True, blockxsize=29_984, blockysize=29_984, sparse_ok=True,
    ):  # fmt: skip
        pass
    assert (mine / "bomb.tif").stat().st_size < 10_000
    with pytest.raises(rasters.RasterError, match="takes 899 MB and is read whole"):
        read(mine / "bomb.tif", memory="256MiB")


def test_ids_stay_in_the_folder(mine, secret):
    table = BOX.set_axis(["../../escaped"])
    plan = rasters.plan(secret, table)
    for form in ("geotiff", "png", "webdataset"):
        plan.write(mine / form, form, progress=False)
    names = {path.name for path in mine.parent.rglob("*") if "escaped" in path.name}
    assert all(path.is_relative_to(mine) for path in mine.parent.rglob("*escaped*"))
    assert len(names) == 2


def test_a_side_file_that_names_overviews_elsewhere_is_refused(mine, secret):
    path = mine / "photo.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8"
    ) as target:
        target.write(np.full((1, 64, 64), 7, np.uint8))
    (mine / "photo.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS">'
        f'<MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata></PAMDataset>'
    )
    with pytest.raises(rasters.RasterError, match="overviews lie in another file"):
        read(path)
    assert (read(path, allow_remote=True) == 7).all()


@pytest.mark.parametrize("name", ["places.csv.gz", "places.zip"])
def test_a_small_archive_of_a_huge_table_is_refused(mine, monkeypatch, name):
    table = "x,y\n" + "1,2\n" * 100_000
    if name.endswith(".gz"):
        (mine / name).write_bytes(gzip.compress(table.encode()))
    else:
        with zipfile.ZipFile(mine / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("places.csv", table)
    assert len(rasters.read_table(mine / name)) == 100_000
    monkeypatch.setattr(import_module("workbench._table_file"), "_MOST_TEXT", 100_000)
    with pytest.raises(rasters.RegionError, match="unpacked it takes"):
        rasters.read_table(mine / name)
