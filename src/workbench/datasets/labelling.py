"""Turn a table's column of labels into class numbers, and its 0/1 columns into marks."""

import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.datasets.errors import BadDataError

_WHOLE = re.compile(r"(-?\d+)(\.0+)?")
_TRUE = {"1", "1.0", "true"}
_FALSE = {"0", "0.0", "false"}


def blank(value: Any) -> bool:
    """Say whether a cell holds nothing: None, an empty text or not-a-number."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def single(
    values: Sequence[Any], where: str, classes: Sequence[str] | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Return class numbers, -1 for blank cells, and the class names.

    Whole numbers stay as they are, unless they are far from 0 to K-1 (years, identifiers) and no
    names are given: then, like texts, each different one is a class.
    """
    label = np.full(len(values), -1, np.int64)
    rows = [row for row, value in enumerate(values) if not blank(value)]
    numbers = [_whole(values[row]) for row in rows]
    whole = [number for number in numbers if number is not None]
    if len(whole) == len(rows) and (classes is not None or not _sparse(whole)):
        label[rows] = whole
        names = list(classes or map(str, range(max(whole, default=-1) + 1)))
        _check_range(label, names, where)
        return label, names
    texts = [str(values[row]) for row in rows]
    if len(whole) == len(rows):
        names = [str(number) for number in sorted(set(whole))]
        texts = [str(number) for number in whole]
    else:
        names = sorted(set(texts)) if classes is None else list(classes)
    index = {name: number for number, name in enumerate(names)}
    for row, text in zip(rows, texts, strict=True):
        if text not in index:
            close = difflib.get_close_matches(text, names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise BadDataError(f"{where}, row {row}: {text!r} is none of the given classes{hint}")
        label[row] = index[text]
    return label, names


def flags(values: Sequence[Any], where: str) -> NDArray[np.bool_]:
    """Return a 0/1 column as booleans."""
    texts = [str(value).strip().lower() for value in values]
    for row, text in enumerate(texts):
        if text not in _TRUE and text not in _FALSE:
            raise BadDataError(
                f"{where}, row {row} (the first is 0): {values[row]!r} is neither 0 nor 1. "
                "A column of a multi-label table says whether an image is of that class."
            )
    return np.array([text in _TRUE for text in texts], dtype=np.bool_)


def _whole(value: Any) -> int | None:
    """Return the number that a cell holds, if it is a whole one."""
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
