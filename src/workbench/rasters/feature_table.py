"""Chips and boxes on them as geometries on the map."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray

from workbench.datasets.boxes import CORNERS, as_table
from workbench.rasters.errors import RegionError


def to_features(
    ds: xr.Dataset, boxes: pd.DataFrame | None = None, path: str | os.PathLike[str] | None = None
) -> Any:
    """Chips, or boxes and polygons found on them, as a GeoDataFrame in map coordinates.

    Parameters
    ----------
    ds
        The chips' dataset, with ``geotransform`` and, in ``attrs``, the ``crs``.
    boxes
        A table of boxes in the pixels of their chips: ``sample``, ``x_min``, ``y_min``, ``x_max``,
        ``y_max``, or ``points``; other columns are carried along. By default the chips themselves,
        with what the dataset has of each, are the features.
    path
        Write them there too: ``.gpkg``, ``.geojson`` (then in longitude and latitude, as its
        standard wants), or what else geopandas writes.

    Returns
    -------
    geopandas.GeoDataFrame
        One feature a row; its geometry is a polygon, a point where ``points`` has one.

    Raises
    ------
    RegionError, BadDataError
        The dataset has no ``geotransform``, or not the samples of the boxes.

    Examples
    --------
    >>> place = ("sample", "coefficient"), [[500.0, 2, 0, 900, 0, -2]]
    >>> chips = xr.Dataset({"geotransform": place}, {"sample": ["a"]}, {"crs": "EPSG:32633"})
    >>> found = pd.DataFrame({"sample": ["a"], "x_min": [1], "y_min": [0], "x_max": [3],
    ...                       "y_max": [2]})
    >>> to_features(chips, found).total_bounds.tolist()
    [502.0, 896.0, 506.0, 900.0]
    """
    import geopandas

    if "geotransform" not in ds:
        raise RegionError("the dataset has no geotransform: it does not say where its chips lie")
    table = _chips(ds) if boxes is None else as_table(boxes, ds)
    at = pd.Index(ds["sample"].values).get_indexer(pd.Index(table["sample"]))
    places = ds["geotransform"].values[at]
    corners = table[CORNERS].to_numpy(float)
    shapes = _polygons(places, corners)
    for row in np.flatnonzero(table["points"].notna()):
        xy = np.stack(_on_map(places[row], *np.asarray(table["points"].iloc[row]).T), axis=1)
        shapes[row] = shapely.Point(xy[0]) if len(xy) == 1 else shapely.Polygon(xy)
    features = geopandas.GeoDataFrame(
        table.drop(columns="points"), geometry=shapes, crs=ds.attrs.get("crs")
    )
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        geojson = target.suffix.lower() in (".geojson", ".json") and features.crs is not None
        (features.to_crs("EPSG:4326") if geojson else features).to_file(target)
    return features


def _on_map(place: Any, x: Any, y: Any) -> tuple[Any, Any]:
    x0, x_col, x_row, y0, y_col, y_row = np.moveaxis(place, -1, 0)
    return x0 + x * x_col + y * x_row, y0 + x * y_col + y * y_row


def _polygons(places: NDArray[Any], corners: NDArray[Any]) -> NDArray[Any]:
    """Boxes (x_min, y_min, x_max, y_max) as polygons on the map, turned where the raster is."""
    x, y = _on_map(places[:, None], corners[:, [0, 2, 2, 0]], corners[:, [1, 1, 3, 3]])
    polygons: NDArray[Any] = shapely.polygons(np.stack([x, y], axis=2))
    return polygons


def _chips(ds: xr.Dataset) -> pd.DataFrame:
    """Each chip as a box around all of its pixels, with what is known of it."""
    own = [name for name in ds.data_vars if ds[name].dims == ("sample",)]
    table = pd.DataFrame({name: ds[name].values for name in own})
    table.insert(0, "sample", ds["sample"].values)
    if "label" in table and "class" in ds.coords:
        names = np.append(ds["class"].values.astype(object), "")
        table["label"] = names[table["label"]]
    table["points"] = None
    place = ds["geotransform"].values
    sides = np.stack([ds["width"].values, ds["height"].values], axis=1)
    steps = np.hypot(place[:, [1, 2]], place[:, [4, 5]])
    whole = np.array([ds.sizes["x"], ds.sizes["y"]]) if "image" in ds else sides.max(axis=0)
    # chips of their own size have the same steps, and the largest fills the array
    own_size = np.ptp(steps, axis=0).max() <= 1e-9 * steps.max() and (sides.max(0) == whole).all()
    x_max, y_max = (sides if own_size else np.broadcast_to(whole, sides.shape)).T
    return table.assign(x_min=0.0, y_min=0.0, x_max=x_max, y_max=y_max)
