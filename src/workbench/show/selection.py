"""A selection of samples on a map, its tags and corrected labels, without a widget."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench.show.maps import coordinates
from workbench.show.samples import class_names

Id = str | int


class Decisions:
    """What was decided about samples, by their ids.

    Attributes
    ----------
    tags
        Tag to the ids that carry it.
    corrections
        Id to its new class number.
    """

    def __init__(self) -> None:
        self.tags: dict[str, set[Id]] = {}
        self.corrections: dict[Id, int] = {}
        self._before: list[tuple[dict[str, set[Id]], dict[Id, int]]] = []

    def tag(self, ids: Sequence[Id], name: str) -> None:
        """Give samples a tag."""
        self._remember()
        self.tags.setdefault(name, set()).update(ids)

    def relabel(self, ids: Sequence[Id], number: int) -> None:
        """Give samples another class."""
        self._remember()
        self.corrections.update(dict.fromkeys(ids, number))

    def undo(self) -> bool:
        """Take the last decision back; False where there is none."""
        if not self._before:
            return False
        self.tags, self.corrections = self._before.pop()
        return True

    def _remember(self) -> None:
        copied = {name: set(ids) for name, ids in self.tags.items()}
        self._before.append((copied, dict(self.corrections)))


def class_number(names: Sequence[str], to: str | int) -> int:
    """The number of a class given by its name or number, -1 for none.

    Examples
    --------
    >>> class_number(["cat", "dog"], "dog"), class_number(["cat", "dog"], 0)
    (1, 0)
    """
    if not names:
        raise ValueError("the dataset has no single labels to correct")
    text = str(to).strip()
    if isinstance(to, str) and text in names:
        return list(names).index(text)
    if text.removeprefix("-").isdecimal() and -1 <= int(text) < len(names):
        return int(text)
    close = get_close_matches(text, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names[:20])}"
    raise ValueError(f"there is no class {text!r}; {hint}")


class Selection:
    """A selection of samples, tags and corrected labels; the dataset stays as it is."""

    def __init__(self, ds: xr.Dataset, xy: xr.DataArray) -> None:
        self.ds, self.xy = ds, xy
        self.points = coordinates(ds, xy)
        self._decisions = Decisions()
        self._index = pd.Index(ds["sample"].values)
        self._names = class_names(ds)
        self._chosen: NDArray[np.intp] = np.empty(0, dtype=np.intp)

    @property
    def tags(self) -> dict[str, set[Id]]:
        """Tag to the ids that carry it."""
        return self._decisions.tags

    @property
    def corrections(self) -> dict[Id, int]:
        """Id to its new class number."""
        return self._decisions.corrections

    def describe(self, position: int) -> str:
        """Id and class of a sample, and its new class where it has one."""
        own = self._index[position]
        name = self._names[position]
        if own in self.corrections:
            name = f"{name or 'no label'} → {self._name(self.corrections[own]) or 'no label'}"
        return f"{own} · {name}" if name else str(own)

    @property
    def positions(self) -> NDArray[np.intp]:
        """Where in the dataset the selected samples are, ascending."""
        return self._chosen

    @property
    def classes(self) -> list[str]:
        """The class names, empty where the dataset has no single label to correct."""
        return [str(name) for name in self.ds["class"].values] if "label" in self.ds else []

    def selection(self) -> NDArray[Any]:
        """The ids of the selected samples, in the dataset's order."""
        ids: NDArray[Any] = self.ds["sample"].values[self._chosen]
        return ids

    def select(self, ids: Iterable[Any] | xr.DataArray) -> None:
        """Select samples by their ids, or by a bool array (sample,); an empty list selects none.

        Raises
        ------
        ValueError
            An id is not in the dataset, or a mask has another length.
        """
        wanted = np.asarray(ids if isinstance(ids, np.ndarray | xr.DataArray) else list(ids))
        if wanted.dtype == bool:
            if wanted.shape != self._index.shape:
                raise ValueError(f"a mask of {wanted.shape} for {len(self._index)} samples")
            self.choose(np.flatnonzero(wanted))
            return
        self.choose(self._locate(wanted))

    def choose(self, positions: NDArray[Any]) -> None:
        """Select samples by their positions in the dataset."""
        self._chosen = np.unique(positions).astype(np.intp)
        self._refresh()

    def tag(self, name: str) -> None:
        """Give the selected samples a tag.

        Raises
        ------
        ValueError
            Nothing is selected, or the tag has no name.
        """
        name = name.strip()
        if not name:
            raise ValueError("a tag needs a name")
        ids = self._selected_ids()
        self._decisions.tag(ids, name)
        self._refresh(f"{len(ids):,} tagged {name!r}")

    def relabel(self, to: str | int) -> None:
        """Give the selected samples another class, by its name or number; -1 takes it away.

        The dataset stays as it is; :meth:`labels` has the corrected labels.

        Raises
        ------
        ValueError
            Nothing is selected, there is no such class, or the dataset has no single labels.
        """
        number = class_number(self.classes, to)
        ids = self._selected_ids()
        self._decisions.relabel(ids, number)
        self._refresh(f"{len(ids):,} relabelled as {self._name(number) or 'no label'}")

    def undo(self) -> None:
        """Take back the last tag or relabelling; without any, do nothing."""
        self._refresh("taken back" if self._decisions.undo() else "there is nothing to take back")

    def labels(self) -> xr.DataArray:
        """The corrected labels (sample,), a copy."""
        if "label" not in self.ds:
            raise ValueError("the dataset has no 'label' to correct")
        label = self.ds["label"].copy(deep=True)
        label.values[self._index.get_indexer(pd.Index(list(self.corrections)))] = list(
            self.corrections.values()
        )
        return label

    def corrected(self) -> xr.Dataset:
        """The dataset with the corrected labels in place of its own."""
        return self.ds.assign(label=self.labels()) if self.corrections else self.ds

    def to_frame(self, ids: Iterable[Any] | None = None) -> pd.DataFrame:
        """A table of the selected samples, or of others by their ids, to look at or export.

        Its index is the id; it has the label, the correction, the tags, the split and path where
        there are any, and the place on the map.
        """
        at = self._chosen if ids is None else self._locate(np.asarray(list(ids)))
        own = self._index[at].tolist()
        columns: dict[str, Any] = {}
        if "label" in self.ds:
            columns["label"] = [self._name(number) for number in self.ds["label"].values[at]]
            columns["corrected"] = [
                self._name(self.corrections[i]) if i in self.corrections else "" for i in own
            ]
        columns["tags"] = [
            ", ".join(sorted(t for t, has in self.tags.items() if i in has)) for i in own
        ]
        columns |= {key: self.ds[key].values[at] for key in ("split", "path") if key in self.ds}
        columns |= {"x": self.points[at, 0], "y": self.points[at, 1]}
        return pd.DataFrame(columns, index=pd.Index(own, name="sample"))

    def _locate(self, ids: NDArray[Any]) -> NDArray[np.intp]:
        """The positions of samples by their ids."""
        found: NDArray[np.intp] = self._index.get_indexer(pd.Index(ids))
        missing = np.flatnonzero(found < 0)
        if len(missing):
            raise ValueError(
                f"{len(missing)} of {len(ids)} ids are not in the dataset; the first is "
                f"{ids.tolist()[missing[0]]!r}"
            )
        return found

    def _selected_ids(self) -> list[Id]:
        if len(self._chosen) == 0:
            raise ValueError("nothing is selected")
        ids: list[Id] = self.selection().tolist()
        return ids

    def _name(self, number: int) -> str:
        return self.classes[number] if number >= 0 else ""

    def _refresh(self, message: str = "") -> None:
        """Called after every change, with what was done; here there is nothing to redraw."""
