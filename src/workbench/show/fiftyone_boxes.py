"""Boxes to FiftyOne's Detections and back."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.datasets.boxes import CORNERS, as_table, bounds, image_sizes
from workbench.show.fiftyone_bridge import ID_FIELD, connect

_DECIMALS = 6


def boxes_to_fiftyone(
    dataset: Any, ds: xr.Dataset, boxes: pd.DataFrame, field: str = "boxes"
) -> None:
    """Add a table of boxes to a FiftyOne dataset as ``Detections``.

    Parameters
    ----------
    dataset
        What :func:`to_fiftyone` made of `ds`.
    ds
        The image dataset.
    boxes
        The table. ``score`` becomes ``confidence``; ``source``, and the ``points`` of a polygon,
        which the App shows as its box, are attributes of the detection.
    field
        Where they are kept with each sample; what was there is replaced.

    Raises
    ------
    ValueError
        A sample of the table is not in `ds`.

    Examples
    --------
    >>> boxes_to_fiftyone(to_fiftyone(ds), ds, table)  # doctest: +SKIP
    """
    fo = connect()
    table = as_table(boxes, ds)
    at = pd.Index(ds["sample"].values).get_indexer(table["sample"])
    found: dict[str, list[Any]] = {str(sample): [] for sample in ds["sample"].values}
    for scale, row in zip(image_sizes(ds)[at, ::-1], table.to_dict("records"), strict=True):
        low, high = np.reshape([row[name] for name in CORNERS], (2, 2)) / scale
        more = {} if row["points"] is None else {"points": row["points"].tolist()}
        more |= {} if np.isnan(row["score"]) else {"confidence": row["score"]}
        box = [*low.tolist(), *(high - low).tolist()]
        detection = fo.Detection(label=row["label"], bounding_box=box, source=row["source"], **more)
        found[str(row["sample"])].append(detection)
    ids = dataset.values(ID_FIELD)
    dataset.set_values(field, [fo.Detections(detections=found[name]) for name in ids])


def boxes_from_fiftyone(view: Any, ds: xr.Dataset, field: str = "boxes") -> pd.DataFrame:
    """Table of boxes from a field of ``Detections``, as it was drawn or edited in the App.

    Parameters
    ----------
    view
        A view of a dataset that :func:`to_fiftyone` made.
    ds
        The image dataset that was handed over.
    field
        Where the detections are.

    Returns
    -------
    pandas.DataFrame
        In pixels of the full-size image, to a millionth. A polygon whose box was moved in the App
        comes back as that box.

    Raises
    ------
    ValueError
        There is no such field, or the samples are not of `ds`.

    Examples
    --------
    >>> table = boxes_from_fiftyone(session.view, ds)  # doctest: +SKIP
    """
    schema = view.get_field_schema()
    if ID_FIELD not in schema or field not in schema:
        raise ValueError(f"the samples have no field {field!r} beside {ID_FIELD!r}; "
                         f"they have {', '.join(schema)}")  # fmt: skip
    position = {str(sample): at for at, sample in enumerate(ds["sample"].values)}
    sizes, rows = image_sizes(ds), []
    for name, detections in zip(*view.values([ID_FIELD, f"{field}.detections"]), strict=True):
        if name not in position:
            raise ValueError(f"sample {name!r} is not of the dataset given")
        scale = sizes[position[name]][::-1]
        for one in detections or []:
            x, y, width, height = one.bounding_box
            corners = (np.array([[x, y], [x + width, y + height]]) * scale).round(_DECIMALS)
            points = one["points"] if one.has_field("points") else None
            if points is not None and not np.allclose(bounds(np.array(points)), corners.ravel()):
                points = None
            row = dict(zip(CORNERS, corners.ravel().tolist(), strict=True))
            row |= {"sample": ds["sample"].values[position[name]], "label": one.label or ""}
            source = one["source"] if one.has_field("source") else ""
            rows.append(row | {"score": one.confidence, "source": source, "points": points})
    return as_table(rows, ds)
