"""Class numbers and 0/1 flags out of the cells of a table."""

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.datasets.errors import BadDataError, warn

Columns = dict[str, list[Any]]
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d{0,17}))(\.0{1,9})?")
_TRUE = {"1", "1.0", "true"}
_FALSE = {"0", "0.0", "false"}
_MINUS = {"-1", "-1.0"}
_NOTHING = {"nan", "na", "n/a", "none", "null", "<na>"}


def blank(value: Any) -> bool:
    """Say whether a cell holds nothing: None, an empty text or not-a-number."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def single(
    values: Sequence[Any], where: str, classes: Sequence[str] | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Return class numbers, -1 for blank cells, and the class names.

    Whole numbers stay as they are, unless they are -1 and 1 only, or far from 0 to K-1 (years,
    identifiers), and no names are given: then, like texts, each different one is a class.
    """
    label = np.full(len(values), -1, np.int64)
    rows = [row for row, value in enumerate(values) if not blank(value)]
    stated = [row for row in rows if str(values[row]).strip().lower() not in _NOTHING]
    if stated and all(whole_number(values[row]) is not None for row in stated):
        rows = stated  # "nan" among numbers is none; among names it may be a class
    numbers = [whole_number(values[row]) for row in rows]
    whole = [number for number in numbers if number is not None]
    signs = set(whole) == {-1, 1}
    if len(whole) == len(rows) and (classes is not None or not (signs or _sparse(whole))):
        label[rows] = whole
        names = list(classes or map(str, range(max(whole, default=-1) + 1)))
        _check_range(label, names, where)
        return label, names
    texts = [str(values[row]) for row in rows]
    if len(whole) == len(rows):
        names = [str(number) for number in sorted(set(whole))]
        texts = [str(number) for number in whole]
        if signs:
            warn(f"{where}: holds -1 and 1 only, which are read as two classes", UserWarning)
    else:
        names = sorted(set(texts)) if classes is None else list(classes)
        _warn_of_twins(names, where)
    index = {name: number for number, name in enumerate(names)}
    for row, text in zip(rows, texts, strict=True):
        if text not in index:
            close = difflib.get_close_matches(text[:100], names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise BadDataError(
                f"{where}, row {row}: {text[:100]!r} is none of the given classes{hint}"
            )
        label[row] = index[text]
    return label, names


def _warn_of_twins(names: Sequence[str], where: str) -> None:
    """Warn of class names with blanks around them or that differ in case only; they stay apart."""
    alike = Counter(name.strip().casefold() for name in names)
    odd = [name for name in names if name != name.strip() or alike[name.strip().casefold()] > 1]
    if odd:
        shown = ", ".join(map(repr, odd[:6]))
        warn(f"{where}: classes differ by blanks or case and stay apart: {shown}", UserWarning)


def flags(values: Sequence[Any], where: str, signs: bool = False) -> NDArray[np.bool_]:
    """Return a 0/1 column, or by `signs` one of -1 and 1, as booleans."""
    texts = [str(value).strip().lower() for value in values]
    for row, text in enumerate(texts):
        if text not in _TRUE and text not in (_MINUS if signs else _FALSE):
            raise BadDataError(
                f"{where}, row {row} (the first is 0): {values[row]!r} is neither 0 nor 1. "
                "A column of a multi-label table says whether an image is of that class."
            )
    return np.array([text in _TRUE for text in texts], dtype=np.bool_)


def whole_number(value: Any) -> int | None:
    """Return the number that a cell holds, if it is a whole one; 001 is a name."""
    if isinstance(value, bool | np.bool_):
        return None
    match = _WHOLE.fullmatch(str(value))
    return int(match[1]) if match else None


def _sparse(numbers: Sequence[int]) -> bool:
    return max(numbers, default=0) >= max(100, 10 * len(set(numbers)))


def _check_range(label: NDArray[np.int64], names: Sequence[str], where: str) -> None:
    outside = np.flatnonzero((label < -1) | (label >= len(names)))
    if outside.size:
        row = int(outside[0])
        raise BadDataError(
            f"{where}, row {row} (the first is 0): {label[row]} is not in 0 to {len(names) - 1}, "
            f"the numbers of {len(names)} classes, nor -1 for none"
        )


def labels_of(
    where: str,
    table: Columns,
    rows: int,
    label: str | Sequence[str] | None,
    classes: Sequence[str] | None,
) -> dict[str, Any]:
    """Return ``classes`` with ``label``, or with ``labels`` where there are several an image."""
    if isinstance(label, str) or not label:
        column = table[label] if isinstance(label, str) else [None] * rows
        where = f"{where}, column {label!r}"
        if (lists := _lists(column)) is None:
            numbers, names = single(column, where, classes)
            return {"label": numbers, "classes": names}
        flat, names = single([name for own in lists for name in own], where, classes)
        labels = np.zeros((rows, len(names)), np.bool_)
        labels[np.repeat(np.arange(rows), [len(own) for own in lists]), flat] = True
        return {"labels": labels, "classes": names}
    names = list(label if classes is None else classes)
    if len(names) != len(label):
        raise BadDataError(
            f"classes names {len(names)} classes and label names {len(label)} columns: "
            "there must be one name for each column"
        )
    # -1 beside 0 means something else, as "uncertain" does in CheXpert
    found = {str(value).strip() for name in label for value in table[name]}
    signs = bool(found & _MINUS) and found <= _MINUS | _TRUE
    marks = [flags(table[name], f"{where}, column {name!r}", signs) for name in label]
    return {"labels": np.stack(marks, axis=1), "classes": names}


def _lists(column: list[Any]) -> list[list[Any]] | None:
    """Several labels an image: lists, JSON lists or ``cat|dog``; None where cells hold one each."""
    filled = [cell for cell in column if not (isinstance(cell, list) or blank(cell))]
    if len(filled) < len(column) and not filled and any(isinstance(cell, list) for cell in column):
        return [cell or [] for cell in column]
    if not filled or not all(isinstance(cell, str) for cell in filled):
        return None
    if all(cell.startswith("[") and cell.endswith("]") for cell in filled):
        try:
            return [json.loads(cell) if cell else [] for cell in column]
        except (ValueError, RecursionError):
            return None
    if any("|" in cell for cell in filled):
        return [[name.strip() for name in cell.split("|")] if cell else [] for cell in column]
    return None
