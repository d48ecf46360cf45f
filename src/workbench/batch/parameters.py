"""A notebook's parameters, and the values given for them, checked before a kernel starts.

Read the parameters that a notebook's tagged cell declares.

The cell is read as text by ``ast`` and never run. Its lines are ``name: annotation = literal``,
with a Colab form as an optional comment::

    n_samples: int = 10_000  #@param {type:"slider", min:100, max:70000}
    method: str = "umap"  #@param ["umap", "tsne"]
    data: Path | None = None
"""

import ast
import difflib
import io
import json
import os
import re
import tokenize
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from workbench.batch.notebook import JobError, Notebook

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


_NAMES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": Text,
    "Path": Text,
    "list": list,
    "dict": dict,
    "tuple": tuple,
    "Any": Any,
    "Literal": Literal,
    "Optional": Optional,
    "Union": Union,
}


def read_parameters(notebook: Notebook) -> dict[str, Parameter]:
    """Return a notebook's parameters by name; none if no cell is tagged ``parameters``.

    Raises
    ------
    JobError
        A line of the cell is not a typed literal, or its default is not of its type.
    """
    if notebook.parameters_cell is None:
        return {}
    source = notebook.cells[notebook.parameters_cell]["source"]
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise JobError([f"parameters cell, line {error.lineno}: {error.msg}"]) from error
    forms = _forms(source)
    found: dict[str, Parameter] = {}
    problems = []
    for statement in body:
        try:
            if parameter := _parameter(statement):
                parameter = _with_form(parameter, forms.get(statement.end_lineno or 0, ""))
                parameter.check(parameter.default)
                found[parameter.name] = parameter
        except ValueError as error:
            problems.append(f"parameters cell, line {statement.lineno}: {error}")
    if problems:
        raise JobError(problems)
    return found


def _parameter(statement: ast.stmt) -> Parameter | None:
    """Read one statement of a parameters cell."""
    if isinstance(statement, ast.Import | ast.ImportFrom) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    ):
        return None
    annotation: ast.expr | None = None
    value: ast.expr | None
    if isinstance(statement, ast.AnnAssign):
        target: ast.expr = statement.target
        annotation, value = statement.annotation, statement.value
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
    else:
        raise ValueError(f"`{ast.unparse(statement)}` is not `name: type = literal`")
    try:
        default = ast.literal_eval(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ValueError(
            f"`{ast.unparse(statement)}` is not a literal: derived values belong in the next cell"
        ) from None
    if not isinstance(target, ast.Name):
        raise ValueError(f"`{ast.unparse(statement)}` is not `name: type = literal`")
    name = target.id
    if annotation is None:
        kind = type(default) if default is not None else Any
        return Parameter(name, kind.__name__, _NAMES.get(kind.__name__, kind), default)
    return Parameter(name, ast.unparse(annotation), _resolve(annotation), default)


def _resolve(node: ast.expr) -> Any:
    """Return the type that an annotation names, from a short list of names: nothing is run."""
    match node:
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.Constant(value=None):
            return type(None)
        case ast.Constant(value=types.EllipsisType()):
            return ...
        case ast.Constant(value=str(text)):
            return _resolve(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_resolve(left), _resolve(right)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            return Literal[ast.literal_eval(inner)]
        case ast.Subscript(value=ast.Name(id=name), slice=inner) if name in _NAMES:
            inside = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            found = tuple(_resolve(item) for item in inside)
            return _NAMES[name][found if len(found) > 1 else found[0]]
    raise ValueError(f"the annotation `{ast.unparse(node)}` is not one of {', '.join(_NAMES)}")


def _forms(source: str) -> dict[int, str]:
    """Colab's ``#@param`` comments by line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
    return {n: c.partition("@param")[2] for n, c in comments.items() if "@param" in c}


def _with_form(parameter: Parameter, form: str) -> Parameter:
    """Add what a Colab form says: ``["a", "b"] {allow-input: true}``, ``{min:1, max:50}``."""
    choices = re.search(r"\[.*\]", form)
    options = dict(re.findall(r"""([\w-]+)\s*:\s*["']?([^"',}\s]+)""", form.rpartition("]")[2]))
    if choices and options.get("allow-input") != "true":
        values = json.loads(choices[0])
        if options.get("type") == "raw":  # Colab writes choices that are not strings as strings
            values = [next(literals(v), v) if isinstance(v, str) else v for v in values]
        parameter = replace(parameter, choices=tuple(values))
    low, high = (float(options[k]) if k in options else None for k in ("min", "max"))
    return replace(parameter, low=low, high=high)
