"""A notebook's parameters, and the values given for them, checked before a kernel starts."""

import ast
import difflib
import json
import os
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from workbench.batch.notebook import JobError

# In a parameters cell `Path` marks a string that names a file: both take strings and Paths.
Text = Annotated[str, BeforeValidator(lambda v: os.fspath(v) if isinstance(v, Path) else v)]
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_WORDS = {"true": True, "false": False, "none": None, "null": None}


class CommandLine(str):
    """A value typed on the command line, still to be read as its parameter's type."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    annotation: str
    type: Any
    default: Any
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None

    def check(self, value: Any) -> Any:
        """Return the value as this parameter's type; a ValueError says what is expected."""
        tries = list(self._readings(value)) if isinstance(value, CommandLine) else [_plain(value)]
        if isinstance(value, list):  # YAML and JSON have no tuples
            tries.append(tuple(value))
        adapter = TypeAdapter(self.type, config=_STRICT)
        for reading in tries:
            try:
                return self._within(adapter.validate_python(reading))
            except ValidationError:
                continue
        shown = tries[0]
        raise ValueError(
            f"{self.name!r} is {self.annotation}, got {shown!r}, which is {type(shown).__name__}"
        )

    def _readings(self, text: CommandLine) -> Iterator[Any]:
        """Yield what a text from the command line may mean, the likeliest first."""
        kinds = get_args(self.type) if _is_union(self.type) else (self.type,)
        words = all(kind == Text or kind is type(None) for kind in kinds)
        if words and type(None) in kinds and text.lower() in ("none", "null"):
            yield None
        if not words:
            for value in literals(text):
                yield value
                if isinstance(value, float) and value.is_integer():
                    yield int(value)  # 1e6
                if isinstance(value, list):
                    yield tuple(value)
        yield str(text)

    def _within(self, value: Any) -> Any:
        if value is None:
            return value
        if self.choices and value not in self.choices:
            known = ", ".join(map(repr, self.choices))
            raise ValueError(f"{self.name!r} is one of {known}; got {value!r}")
        if isinstance(value, int | float) and (
            (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
        ):
            low, high = ("…" if end is None else f"{end:g}" for end in (self.low, self.high))
            raise ValueError(f"{self.name!r} goes from {low} to {high}; got {value!r}")
        return value


def check_parameters(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values, each as its parameter's type.

    Raises
    ------
    JobError
        Lists every unknown name, with the nearest known one, and every value of a wrong type.

    Examples
    --------
    >>> k = Parameter("k", "int", int, default=15)
    >>> check_parameters({"k": k}, {"k": CommandLine("1e2")})
    {'k': 100}
    """
    checked, problems = {}, []
    for name, value in given.items():
        try:
            if name not in known:
                raise ValueError(_unknown(name, list(known)))
            checked[name] = known[name].check(value)
            _ensure_literal(name, checked[name])
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise JobError(problems)
    return checked


def move_paths(parameters: Mapping[str, Parameter], values: Mapping[str, Any], folder: Path) -> Any:
    """Return the values with relative paths that exist here as seen from the run's folder.

    A string is taken for a path if it contains a separator or ends in a suffix and such a file
    exists; one whose annotation says ``Path`` if it exists.
    """
    paths = {
        name: os.path.relpath(path, folder)
        for name, path in named_paths(parameters, values).items()
    }
    relative = {name: path for name, path in paths.items() if not Path(values[name]).is_absolute()}
    return {**values, **relative}


def named_paths(parameters: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files and folders that exist and that values name, as `move_paths` finds them."""
    found = {}
    for name, value in values.items():
        if not isinstance(value, str):
            continue
        named = "Path" in parameters[name].annotation
        looks = os.sep in value or "/" in value or Path(value).suffix
        if value and (named or looks) and os.path.exists(value):  # noqa: PTH110  never raises
            found[name] = Path(value)
    return found


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    takes = f"the parameters are {', '.join(known)}" if known else "the notebook has no parameters"
    return f"unknown parameter {name!r}{hint} ({takes})"


def literals(text: str) -> Iterator[Any]:
    """Read a text as a Python or JSON literal; nothing comes if it is neither."""
    if text.lower() in _WORDS:
        yield _WORDS[text.lower()]
        return
    for read in (ast.literal_eval, json.loads):
        try:
            yield read(str(text))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return


def _plain(value: Any) -> Any:
    """Turn a NumPy scalar, as sweeps over an array give, into Python's own number."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _ensure_literal(name: str, value: Any) -> None:
    """Refuse what can be written neither into the notebook nor into the record."""
    try:
        json.dumps(value, allow_nan=False)
        ast.literal_eval(repr(value))
    except (ValueError, TypeError, SyntaxError) as error:
        raise ValueError(
            f"{name!r} takes numbers, strings, bools, None and lists or dicts of these; "
            f"got {value!r}"
        ) from error


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)
