"""COCO, YOLO, Pascal VOC and Annotorious: read and written as the table of boxes.

Coordinates are read to a millionth of a pixel; a table that is no finer comes back exactly, with
all that the format has a place for. Readers clip what sticks out of its image, skip what is empty
or of an image that is not in the dataset, and warn with the counts. Images are found by the
longest common end of their name and a sample's id or path.
"""

import json
import os
import shutil
import warnings
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from workbench.datasets.boxes import CORNERS, as_table, bounds, clip, image_sizes
from workbench.datasets.errors import BadDataError, SkippedWarning

Where = str | os.PathLike[str]
Row = dict[Any, Any]
Notes = Counter[str]
_DECIMALS = 6
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Object(NamedTuple):
    """One object as a file has it: the two corners of a box, or the points of a shape."""

    image: str
    points: Any
    label: str
    score: Any = None
    source: str | None = None
    is_box: bool = True


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
    classes, annotations = _classes(ds, boxes), list[Row]()
    for row in _rows(ds, boxes):
        (x, y), (width, height) = row["low"], (row["high"] - row["low"]).round(_DECIMALS).tolist()
        entry = {"id": len(annotations) + 1, "image_id": row["at"] + 1, "iscrowd": 0}
        entry |= {"bbox": [float(x), float(y), width, height], "area": width * height}
        entry |= {"category_id": classes.index(row["label"]) + 1, "segmentation": []}
        if row["points"] is not None and len(row["points"]) == 1:
            entry |= {"keypoints": [*row["points"][0].tolist(), 2], "num_keypoints": 1}
        elif row["points"] is not None:
            entry["segmentation"] = [row["points"].ravel().tolist()]
        annotations.append(entry | row["extras"])
    images = [
        {"id": i + 1, "file_name": str(name), "height": height, "width": width}
        for i, (name, (height, width)) in enumerate(
            zip(ds["sample"].values, image_sizes(ds).tolist(), strict=True)
        )
    ]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    if path is not None:
        _write(Path(path), json.dumps(content))
    return content


def from_coco(source: Where | Mapping[str, Any], ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from COCO's JSON or dictionary, as people have it.

    Crowds are skipped and counted; an object of a mask or of several polygons keeps its box.

    Raises
    ------
    BadDataError
        The file is no such JSON, or an entry, which is named, is broken.
    """
    content, where = read_json(source)
    if not isinstance(content, Mapping) or not {"images", "annotations"} <= set(content):
        raise BadDataError(f"{where} is no COCO data: that has images, annotations and categories")
    notes = Notes()
    return _table(_coco_objects(content, where, notes), ds, where, notes)


def _coco_objects(content: Mapping[str, Any], where: str, notes: Notes) -> Iterator[_Object]:
    images: Row = {}
    names: Row = {}
    for known, key, name in ((images, "images", "file_name"), (names, "categories", "name")):
        for i, entry in enumerate(content.get(key, [])):
            with _entry(f"{where}, {key}[{i}]"):
                known[entry["id"]] = str(entry[name])
    for i, entry in enumerate(content["annotations"]):
        with _entry(f"{where}, annotations[{i}]"):
            x, y, width, height = map(float, entry["bbox"])
            points: Any = [[x, y], [x + width, y + height]]
            parts, is_box = entry.get("segmentation") or [], False
            if isinstance(parts, list) and len(parts) == 1:
                points = np.reshape(parts[0], (-1, 2))
            elif entry.get("num_keypoints") == 1:
                points = np.reshape(entry["keypoints"], (-1, 3))[:1, :2]
            else:
                is_box = True
            image, label = images[entry["image_id"]], names[entry["category_id"]]
            one = _Object(image, points, label, entry.get("score"), entry.get("source"), is_box)
            if not entry.get("iscrowd"):
                notes["of a mask or several polygons keep their boxes"] += bool(parts and is_box)
                yield _checked(one)
            else:
                notes["crowds were skipped"] += 1


def to_yolo(ds: xr.Dataset, boxes: pd.DataFrame, path: Where) -> Path:
    """Write YOLO's folder: ``labels/name.txt`` for every image, and ``data.yaml``.

    A line is ``class cx cy w h``, or the corners of a polygon, in fractions of the image, and the
    score where there is one. Points have no place there and are left out, with a warning. Images
    are not copied: YOLO looks for them in ``images/``. It raises as :func:`to_coco` does.
    """
    classes, lines, notes = _classes(ds, boxes), dict[int, str](), Notes()
    for row in _rows(ds, boxes):
        shape = [(row["low"] + row["high"]) / 2, row["high"] - row["low"]]
        shape = shape if row["points"] is None else row["points"]
        if len(shape) == 1:
            notes["points have no place in YOLO and were left out"] += 1
            continue
        numbers = [*(np.asarray(shape) / row["scale"]).ravel().tolist()]
        numbers += [row["score"]] if "score" in row["extras"] else []
        text = " ".join(map(repr, [classes.index(row["label"]), *numbers]))
        lines[row["at"]] = lines.get(row["at"], "") + text + "\n"
    _warn(str(path), notes)
    about = {"path": ".", "train": "images", "val": "images", "names": classes}
    texts = {"data.yaml": yaml.safe_dump(about, sort_keys=False, allow_unicode=True)}
    texts |= {name: lines.get(at, "") for at, name in _names(ds, "labels/{}.txt").items()}
    return _write_folder(Path(path).expanduser(), texts)


def from_yolo(path: Where, ds: xr.Dataset) -> pd.DataFrame:
    """Table of boxes from YOLO's folder: ``labels/**/*.txt``, ``data.yaml`` or ``classes.txt``.

    Raises
    ------
    BadDataError
        A line, which is named, is broken, or the names of the classes are nowhere.
    """
    root = Path(path).expanduser()
    return _table(_yolo_objects(root), ds, str(root), Notes(), fractions=True)


def _yolo_objects(root: Path) -> Iterator[_Object]:
    names = yolo_classes(root)
    for file, image in _files(root, "labels", ".txt"):
        lines = [] if file.name == "classes.txt" else file.read_text("utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            with _entry(f"{file}, line {number}"):
                if not line.strip():
                    continue
                kind, *values = map(float, line.split())
                if len(values) < 4 or kind not in range(len(names)):
                    raise ValueError(
                        f"{line[:60]!r}; right is a class from 0 to {len(names) - 1} and then "
                        "cx cy w h, or the corners of a polygon"
                    )
                score = values.pop() if len(values) % 2 else None
                points = np.reshape(values, (-1, 2))
                if is_box := len(points) == 2:
                    points = points[0] + points[1] * [[-0.5], [0.5]]
                yield _checked(_Object(image, points, names[int(kind)], score, None, is_box))


def yolo_classes(root: Path) -> list[str]:
    """The names of the classes of YOLO's folder, in the order of their numbers."""
    for file in sorted(root.glob("*.yaml")):
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
    ``x_max``. Polygons and points are written as their boxes, with a warning. It raises as
    :func:`to_coco` does.
    """
    trees = [ET.Element("annotation") for _ in range(ds.sizes["sample"])]
    for tree, (height, width) in zip(trees, image_sizes(ds).tolist(), strict=True):
        _fill(tree, {"size": {"width": width, "height": height, "depth": 3}})
    notes = Notes()
    for row in _rows(ds, boxes):
        notes["polygons and points are written as their boxes"] += row["points"] is not None
        texts = [
            f"{v:.{_DECIMALS}f}".rstrip("0").rstrip(".") for v in (*row["low"] + 1, *row["high"])
        ]
        box = dict(zip(_VOC_CORNERS, texts, strict=True))
        _fill(trees[row["at"]], {"object": {"name": row["label"], "bndbox": box} | row["extras"]})
    _warn(str(path), notes)
    names = _names(ds, "Annotations/{}.xml")
    files = {name: ET.tostring(trees[at], encoding="unicode") for at, name in names.items()}
    return _write_folder(Path(path).expanduser(), files)


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
    for file, image in _files(root, "Annotations", ".xml"):
        with _entry(str(file)):
            tree = ET.fromstring(file.read_bytes())  # noqa: S314 - expat stops entity bombs
        for number, entry in enumerate(tree.findall("object"), 1):
            with _entry(f"{file}, object {number}"):
                texts = [entry.findtext(f"bndbox/{name}") or "nothing" for name in _VOC_CORNERS]
                points = np.reshape(list(map(float, texts)), (2, 2))
                if (points[0] == points[1]).all():
                    notes["are one pixel large, as a click without a drag leaves them"] += 1
                points[0] -= 1
                label, score, source = map(entry.findtext, ("name", "score", "source"))
                yield _checked(_Object(image, points, label or "", score, source))


def to_annotorious(
    ds: xr.Dataset, boxes: pd.DataFrame, path: Where | None = None
) -> list[dict[str, Any]]:
    """Annotorious' list of annotations: rectangles and polygons in fractions of the image.

    It raises as :func:`to_coco` does.
    """
    content = []
    for row in _rows(ds, boxes):
        (x, y), (width, height) = ((row[k] / row["scale"]).tolist() for k in ("low", "extent"))
        geometry = {"x": x, "y": y, "width": width, "height": height}
        shape: Row = {"type": "rect", "geometry": geometry}
        if row["points"] is not None:
            points = [{"x": x, "y": y} for x, y in (row["points"] / row["scale"]).tolist()]
            shape = {"type": "polygon", "geometry": {"points": points}}
        entry = {"src": str(row["sample"]), "text": row["label"], "shapes": [shape]}
        content.append(entry | row["extras"])
    if path is not None:
        _write(Path(path), json.dumps(content))
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
    return _table(_annotorious_objects(content, where), ds, where, Notes(), fractions=True)


def _annotorious_objects(content: list[Any], where: str) -> Iterator[_Object]:
    for i, entry in enumerate(content):
        with _entry(f"{where}, [{i}]"):
            for shape in entry["shapes"]:
                geometry, is_box = shape["geometry"], shape["type"] != "polygon"
                if is_box:
                    x, y, w, h = (float(geometry[key]) for key in ("x", "y", "width", "height"))
                    points = [[x, y], [x + w, y + h]]
                else:
                    points = [[float(p["x"]), float(p["y"])] for p in geometry["points"]]
                label, score, source = map(entry.get, ("text", "score", "source"))
                yield _checked(
                    _Object(str(entry["src"]), points, label or "", score, source, is_box)
                )


def _rows(ds: xr.Dataset, boxes: pd.DataFrame) -> Iterator[Row]:
    """Rows of a table with the image's position and size, and what only some of them have."""
    table = as_table(boxes, ds)
    places = pd.Index(ds["sample"].values).get_indexer(table["sample"]).tolist()
    sizes = image_sizes(ds)[:, ::-1]
    for at, row in zip(places, table.to_dict("records"), strict=True):
        low, high = np.reshape([row[name] for name in CORNERS], (2, 2))
        extras = {} if np.isnan(row["score"]) else {"score": row["score"]}
        extras |= {"source": row["source"]} if row["source"] else {}
        place = {"at": at, "scale": sizes[at], "low": low, "high": high, "extent": high - low}
        yield row | place | {"extras": extras}


def _table(
    objects: Iterable[_Object], ds: xr.Dataset, where: str, notes: Notes, fractions: bool = False
) -> pd.DataFrame:
    """The table of what was read, clipped; warnings count what is not as it stood."""
    position, sizes, rows = _finder(ds, where), image_sizes(ds)[:, ::-1], []
    strange = "of images that are not in the dataset were skipped"
    for image, given, label, score, source, is_box in objects:
        if (at := position(image)) is None:
            notes[strange] += 1
            continue
        points = (np.asarray(given, np.float64) * (sizes[at] if fractions else 1)).round(_DECIMALS)
        # A box that ends before it begins is empty.
        corners = [*points[0], *points.max(axis=0)] if is_box else bounds(points)
        row = [ds["sample"].values[at], *corners, label, score, source]
        rows.append([*row, None if is_box else points])
    if not rows and notes[strange]:
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
        near = known.get(parts[0]) or known.get(PurePosixPath(parts[0]).stem, [])
        common = Counter[int]()
        for at, own in near:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(parts[1:], own[1:], strict=False))
            common[at] = max(common[at], 2 * len(list(same)) + (parts[1:] == own[1:]))
        best = [at for at, nearness in common.items() if nearness == max(common.values())]
        if len(best) > 1:
            ids = ds["sample"].values[best[:5]].tolist()
            raise BadDataError(f"{where}: image {name!r} may be any of the samples {ids}")
        return best[0] if best else None

    return position


def _parts(name: str) -> list[str]:
    """The parts of a path, the file's name first."""
    return name.replace("\\", "/").split("/")[::-1]


def _checked(one: _Object) -> _Object:
    if not np.isfinite(np.asarray(one.points, float)).all():
        raise ValueError(f"coordinates must be finite, not {np.ravel(one.points).tolist()}")
    if not one.is_box and len(one.points) in (0, 2):
        raise ValueError("a polygon has 3 corners or more")
    return one._replace(score=None if one.score is None else float(one.score))


@contextmanager
def _entry(where: str) -> Iterator[None]:
    """Say of an error which entry of a file is to blame."""
    try:
        yield
    except BadDataError:
        raise
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


def _classes(ds: xr.Dataset, boxes: pd.DataFrame) -> list[str]:
    """The names of the dataset's classes, and then those that only boxes have."""
    known = [str(name) for name in ds["class"].values] if "class" in ds.coords else []
    return [*known, *sorted(set(as_table(boxes)["label"]) - set(known))]


def _fill(parent: ET.Element, content: Mapping[str, Any]) -> None:
    """Add XML elements of nested names and texts."""
    for name, value in content.items():
        element = ET.SubElement(parent, name)
        if isinstance(value, Mapping):
            _fill(element, value)
        else:
            element.text = str(value)


def _files(root: Path, folder: str, suffix: str) -> Iterator[tuple[Path, str]]:
    """Files of annotations and the names of their images, without a suffix."""
    place = root / folder if (root / folder).is_dir() else root
    for file in sorted(place.rglob(f"*{suffix}")):
        yield file, str(file.relative_to(place))[: -len(suffix)]


def _names(ds: xr.Dataset, form: str) -> dict[int, str]:
    """Position to the name of the image's file of annotations."""
    names: dict[int, str] = {}
    for at, sample in enumerate(ds["sample"].values.tolist()):
        path = PurePosixPath(*_parts(str(sample))[::-1])
        stem = path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path
        names[at] = form.format(stem)
        if ".." in path.parts or path.is_absolute() or (not sample and sample != 0):
            raise BadDataError(f"sample {sample!r} cannot be the name of a file")
    if twice := [name for name, n in Counter(names.values()).items() if n > 1]:
        raise BadDataError(f"two samples would share the file {twice[0]}")
    return names


def _write_folder(root: Path, texts: Mapping[str, str]) -> Path:
    """Write a folder of text files, which is there as a whole or not at all."""
    with _new(root) as part:
        shutil.rmtree(part, ignore_errors=True)  # of an attempt that was interrupted
        for name, text in texts.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_text(text, "utf-8")
    return root


def _write(path: Path, text: str) -> None:
    with _new(path.expanduser()) as part:
        part.write_text(text, "utf-8")


@contextmanager
def _new(target: Path) -> Iterator[Path]:
    """A place to write at, which takes the target's name when all of it is written."""
    if target.exists():
        raise FileExistsError(f"{target} is there already; choose another name or remove it")
    part = target.with_name(f".{target.name}.part")
    yield part
    part.replace(target)
