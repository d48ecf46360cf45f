"""Tags and corrected labels, and the way back from each."""

from collections.abc import Sequence
from difflib import get_close_matches

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
