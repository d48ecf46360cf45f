"""Bring back from FiftyOne what was chosen, tagged and relabelled there."""

import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from workbench.show.fiftyone_app import ID_FIELD, LABEL_FIELD


def from_fiftyone(view: Any, ds: xr.Dataset | None = None, *, progress: bool = True) -> xr.Dataset:
    """Read a view of a dataset that :func:`to_fiftyone` made: its samples, tags and labels.

    Parameters
    ----------
    view
        A FiftyOne view or dataset, ``session.view`` for instance.
    ds
        The image dataset that was handed over. With it, ids have their own type again, classes
        their numbers, and `changed` says where a label is another one now.
    progress
        Show a bar.

    Returns
    -------
    xarray.Dataset
        Along ``sample``, the view's samples in its order. ``tags`` is bool (sample, tag), a split
        being a tag too; ``label`` (sample,) holds class numbers, -1 for none, or ``labels``
        (sample, class) several of them; ``changed`` is bool (sample,), with `ds` only. A class
        that was not there before comes after the others, and a warning names it.

    Raises
    ------
    ValueError
        The view's samples were not put there by :func:`to_fiftyone`, or come from another dataset
        than `ds`.

    Examples
    --------
    >>> seen = from_fiftyone(session.view, ds)  # doctest: +SKIP
    >>> wrong = seen.sample[seen.tags.sel(tag="wrong")]  # doctest: +SKIP
    >>> fixed = ds.label.copy()  # doctest: +SKIP
    >>> fixed.loc[{"sample": seen.sample}] = seen.label  # doctest: +SKIP
    """
    view = view.view()  # of a whole dataset too, which has other attributes
    kind = _label_kind(view)
    ids, tags, names = _values(view, kind, progress)
    sample = _sample_ids(ids, ds)
    known = _known_classes(view, ds)
    classes = known + _new_classes(names, known)
    back = xr.Dataset(
        {"tags": _tags(tags)},
        coords={"sample": sample, "class": np.array(classes, dtype=np.str_)},
        attrs={"name": view.dataset_name},
    )
    if kind is None:
        return back.drop_vars("class")
    numbers = {name: number for number, name in enumerate(classes)}
    if kind == "Classifications":
        back["labels"] = (("sample", "class"), _one_hot(names, numbers))
    else:
        label = [-1 if name is None else numbers[name] for name in names]
        back["label"] = ("sample", np.array(label, dtype=np.int64))
    changed = None if ds is None else _changed(back, ds)
    return back if changed is None else back.assign(changed=("sample", changed))


def _label_kind(view: Any) -> str | None:
    """``"Classification"``, ``"Classifications"``, or None where the view holds no labels."""
    schema = view.get_field_schema()
    if ID_FIELD not in schema:
        raise ValueError(
            f"the samples of {view.dataset_name!r} have no field {ID_FIELD!r}; from_fiftyone "
            "reads what to_fiftyone has written"
        )
    kind = getattr(schema.get(LABEL_FIELD), "document_type", None)
    return None if kind is None else str(kind.__name__)


def _values(view: Any, kind: str | None, progress: bool) -> tuple[list[str], list[Any], list[Any]]:
    """Ids, tags and label names of the view in one query."""
    several = "classifications." if kind == "Classifications" else ""
    paths = [ID_FIELD, "tags"] + ([] if kind is None else [f"{LABEL_FIELD}.{several}label"])
    with tqdm(total=len(view), desc="read from FiftyOne", disable=not progress) as bar:
        ids, tags, *names = view.values(paths)
        bar.update(len(ids))
    missing = sum(value is None for value in ids)
    if missing:
        raise ValueError(
            f"{missing} of {len(ids)} samples were not put there by to_fiftyone; leave them out "
            f"with view.exists({ID_FIELD!r})"
        )
    return ids, tags, names[0] if names else [None] * len(ids)


def _sample_ids(ids: Sequence[str], ds: xr.Dataset | None) -> NDArray[Any]:
    """The ids as `ds` has them, which FiftyOne keeps as text."""
    if ds is None:
        return np.array(ids, dtype=np.str_)
    own = {str(value): i for i, value in enumerate(ds["sample"].values)}
    strange = [value for value in ids if value not in own]
    if strange:
        raise ValueError(
            f"{len(strange)} of {len(ids)} samples are not of the dataset given; the first is "
            f"{strange[0]!r}"
        )
    chosen: NDArray[Any] = ds["sample"].values[[own[value] for value in ids]]
    return chosen


def _known_classes(view: Any, ds: xr.Dataset | None) -> list[str]:
    """The classes in the order of their numbers."""
    if ds is not None:
        return [str(name) for name in ds["class"].values] if "class" in ds.coords else []
    return list(view._dataset.default_classes)


def _new_classes(names: Sequence[Any], known: Sequence[str]) -> list[str]:
    """Classes that came up in FiftyOne; a warning tells them from slips of the pen."""
    flat = (name for item in names for name in ([item] if isinstance(item, str) else item or []))
    new = sorted({name for name in flat if name is not None} - set(known))
    for name in new if known else []:
        close = get_close_matches(name, known, n=1)
        hint = f" (did someone mean {close[0]!r}?)" if close else ""
        warnings.warn(f"{name!r} is a new class{hint}; it comes last", stacklevel=3)
    return new


def _tags(tags: Sequence[Sequence[str] | None]) -> xr.DataArray:
    """Tags as bool (sample, tag)."""
    found = sorted({tag for own in tags for tag in own or []})
    return xr.DataArray(
        _one_hot(tags, {tag: i for i, tag in enumerate(found)}),
        dims=("sample", "tag"),
        coords={"tag": np.array(found, dtype=np.str_)},
    )


def _one_hot(items: Sequence[Sequence[str] | None], numbers: dict[str, int]) -> NDArray[np.bool_]:
    """Which of the numbered names each sample has."""
    mask = np.zeros((len(items), len(numbers)), dtype=bool)
    for row, own in enumerate(items):
        mask[row, [numbers[name] for name in own or []]] = True
    return mask


def _changed(back: xr.Dataset, ds: xr.Dataset) -> NDArray[np.bool_] | None:
    """Where the label is not that of the dataset; None where only one of them has labels."""
    before = ds.sel(sample=back["sample"].values)
    if "label" in back and "label" in ds:
        return np.asarray(back["label"].values != before["label"].values)
    if "labels" in back and "labels" in ds:
        old = before["labels"].transpose("sample", "class").values.astype(bool)
        new = back["labels"].values
        grown = np.pad(old, ((0, 0), (0, new.shape[1] - old.shape[1])))
        return np.asarray((new != grown).any(axis=1))
    return None
