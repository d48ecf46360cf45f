"""COCO, YOLO, Pascal VOC and Annotorious: read and written as the table of boxes.

Coordinates are read to a millionth of a pixel; a table that is no finer comes back exactly, with
all that the format has a place for. Readers clip what sticks out of its image, skip what is empty
or of an image that is not in the dataset, warn with the counts, and raise ``BadDataError`` that
names the broken line or entry. Writers raise ``FileExistsError`` where something is there, and
``BadDataError`` where a sample of the table is not in the dataset.
"""

import json
import os
import shutil
import warnings
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from workbench import datasets
from workbench._samples import classes_of
from workbench.datasets.boxes import CORNERS, as_table, bounds, clip, image_sizes
from workbench.datasets.errors import BadDataError, DataNotFoundError, SkippedWarning

Where = str | os.PathLike[str]
_DECIMALS = 6
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NO_IMAGE = "of images that are not in the dataset were skipped"


class _Object(NamedTuple):
    """One object as a file has it: the two corners of a box, or the points of a shape."""

    image: str
    points: Any
    label: str
    score: Any = None
    source: str | None = None
    is_box: bool = True


class _Place:
    """What is read, the entry that is at hand, and what was not taken as it stood."""

    def __init__(self, where: Where) -> None:
        self.where = self.entry = str(where)
        self.notes = Counter[str]()

    def warn(self) -> None:
        """Say how many objects are not as they stood."""
        if said := ", ".join(f"{count} {what}" for what, count in self.notes.items() if count):
            text = f"{self.where}: of the objects {said}"
            warnings.warn(text, SkippedWarning, stacklevel=4)


def load(
    path: Where, images: Where | None = None, **options: Any
) -> tuple[xr.Dataset, pd.DataFrame]:
    """Load images with their boxes: a VOC or YOLO folder, a COCO or Annotorious JSON file.

    Parameters
    ----------
    path
        A folder with ``Annotations/*.xml`` or ``labels/*.txt``, or a ``.json`` file.
    images
        The folder of the images; left out, it is looked for where the format has it.
    **options
        As :func:`workbench.datasets.load` takes them for a folder.

    Returns
    -------
    xarray.Dataset, pandas.DataFrame
        The image dataset, whose ``class`` names what boxes can be, and the table of boxes. VOC's
        ``ImageSets/Main`` become ``split``.

    Raises
    ------
    DataNotFoundError
        There is nothing at `path`.
    BadDataError
        It is in none of the formats, or broken.

    Examples
    --------
    >>> ds, table = load("BCCD")  # doctest: +SKIP
    """
    root, known = Path(path).expanduser(), list[str]()
    folders = [root.parent / "images", root.parent]
    if root.is_file():
        content, _ = _json(root)
        read: Any = from_coco if isinstance(content, dict) else from_annotorious
        known = [one["name"] for one in content["categories"]] if read is from_coco else []
    elif (root / "Annotations").is_dir():
        read, folders = from_voc, [root / "JPEGImages", root / "images", root]
    elif (root / "labels").is_dir():
        read, folders, known = from_yolo, [root / "images", root], _yolo_classes(root)
    elif root.exists():
        raise BadDataError(f"{root} has neither Annotations/ as VOC has nor labels/ as YOLO has")
    else:
        raise DataNotFoundError(f"there is nothing at {root.absolute()}")
    folder = images or next(folder for folder in folders if folder.is_dir())
    ds = datasets.load(folder, **options).drop_vars(["label", "class"])
    table = read(root, ds)
    names = [*known, *sorted(set(table["label"]) - set(known))]
    split = np.full(ds.sizes["sample"], "", dtype="<U5")
    stems = [PurePosixPath(str(name)).stem for name in ds["sample"].values]
    for file in (root / "ImageSets" / "Main").glob("*.txt"):
        if file.stem in ("train", "val", "test"):
            split[np.isin(stems, file.read_text("utf-8").split())] = file.stem
    ds = ds.assign(split=("sample", split)) if (split != "").any() else ds
    return ds.assign_coords({"class": np.array(names, dtype=np.str_)}), table


def to_coco(ds: xr.Dataset, boxes: pd.DataFrame, path: Where | None = None) -> dict[str, Any]:
    """COCO's dictionary of a table of boxes, written as JSON too where a path is given.

    ``file_name`` is the sample's id; categories come in the order of ``ds["class"]``. A polygon
    goes to ``segmentation``, a point to ``keypoints``; ``score`` and ``source`` stay with theirs.

    Examples
    --------
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), np.zeros((1, 9, 9, 1)))},
    ...                 coords={"sample": ["a.jpg"]})
    >>> table = as_table([dict(sample="a.jpg", x_min=1, y_min=2, x_max=4, y_max=7, label="cat")])
    >>> to_coco(ds, table)["annotations"][0]["bbox"]
    [1.0, 2.0, 3.0, 5.0]
    """
    classes, annotations = _classes(ds, boxes), list[dict[str, Any]]()
    for row in _rows(ds, boxes):
        box = [*row["low"].tolist(), *(row["high"] - row["low"]).round(_DECIMALS).tolist()]
        entry = {"id": len(annotations) + 1, "image_id": row["at"] + 1, "iscrowd": 0, "bbox": box}
        entry |= {"category_id": classes.index(row["label"]) + 1, "area": box[2] * box[3]}
        flat = [] if row["points"] is None else row["points"].ravel().tolist()
        entry["segmentation"] = [flat] if len(flat) > 2 else []
        if len(flat) == 2:
            entry |= {"keypoints": [*flat, 2], "num_keypoints": 1}
        annotations.append(entry | row["extras"])
    pictures = zip(ds["sample"].values.tolist(), image_sizes(ds).tolist(), strict=True)
    content = {
        "images": [
            {"id": i, "file_name": str(name), "height": height, "width": width}
            for i, (name, (height, width)) in enumerate(pictures, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
        "annotations": annotations,
    }
    if path is not None:
        _write(path, json.dumps(content))
    return content


def from_coco(source: Where | Mapping[str, Any], ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from COCO's JSON or dictionary, as people have it.

    Crowds are skipped and counted; an object of a mask or of several polygons keeps its box.
    """
    content, place = _json(source)
    if not isinstance(content, Mapping) or not {"images", "annotations"} <= set(content):
        raise BadDataError(f"{place.where} is no COCO data: that has images and annotations")
    return _table(_coco_objects(content, place), ds, place)


def _coco_objects(content: Mapping[str, Any], place: _Place) -> Iterator[_Object]:
    known: dict[str, dict[Any, str]] = {"images": {}, "categories": {}}
    for key, name in (("images", "file_name"), ("categories", "name")):
        place.entry = f"{place.where}, {key}"
        for i, entry in enumerate(content.get(key, [])):
            place.entry = f"{place.where}, {key}[{i}]"
            if known[key].setdefault(entry["id"], str(entry[name])) != str(entry[name]):
                raise ValueError(f"the id {entry['id']!r} is another one's already")
    place.entry = f"{place.where}, annotations"
    for i, entry in enumerate(content["annotations"]):
        place.entry = f"{place.where}, annotations[{i}]"
        x, y, width, height = map(float, entry["bbox"])
        points: Any = [[x, y], [x + width, y + height]]
        parts, is_box = entry.get("segmentation") or [], False
        if isinstance(parts, list) and len(parts) == 1:
            points = np.reshape(parts[0], (-1, 2))
        elif entry.get("num_keypoints") == 1:
            points = np.reshape(entry["keypoints"], (-1, 3))[:1, :2]
        else:
            is_box = True
        image, label = known["images"][entry["image_id"]], known["categories"][entry["category_id"]]
        if entry.get("iscrowd"):
            place.notes["crowds were skipped"] += 1
            continue
        place.notes["of a mask or several polygons keep their boxes"] += bool(parts and is_box)
        yield _Object(image, points, label, entry.get("score"), entry.get("source"), is_box)


def to_yolo(ds: xr.Dataset, boxes: pd.DataFrame, path: Where) -> Path:
    """Write YOLO's folder: ``labels/name.txt`` for every image, and ``data.yaml``.

    A line is ``class cx cy w h``, or the corners of a polygon, in fractions of the image, and the
    score where there is one. Points have no place there and are left out, with a warning. Images
    are not copied: YOLO looks for them in ``images/``.
    """
    classes, place, texts = _classes(ds, boxes), _Place(path), [""] * ds.sizes["sample"]
    for row in _rows(ds, boxes):
        shape = [(row["low"] + row["high"]) / 2, row["high"] - row["low"]]
        shape = shape if row["points"] is None else row["points"]
        if len(shape) == 1:
            place.notes["points have no place in YOLO and were left out"] += 1
            continue
        numbers = [*(np.asarray(shape) / row["scale"]).ravel().tolist()]
        numbers += [row["score"]] if "score" in row["extras"] else []
        line = " ".join(map(repr, [classes.index(row["label"]), *numbers]))
        texts[row["at"]] += f"{line}\n"
    place.warn()
    about = {"path": ".", "train": "images", "val": "images", "names": classes}
    about_text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    return _write(path, {"data.yaml": about_text} | _named(ds, "labels/{}.txt", texts))


def from_yolo(path: Where, ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from YOLO's folder: ``labels/**/*.txt``, ``data.yaml`` or ``classes.txt``."""
    root, place = Path(path).expanduser(), _Place(path)
    return _table(_yolo_objects(root, place), ds, place, fractions=True)


def _yolo_objects(root: Path, place: _Place) -> Iterator[_Object]:
    names = _yolo_classes(root)
    for file, image in _files(root, "labels", ".txt"):
        place.entry = str(file)
        lines = [] if file.name == "classes.txt" else file.read_text("utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            place.entry = f"{file}, line {number}"
            if not line.strip():
                continue
            kind, *values = map(float, line.split())
            if len(values) < 4 or kind not in range(len(names)):
                right = f"a class from 0 to {len(names) - 1} and then cx cy w h, or a polygon"
                raise ValueError(f"right is {right}; found {line[:60]!r}")
            score = values.pop() if len(values) % 2 else None
            points = np.reshape(values, (-1, 2))
            if is_box := len(points) == 2:
                points = points[0] + points[1] * [[-0.5], [0.5]]
            yield _Object(image, points, names[int(kind)], score, None, is_box)


def _yolo_classes(root: Path) -> list[str]:
    for file in sorted(root.glob("*.yaml")):
        try:
            content = yaml.safe_load(file.read_text("utf-8"))
            if isinstance(content, dict) and "names" in content:
                names = content["names"]
                return [str(names[i]) for i in range(len(names))]
        except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
            raise BadDataError(f"{file} does not name the classes: {error!r}") from error
    for file in (root / "classes.txt", root / "labels" / "classes.txt"):
        if file.is_file():
            return file.read_text("utf-8").splitlines()
    raise BadDataError(f"{root} has no data.yaml or classes.txt that names the classes")


def to_voc(ds: xr.Dataset, boxes: pd.DataFrame, path: Where) -> Path:
    """Write Pascal VOC's folder: ``Annotations/name.xml`` for every image.

    VOC counts pixels from 1 and names the last one inside: ``xmin`` is ``x_min`` + 1, ``xmax`` is
    ``x_max``. Polygons and points are written as their boxes, with a warning.
    """
    place, texts = _Place(path), []
    for height, width in image_sizes(ds).tolist():
        size = f"<width>{width}</width><height>{height}</height><depth>3</depth>"
        texts.append(f"<annotation>\n<size>{size}</size>\n")
    for row in _rows(ds, boxes):
        place.notes["polygons and points are written as their boxes"] += row["points"] is not None
        numbers = [f"{value:.{_DECIMALS}f}" for value in (*row["low"] + 1, *row["high"])]
        box = zip(_VOC_CORNERS, [text.rstrip("0").rstrip(".") for text in numbers], strict=True)
        texts[row["at"]] += (
            f"<object>{_tags({'name': row['label']} | row['extras'])}"
            f"<bndbox>{_tags(dict(box))}</bndbox></object>\n"
        )
    place.warn()
    whole = [f"{text}</annotation>\n" for text in texts]
    return _write(path, _named(ds, "Annotations/{}.xml", whole))


def _tags(content: Mapping[str, Any]) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in content.items())


def from_voc(path: Where, ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from Pascal VOC's folder: ``Annotations/**/*.xml``, or XML files alone."""
    place = _Place(path)
    return _table(_voc_objects(Path(path).expanduser(), place), ds, place)


def _voc_objects(root: Path, place: _Place) -> Iterator[_Object]:
    for file, image in _files(root, "Annotations", ".xml"):
        place.entry = str(file)
        tree = ET.fromstring(file.read_bytes())  # noqa: S314 - expat stops entity bombs
        for number, entry in enumerate(tree.findall("object"), 1):
            place.entry = f"{file}, object {number}"
            texts = [entry.findtext(f"bndbox/{name}") or "nothing" for name in _VOC_CORNERS]
            points = np.reshape(list(map(float, texts)), (2, 2))
            is_click = (points[0] == points[1]).all()
            place.notes["are one pixel large, as a click without a drag leaves them"] += is_click
            points[0] -= 1
            label, score, source = map(entry.findtext, ("name", "score", "source"))
            yield _Object(image, points, label or "", score, source)


def to_annotorious(
    ds: xr.Dataset, boxes: pd.DataFrame, path: Where | None = None
) -> list[dict[str, Any]]:
    """Annotorious' list of annotations: rectangles and polygons in fractions of the image."""
    content = []
    for row in _rows(ds, boxes):
        numbers = np.concatenate([row["low"], row["high"] - row["low"]]).reshape(2, 2)
        values = (numbers / row["scale"]).ravel().tolist()
        geometry: Any = dict(zip(("x", "y", "width", "height"), values, strict=True))
        if row["points"] is not None:
            points = (row["points"] / row["scale"]).tolist()
            geometry = {"points": [{"x": x, "y": y} for x, y in points]}
        shape = {"type": "polygon" if "points" in geometry else "rect", "geometry": geometry}
        entry = {"src": str(row["sample"]), "text": row["label"], "shapes": [shape]}
        content.append(entry | row["extras"])
    if path is not None:
        _write(path, json.dumps(content))
    return content


def from_annotorious(source: Where | Sequence[Mapping[str, Any]], ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from Annotorious' annotations: ``src``, ``text`` and ``shapes`` of each."""
    content, place = _json(source)
    if not isinstance(content, list):
        raise BadDataError(f"{place.where} is no Annotorious data: that is a list of annotations")
    return _table(_annotorious_objects(content, place), ds, place, fractions=True)


def _annotorious_objects(content: list[Any], place: _Place) -> Iterator[_Object]:
    for i, entry in enumerate(content):
        place.entry = f"{place.where}, [{i}]"
        for shape in entry["shapes"]:
            geometry, is_box = shape["geometry"], shape["type"] != "polygon"
            if is_box:
                x, y, w, h = (float(geometry[key]) for key in ("x", "y", "width", "height"))
                points = [[x, y], [x + w, y + h]]
            else:
                points = [[float(p["x"]), float(p["y"])] for p in geometry["points"]]
            label, score, source = map(entry.get, ("text", "score", "source"))
            yield _Object(str(entry["src"]), points, label or "", score, source, is_box)


def _rows(ds: xr.Dataset, boxes: pd.DataFrame) -> Iterator[dict[Any, Any]]:
    """Rows of a table with the image's position and size, and what only some of them have."""
    table, sizes = as_table(boxes, ds), image_sizes(ds)[:, ::-1]
    places = pd.Index(ds["sample"].values).get_indexer(table["sample"]).tolist()
    for at, row in zip(places, table.to_dict("records"), strict=True):
        low, high = np.reshape([row[name] for name in CORNERS], (2, 2))
        extras = {} if np.isnan(row["score"]) else {"score": row["score"]}
        extras |= {"source": row["source"]} if row["source"] else {}
        yield row | {"at": at, "scale": sizes[at], "low": low, "high": high, "extras": extras}


def _table(
    objects: Iterable[_Object], ds: xr.Dataset, place: _Place, fractions: bool = False
) -> pd.DataFrame:
    """The table of what was read, clipped; an error names the entry that is to blame."""
    finder, sizes, rows = _Finder(ds), image_sizes(ds)[:, ::-1], []
    try:
        for image, given, label, score, source, is_box in objects:
            if (at := finder.position(image)) is None:
                place.notes[_NO_IMAGE] += 1
                continue
            points = np.asarray(given, np.float64) * (sizes[at] if fractions else 1)
            if not np.isfinite(points).all() or (not is_box and len(points) in (0, 2)):
                shown = np.ravel(given).tolist()
                raise ValueError(f"a shape has finite corners, a polygon 3 or more; found {shown}")
            points = points.round(_DECIMALS)
            # A box that ends before it begins is empty.
            corners = [*points[0], *points.max(axis=0)] if is_box else bounds(points)
            row = [ds["sample"].values[at], *corners, label, score and float(score), source]
            rows.append([*row, None if is_box else points])
    except BadDataError:
        raise
    except KeyError as error:
        raise BadDataError(f"{place.entry}: there is no {error}") from error
    except (TypeError, ValueError, AttributeError, IndexError, SyntaxError) as error:
        raise BadDataError(f"{place.entry}: {error}") from error
    if not rows and place.notes[_NO_IMAGE]:
        raise BadDataError(f"{place.where}: none of its images is in the dataset, by id or path")
    place.warn()
    columns = ["sample", *CORNERS, "label", "score", "source", "points"]
    return clip(pd.DataFrame(rows, columns=columns), ds, place.where)


class _Finder:
    """Finds images by the longest end, of up to three parts, of their id or path."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ids = [str(name) for name in ds["sample"].values]
        paths = [str(path) for path in ds["path"].values] if "path" in ds else []
        self._known: dict[str, set[int]] = {}
        for names in (self._ids, paths):
            for at, name in enumerate(names):
                for end in _ends(name):
                    self._known.setdefault(end, set()).add(at)

    def position(self, image: str) -> int | None:
        """The position of an image by the name that a file has for it, or None."""
        found = next((self._known[end] for end in _ends(image) if end in self._known), set())
        whole = {at for at in found if image in (self._ids[at], self._ids[at].rpartition(".")[0])}
        if len(best := sorted(whole or found)) > 1:
            names = [self._ids[at] for at in best[:5]]
            raise ValueError(f"image {image!r} may be any of the samples {names}")
        return best[0] if best else None


def _ends(name: str) -> Iterator[str]:
    """The ends of a path, the longest first; all of them once more without the suffix."""
    parts = name.replace("\\", "/").split("/")[-3:]
    for last in (parts[-1], PurePosixPath(parts[-1]).stem):
        for i in range(len(parts)):
            yield "/".join([*parts[i:-1], last])


def _json(source: Any) -> tuple[Any, _Place]:
    """What a file of JSON holds, or what was given in its place; and what to call it."""
    if not isinstance(source, str | os.PathLike):
        return source, _Place("the data given")
    try:
        return json.loads(Path(source).expanduser().read_text("utf-8")), _Place(source)
    except (ValueError, RecursionError) as error:  # JSON's own error tells the line
        raise BadDataError(f"{source}: {error}") from error


def _classes(ds: xr.Dataset, boxes: pd.DataFrame) -> list[str]:
    """The names of the dataset's classes, and then those that only boxes have."""
    known = classes_of(ds)
    return [*known, *sorted(set(as_table(boxes)["label"]) - set(known))]


def _files(root: Path, folder: str, suffix: str) -> Iterator[tuple[Path, str]]:
    """Files of annotations and the names of their images, without a suffix."""
    place = root / folder if (root / folder).is_dir() else root
    for file in sorted(place.rglob(f"*{suffix}")):
        yield file, file.relative_to(place).as_posix()[: -len(suffix)]


def _named(ds: xr.Dataset, form: str, texts: Sequence[str]) -> dict[str, str]:
    """Text of each image by the name of its file."""
    named: dict[str, str] = {}
    for sample, text in zip(ds["sample"].values.tolist(), texts, strict=True):
        path = PurePosixPath(str(sample).replace("\\", "/"))
        is_image = path.suffix.lower() in _SUFFIXES
        name = form.format(path.with_suffix("") if is_image else path)
        if name in named or ".." in path.parts or path.is_absolute() or not path.name:
            raise BadDataError(f"sample {sample!r} has no file of its own: {name}")
        named[name] = text
    return named


def _write(path: Where, content: str | Mapping[str, str]) -> Path:
    """Write a file, or a folder of them by name, which is there as a whole or not at all."""
    target = Path(path).expanduser()
    if target.exists():
        raise FileExistsError(f"{target} is there already; choose another name or remove it")
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an attempt that was interrupted
    for name, text in ({"": content} if isinstance(content, str) else content).items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_text(text, "utf-8")
    return part.replace(target)
