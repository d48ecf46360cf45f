"""COCO, YOLO, Pascal VOC and Annotorious: read and written as the table of boxes.

Coordinates are read to a millionth of a pixel; a table that is no finer comes back exactly, with
all that the format has a place for.
"""

import json
import os
import shutil
import warnings
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import yaml
from numpy.typing import ArrayLike, NDArray

from workbench.datasets.boxes import CORNERS, as_table, bounds, clip, image_sizes
from workbench.datasets.errors import BadDataError, SkippedWarning

Where = str | os.PathLike[str]
Notes = Counter[str]
Row = dict[Any, Any]
_DECIMALS = 6
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Object:
    """One object as a file has it; `shape` is (2, 2) corners of a box, else points."""

    image: str
    shape: ArrayLike
    label: str
    score: Any = None
    source: str | None = None
    is_box: bool = True
    fractions: bool = False

    def __post_init__(self) -> None:
        if not np.isfinite(self.shape).all():
            raise ValueError(f"coordinates must be finite, not {np.ravel(self.shape).tolist()}")
        if not self.is_box and len(np.atleast_2d(self.shape)) in (0, 2):
            raise ValueError("a polygon has 3 corners or more")


def to_coco(ds: xr.Dataset, boxes: pd.DataFrame, path: Where | None = None) -> dict[str, Any]:
    """COCO's dictionary of a table of boxes, written as JSON too where a path is given.

    ``file_name`` is the sample's id; categories come in the order of ``ds["class"]``. A polygon
    goes to ``segmentation``, a point to ``keypoints``; ``score`` and ``source`` stay with theirs.

    Raises
    ------
    BadDataError
        A sample of the table is not in `ds`.
    FileExistsError
        There is a file already.

    Examples
    --------
    >>> ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), np.zeros((1, 9, 9, 1)))},
    ...                 coords={"sample": ["a.jpg"]})
    >>> table = as_table([dict(sample="a.jpg", x_min=1, y_min=2, x_max=4, y_max=7, label="cat")])
    >>> to_coco(ds, table)["annotations"][0]["bbox"]
    [1.0, 2.0, 3.0, 5.0]
    """
    table = as_table(boxes, ds)
    classes, ids = _classes(ds, table), ds["sample"].values
    numbers = pd.Index(ids).get_indexer(table["sample"]) + 1
    annotations = []
    for i, row in enumerate(table.to_dict("records")):
        x, y, x_max, y_max = (row[name] for name in CORNERS)
        width, height = round(x_max - x, _DECIMALS), round(y_max - y, _DECIMALS)
        entry = {"id": i + 1, "image_id": int(numbers[i]), "bbox": [x, y, width, height]}
        entry |= {"category_id": classes.index(row["label"]) + 1, "area": width * height}
        entry |= {"iscrowd": 0, "segmentation": []} | _extras(row)
        if row["points"] is not None and len(row["points"]) == 1:
            entry |= {"keypoints": [*row["points"][0].tolist(), 2], "num_keypoints": 1}
        elif row["points"] is not None:
            entry["segmentation"] = [row["points"].ravel().tolist()]
        annotations.append(entry)
    images = [
        {"id": i + 1, "file_name": str(ids[i]), "height": height, "width": width}
        for i, (height, width) in enumerate(image_sizes(ds).tolist())
    ]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    if path is not None:
        with _new(Path(path).expanduser()) as part:
            part.write_text(json.dumps(content), "utf-8")
    return content


def from_coco(source: Where | Mapping[str, Any], ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from COCO's JSON or dictionary, as people have it.

    Boxes that stick out are clipped. Empty ones, crowds and those of images that are not in `ds`
    are skipped; an object of a mask or of several polygons keeps its box. Warnings count all of
    them. Images are found by the longest common end of ``file_name`` and id or path.

    Raises
    ------
    BadDataError
        The file is no such JSON, or an entry, which is named, is broken.
    """
    content, where = read_json(source)
    if not isinstance(content, Mapping) or not {"images", "annotations"} <= set(content):
        raise BadDataError(f"{where} is no COCO data: that has images, annotations and categories")
    notes: Notes = Counter()
    return _table(_coco_objects(content, where, notes), ds, where, notes)


def _coco_objects(content: Mapping[str, Any], where: str, notes: Notes) -> Iterator[_Object]:
    images, names = {}, {}
    for i, image in enumerate(content["images"]):
        with _entry(f"{where}, images[{i}]"):
            images[image["id"]] = str(image["file_name"])
    for i, category in enumerate(content.get("categories", [])):
        with _entry(f"{where}, categories[{i}]"):
            names[category["id"]] = str(category["name"])
    for i, entry in enumerate(content["annotations"]):
        with _entry(f"{where}, annotations[{i}]"):
            x, y, width, height = map(float, entry["bbox"])
            shape: Any = [[x, y], [x + width, y + height]]
            parts, is_box = entry.get("segmentation") or [], False
            if isinstance(parts, list) and len(parts) == 1:
                shape = np.reshape(parts[0], (-1, 2))
            elif entry.get("num_keypoints") == 1:
                shape = np.reshape(entry["keypoints"], (-1, 3))[:1, :2]
            else:
                is_box = True
            image, label = images[entry["image_id"]], names[entry["category_id"]]
            one = _Object(image, shape, label, entry.get("score"), entry.get("source"), is_box)
        if entry.get("iscrowd"):
            notes["crowds were skipped"] += 1
        else:
            notes["of a mask or several polygons are kept as their boxes"] += bool(parts and is_box)
            yield one


def to_yolo(ds: xr.Dataset, boxes: pd.DataFrame, path: Where) -> Path:
    """Write YOLO's folder: ``labels/name.txt`` for every image, and ``data.yaml``.

    A line is ``class cx cy w h``, or the corners of a polygon, in fractions of the image, and the
    score behind them where there is one. Points have no place there and are left out, with a
    warning. Images are not copied: YOLO looks for them in ``images/``.

    Raises
    ------
    BadDataError
        A sample is not in `ds`, or two would share a file.
    FileExistsError
        There is something of that name already.
    """
    table, root = as_table(boxes, ds), Path(path).expanduser()
    is_point = np.array([own is not None and len(own) == 1 for own in table["points"]], bool)
    _warn(str(root), Counter({"points have no place in YOLO and were left out": is_point.sum()}))
    classes = _classes(ds, table)

    def text(rows: list[Row], size: NDArray[np.int64]) -> str:
        lines = []
        for row in rows:
            low, high = np.reshape([row[name] for name in CORNERS], (2, 2))
            shape = [(low + high) / 2, high - low] if row["points"] is None else row["points"]
            score = [] if np.isnan(row["score"]) else [row["score"]]
            numbers = [*(np.asarray(shape) / size[::-1]).ravel().tolist(), *score]
            lines.append(" ".join(map(repr, [classes.index(row["label"]), *numbers])) + "\n")
        return "".join(lines)

    about = {"path": ".", "train": "images", "val": "images", "names": classes}
    files = {"data.yaml": yaml.safe_dump(about, sort_keys=False, allow_unicode=True)}
    return _write_folder(root, files | _files(ds, table[~is_point], "labels/{}.txt", text))


def from_yolo(path: Where, ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from YOLO's folder: ``labels/**/*.txt``, ``data.yaml`` or ``classes.txt``.

    Raises
    ------
    BadDataError
        A line, which is named, is broken, or the names of the classes are nowhere.
    """
    root = Path(path).expanduser()
    return _table(_yolo_objects(root), ds, str(root), Counter())


def _yolo_objects(root: Path) -> Iterator[_Object]:
    names = yolo_classes(root)
    folder = root / "labels" if (root / "labels").is_dir() else root
    for file in sorted(folder.rglob("*.txt")):
        lines = [] if file.name == "classes.txt" else file.read_text("utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            with _entry(f"{file}, line {number}"):
                kind, *values = map(float, line.split())
                if len(values) < 4 or kind not in range(len(names)):
                    raise ValueError(
                        f"{line[:60]!r}; right is a class from 0 to {len(names) - 1} and then "
                        "cx cy w h, or the corners of a polygon"
                    )
                score = values.pop() if len(values) % 2 else None
                shape, is_box = np.reshape(values, (-1, 2)), len(values) == 4
                if is_box:
                    shape = shape[0] + shape[1] * [[-0.5], [0.5]]
                image = str(file.relative_to(folder))[: -len(".txt")]
                one = _Object(image, shape, names[int(kind)], score, None, is_box, True)
            yield one


def yolo_classes(root: Path) -> list[str]:
    """The names of the classes of YOLO's folder, in the order of their numbers."""
    for file in (root / "data.yaml", *sorted(root.glob("*.yaml"))):
        if file.is_file():
            with _entry(str(file)):
                names = yaml.safe_load(file.read_text("utf-8"))["names"]
                return [str(names[i]) for i in range(len(names))]
    for file in (root / "classes.txt", root / "labels" / "classes.txt"):
        if file.is_file():
            return file.read_text("utf-8").splitlines()
    raise BadDataError(f"{root} has no data.yaml or classes.txt, which name the classes")


def to_voc(ds: xr.Dataset, boxes: pd.DataFrame, path: Where) -> Path:
    """Write Pascal VOC's folder: ``Annotations/name.xml`` for every image.

    VOC counts pixels from 1 and names the last one inside: ``xmin`` is ``x_min`` + 1, ``xmax`` is
    ``x_max``. Polygons and points are written as their boxes, with a warning.

    Raises
    ------
    BadDataError
        A sample is not in `ds`, or two would share a file.
    FileExistsError
        There is something of that name already.
    """
    table, root = as_table(boxes, ds), Path(path).expanduser()
    shaped = int(table["points"].notna().sum())
    _warn(str(root), Counter({"polygons and points are written as their boxes": shaped}))

    def text(rows: list[Row], size: NDArray[np.int64]) -> str:
        tree = ET.Element("annotation")
        _fill(tree, {"size": {"width": size[1], "height": size[0], "depth": 3}})
        for row in rows:
            corners = [row["x_min"] + 1, row["y_min"] + 1, row["x_max"], row["y_max"]]
            texts = [f"{value:.6f}".rstrip("0").rstrip(".") for value in corners]
            box = dict(zip(_VOC_CORNERS, texts, strict=True))
            _fill(tree, {"object": {"name": row["label"], "bndbox": box} | _extras(row)})
        ET.indent(tree)
        return ET.tostring(tree, encoding="unicode")

    return _write_folder(root, _files(ds, table, "Annotations/{}.xml", text))


def from_voc(path: Where, ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from Pascal VOC's folder: ``Annotations/**/*.xml``, or XML files alone.

    Raises
    ------
    BadDataError
        A file, by its line, or an object in it, by its number, is broken.
    """
    root, notes = Path(path).expanduser(), Notes()
    return _table(_voc_objects(root, notes), ds, str(root), notes)


def _voc_objects(root: Path, notes: Notes) -> Iterator[_Object]:
    folder = root / "Annotations" if (root / "Annotations").is_dir() else root
    for file in sorted(folder.rglob("*.xml")):
        with _entry(str(file)):
            tree = ET.fromstring(file.read_bytes())  # noqa: S314 - expat stops entity bombs
        for number, entry in enumerate(tree.findall("object"), 1):
            with _entry(f"{file}, object {number}"):
                texts = [entry.findtext(f"bndbox/{name}") or "nothing" for name in _VOC_CORNERS]
                shape = np.reshape(list(map(float, texts)), (2, 2))
                if (shape[0] == shape[1]).all():
                    notes["are one pixel large, as a click without a drag leaves them"] += 1
                image = str(file.relative_to(folder))[: -len(".xml")]
                shape[0] -= 1
                label, score, source = map(entry.findtext, ("name", "score", "source"))
                one = _Object(image, shape, label or "", score, source)
            yield one


def to_annotorious(
    ds: xr.Dataset, boxes: pd.DataFrame, path: Where | None = None
) -> list[dict[str, Any]]:
    """Annotorious' list of annotations: rectangles and polygons in fractions of the image.

    Raises
    ------
    BadDataError
        A sample of the table is not in `ds`.
    FileExistsError
        There is a file already.
    """
    table = as_table(boxes, ds)
    at = pd.Index(ds["sample"].values).get_indexer(table["sample"])
    content = []
    for scale, row in zip(image_sizes(ds)[at, ::-1], table.to_dict("records"), strict=True):
        corners = np.reshape([row[name] for name in CORNERS], (2, 2)) / scale
        (x, y), (width, height) = corners[0].tolist(), (corners[1] - corners[0]).tolist()
        shape: dict[str, Any] = {"type": "rect"}
        shape["geometry"] = {"x": x, "y": y, "width": width, "height": height}
        if row["points"] is not None:
            points = [{"x": x, "y": y} for x, y in (row["points"] / scale).tolist()]
            shape = {"type": "polygon", "geometry": {"points": points}}
        entry = {"src": str(row["sample"]), "text": row["label"], "shapes": [shape]}
        content.append(entry | _extras(row))
    if path is not None:
        with _new(Path(path).expanduser()) as part:
            part.write_text(json.dumps(content), "utf-8")
    return content


def from_annotorious(source: Where | Sequence[Mapping[str, Any]], ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from Annotorious' annotations: ``src``, ``text`` and ``shapes`` of each.

    Raises
    ------
    BadDataError
        The file is no such JSON, or an annotation, by its number, is broken.
    """
    content, where = read_json(source)
    if not isinstance(content, list):
        raise BadDataError(f"{where} is no Annotorious data: that is a list of annotations")
    return _table(_annotorious_objects(content, where), ds, where, Counter())


def _annotorious_objects(content: list[Any], where: str) -> Iterator[_Object]:
    for i, entry in enumerate(content):
        with _entry(f"{where}, [{i}]"):
            image, label = str(entry["src"]), str(entry.get("text") or "")
            shapes = [(shape["geometry"], shape["type"] != "polygon") for shape in entry["shapes"]]
            for geometry, is_box in shapes:
                if is_box:
                    x, y, w, h = (float(geometry[key]) for key in ("x", "y", "width", "height"))
                    points = [[x, y], [x + w, y + h]]
                else:
                    points = [[float(p["x"]), float(p["y"])] for p in geometry["points"]]
                score, source = entry.get("score"), entry.get("source")
                yield _Object(image, points, label, score, source, is_box, True)


def _table(objects: Iterable[_Object], ds: xr.Dataset, where: str, notes: Notes) -> pd.DataFrame:
    """The table of what was read, clipped; warnings count what is not as it stood."""
    position, sizes, rows = _finder(ds, where), image_sizes(ds), []
    for one in objects:
        if (at := position(one.image)) is None:
            notes["of images that are not in the dataset were skipped"] += 1
            continue
        shape = np.asarray(one.shape, np.float64)
        shape = (shape * sizes[at][::-1] if one.fractions else shape).round(_DECIMALS)
        corners = [*shape[0], *shape.max(axis=0)] if one.is_box else bounds(shape)
        score = np.nan if one.score is None else float(one.score)
        row = [ds["sample"].values[at], *corners, one.label, score, one.source or ""]
        rows.append([*row, None if one.is_box else shape])
    if not rows and notes["of images that are not in the dataset were skipped"]:
        raise BadDataError(f"{where}: none of its images is in the dataset, by id or path")
    _warn(where, notes)
    columns = ["sample", *CORNERS, "label", "score", "source", "points"]
    return clip(pd.DataFrame(rows, columns=columns), ds, where)


def _finder(ds: xr.Dataset, where: str) -> Callable[[str], int | None]:
    """A function from an image's name in a file to its position in the dataset, or None."""
    paths = ds["path"].values if "path" in ds else ds["sample"].values
    known: dict[str, list[tuple[int, list[str]]]] = {}
    for at, names in enumerate(zip(ds["sample"].values, paths, strict=True)):
        for parts in map(_parts, map(str, names)):
            for key in {parts[0], PurePosixPath(parts[0]).stem}:
                known.setdefault(key, []).append((at, parts))

    def position(name: str) -> int | None:
        parts = _parts(name)
        stem = PurePosixPath(parts[0]).stem
        near = known.get(parts[0]) or known.get(stem, [])
        common: Counter[int] = Counter()
        for at, own in near:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(parts[1:], own[1:], strict=False))
            nearness = 2 * len(list(same)) + (parts[1:] == own[1:])
            common[at] = max(common[at], nearness)
        best = [at for at, length in common.items() if length == max(common.values())]
        if len(best) > 1:
            ids = ds["sample"].values[best[:5]].tolist()
            raise BadDataError(f"{where}: image {name!r} may be any of the samples {ids}")
        return best[0] if best else None

    return position


def _parts(name: str) -> list[str]:
    """The parts of a path, the file's name first."""
    return name.replace("\\", "/").split("/")[::-1]


@contextmanager
def _entry(where: str) -> Iterator[None]:
    """Say of an error which entry of a file is to blame."""
    try:
        yield
    except KeyError as error:
        raise BadDataError(f"{where}: there is no {error}") from error
    except (TypeError, ValueError, AttributeError, IndexError, SyntaxError) as error:
        raise BadDataError(f"{where}: {error}") from error


def _warn(where: str, notes: Notes) -> None:
    if said := ", ".join(f"{count} {what}" for what, count in notes.items() if count):
        warnings.warn(f"{where}: of the objects {said}", SkippedWarning, stacklevel=4)


def read_json(source: Any) -> tuple[Any, str]:
    """What a file of JSON holds, or what was given in its place; and what to call it."""
    if not isinstance(source, str | os.PathLike):
        return source, "the data given"
    with _entry(str(source)):  # JSON's own error tells the line
        return json.loads(Path(source).expanduser().read_text("utf-8")), str(source)


def _classes(ds: xr.Dataset, table: pd.DataFrame) -> list[str]:
    """The names of the dataset's classes, and then those that only boxes have."""
    known = [str(name) for name in ds["class"].values] if "class" in ds.coords else []
    return [*known, *sorted(set(table["label"]) - set(known))]


def _extras(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Score and source, where an object has them."""
    score = {} if np.isnan(row["score"]) else {"score": row["score"]}
    return score | ({"source": row["source"]} if row["source"] else {})


def _fill(parent: ET.Element, content: Mapping[str, Any]) -> None:
    """Add XML elements of nested names and texts."""
    for name, value in content.items():
        element = ET.SubElement(parent, name)
        if isinstance(value, Mapping):
            _fill(element, value)
        else:
            element.text = str(value)


def _files(
    ds: xr.Dataset,
    table: pd.DataFrame,
    name: str,
    text: Callable[[list[Row], NDArray[np.int64]], str],
) -> dict[str, str]:
    """Name and content of one file an image, given by its boxes and its size."""
    own = {sample: rows.to_dict("records") for sample, rows in table.groupby("sample")}
    files = {}
    for sample, size in zip(ds["sample"].values.tolist(), image_sizes(ds), strict=True):
        path = PurePosixPath(_parts(str(sample))[-1], *_parts(str(sample))[-2::-1])
        if path.suffix.lower() in _SUFFIXES:
            path = path.with_suffix("")
        if (file := name.format(path)) in files or ".." in path.parts or path.is_absolute():
            raise BadDataError(f"sample {sample!r} has no file of its own: {file}")
        files[file] = text(own.get(sample, []), size)
    return files


def _write_folder(root: Path, files: Mapping[str, str]) -> Path:
    """Write a folder of text files, which is there as a whole or not at all."""
    with _new(root) as part:
        shutil.rmtree(part, ignore_errors=True)  # of an attempt that was interrupted
        for name, text in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_text(text, "utf-8")
    return root


@contextmanager
def _new(target: Path) -> Iterator[Path]:
    """A place to write at, which takes the target's name when all of it is written."""
    if target.exists():
        raise FileExistsError(f"{target} is there already; choose another name or remove it")
    part = target.with_name(f".{target.name}.part")
    yield part
    part.replace(target)
