"""A notebook's parameters, and the values given for them, checked before a kernel starts.

The cell tagged ``parameters`` is read as text by ``ast`` and never run. Lines of the form
``name: annotation = literal``, with a Colab form as an optional comment, are checked by type::

    n_samples: int = 10_000  #@param {type:"slider", min:100, max:70000}
    method: str = "umap"  #@param ["umap", "tsne"]
    data: Path | None = None

Any other code may stand there too; what it computes is known to the notebook alone.
"""

import ast
import difflib
import io
import itertools
import json
import os
import re
import tokenize
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from workbench.batch.notebook import INJECTED, PARAMETERS, JobError, Notebook

# In a parameters cell `Path` marks a string that names a file: both take strings and Paths.
Text = Annotated[str, BeforeValidator(lambda v: os.fspath(v) if isinstance(v, Path) else v)]
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_WORDS = {"true": True, "false": False, "none": None, "null": None}
_RANGE = re.compile(r"range\(\s{0,9}(-?[\d_]{1,18}(?:\s{0,9},\s{0,9}-?[\d_]{1,18}){0,2})\s{0,9}\)")
# A text under a name with one of these words is a secret; `max_tokens` and `tokenizer` are not.
_SECRET = re.compile(
    r"(?:.*_)?(?:password|passwd|passphrase|pwd|secret|token|credentials?|apikey|api_key"
    r"|access_key|private_key)(?:_.*)?",
    re.IGNORECASE,
)
#: What a record holds in place of a secret.
MASK = "**********"


class CommandLine(str):
    """A value typed on the command line, still to be read as its parameter's type."""


class Sweep(tuple[Any, ...]):
    """The values that a parameter takes in turn."""


@dataclass(frozen=True)
class Parameter:
    """One assignment of a parameters cell.

    Attributes
    ----------
    annotation, type
        As written, and as what it names; `Any` where that is not known here.
    default, code
        The literal, or what the notebook computes it by.
    choices, low, high
        What a Colab form allows.
    secret
        Whether its value may stand in no file.
    """

    name: str
    annotation: str
    type: Any
    default: Any = None
    code: str | None = None
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    secret: bool = False

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
        shown = MASK if self.secret else repr(tries[0])
        raise ValueError(
            f"{self.name!r} is {self.annotation}, got {shown}, which is {type(tries[0]).__name__}"
        )

    def values(self, given: Any) -> Sequence[Any]:
        """Return the values that a given one stands for: itself, or the items of a sweep.

        A text of the command line is a sweep if it is a list or a range and does not fit as the
        parameter's own value: ``[7, 30]`` of an int is two values, of a list one.
        """
        if not isinstance(given, CommandLine):
            return given if isinstance(given, Sweep) else (given,)
        is_range = _RANGE.fullmatch(given.strip()) is not None
        if not is_range or self._is_text:
            try:
                self.check(given)
                return (given,)
            except ValueError:
                pass
        return read_range(given) if is_range else _items(given) or (given,)

    @property
    def _is_text(self) -> bool:
        kinds = get_args(self.type) if _is_union(self.type) else (self.type,)
        return all(kind == Text or kind is type(None) for kind in kinds)

    def _readings(self, text: CommandLine) -> Iterator[Any]:
        """Yield what a text from the command line may mean, the likeliest first."""
        if self._is_text:
            if _is_union(self.type) and text.lower() in ("none", "null"):
                yield None
        else:
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

    Of a notebook that declares no parameters every name is taken, as papermill does. Else a
    JobError lists unknown names, with the nearest known one, and values of a wrong type.

    >>> check_parameters({"k": Parameter("k", "int", int)}, {"k": CommandLine("1e2")})
    {'k': 100}
    """
    checked, problems = {}, []
    for name, value in given.items():
        try:
            if known and name not in known:
                raise ValueError(_unknown(name, list(known)))
            if not name.isidentifier():
                raise ValueError(f"{name!r} is no name of a variable")
            checked[name] = known.get(name, undeclared(name)).check(value)
            _ensure_literal(name, checked[name])
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise JobError(problems)
    return checked


def undeclared(name: str) -> Parameter:
    """Return what is known of a parameter that the notebook does not declare."""
    if _SECRET.fullmatch(name):
        return Parameter(name, "str", Text, secret=True)
    return Parameter(name, "Any", Any)


def combinations(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one set of parameters for each combination of swept values, the last fastest.

    >>> combinations({}, {"k": Sweep([1, 2]), "method": "umap"})
    [{'k': 1, 'method': 'umap'}, {'k': 2, 'method': 'umap'}]
    """
    values = [known.get(name, undeclared(name)).values(value) for name, value in given.items()]
    return [dict(zip(given, chosen, strict=True)) for chosen in itertools.product(*values)]


def read_range(text: str) -> Sweep:
    """Return the numbers of ``range(...)``.

    >>> read_range("range(1, 4)")
    (1, 2, 3)
    """
    match = _RANGE.fullmatch(text.strip())
    if not match:
        raise JobError([f"a sweep is a list or range(...), got {text!r}"])
    try:
        found = range(*(int(number) for number in match[1].split(",")))
    except ValueError as error:
        raise JobError([f"{text}: {error}"]) from error
    if not 0 < len(found) <= 100_000:
        raise JobError([f"{text} has {len(found) or 'no'} values; a sweep has 1 to 100,000"])
    return Sweep(found)


def _items(text: str) -> Sweep:
    """Return the items of a list in a text; none if it is no list."""
    value = next(literals(text), None)
    return Sweep(value) if isinstance(value, list | tuple) else Sweep()


def move_paths(parameters: Mapping[str, Parameter], values: Mapping[str, Any], folder: Path) -> Any:
    """Return the values with relative paths that exist here as seen from another folder.

    A string is taken for a path if it contains a separator or ends in a suffix and such a file
    exists; one whose annotation says ``Path`` if it exists.
    """
    moved = {
        name: os.path.relpath(path, folder)
        for name, path in named_paths(parameters, values).items()
        if not path.is_absolute()
    }
    return {**values, **moved}


def named_paths(parameters: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files and folders that exist and that values name, as `move_paths` finds them."""
    found = {}
    for name, value in values.items():
        parameter = parameters.get(name, undeclared(name))
        if not isinstance(value, str) or parameter.secret:
            continue
        looks = os.sep in value or "/" in value or Path(value).suffix
        named = value and ("Path" in parameter.annotation or looks)
        if named and os.path.exists(value):  # noqa: PTH110  never raises
            found[name] = Path(value)
    return found


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown parameter {name!r}{hint} (the parameters are {', '.join(known)})"


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
    except (ValueError, TypeError, SyntaxError, RecursionError) as error:
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
    "SecretStr": Text,
    "list": list,
    "List": list,
    "Sequence": list,
    "dict": dict,
    "Dict": dict,
    "tuple": tuple,
    "Tuple": tuple,
    "Any": Any,
    "Literal": Literal,
    "Optional": Optional,
    "Union": Union,
}


def read_parameters(notebook: Notebook) -> dict[str, Parameter]:
    """Return what a notebook's parameters cell assigns, by name; nothing is run.

    Lines that are no assignment are passed over, and so is a cell that is not Python. An
    annotation that is not known here counts as `Any`; a Colab form that the notebook's own
    default does not keep is left out.
    """
    source = notebook.source(PARAMETERS)
    if source is None or notebook.language != "python":
        return {}
    forms = _forms(source)
    found: dict[str, Parameter] = {}
    for name, annotation, value, line in _assignments(source):
        parameter = _with_form(_parameter(name, annotation, value), forms.get(line, ""))
        try:
            if parameter.code is None:
                parameter.check(parameter.default)
        except ValueError:  # the notebook itself does not keep to what it says
            parameter = replace(parameter, type=Any, choices=(), low=None, high=None)
        found[name] = parameter
    return found


def read_injected(notebook: Notebook) -> dict[str, Parameter]:
    """Return what a cell sets that an earlier run has injected, in the same form."""
    source = notebook.source(INJECTED)
    if source is None or notebook.language != "python":
        return {}
    return {name: _parameter(name, None, value) for name, _, value, _ in _assignments(source)}


def is_typed(notebook: Notebook) -> bool:
    """Whether the parameters cell holds nothing but ``name: type = literal`` and imports."""
    source = notebook.source(PARAMETERS)
    statements = None if source is None else _statements(source)
    for statement in [ast.Pass()] if statements is None else statements:
        match statement:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                continue
            case ast.AnnAssign(value=ast.expr() as value) if _literal(value):
                continue
        return False
    return True


def _statements(source: str) -> list[ast.stmt] | None:
    """Return the statements of a cell, ``pass`` for IPython's magics; None if it is not Python."""
    for text in (source, re.sub(r"(?m)^([ \t]{0,99})[%!?].*$", r"\1pass", source)):
        try:
            return ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def _assignments(source: str) -> Iterator[tuple[str, ast.expr | None, ast.expr | None, int]]:
    """Yield name, annotation, value and last line of each assignment of a cell."""
    for statement in _statements(source) or ():
        line = statement.end_lineno or 0
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                yield name, annotation, value, line
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        yield target.id, None, value, line
                    elif isinstance(target, ast.Tuple):
                        parts = value.elts if isinstance(value, ast.Tuple) else []
                        for part, own in itertools.zip_longest(target.elts, parts):
                            if isinstance(part, ast.Name):
                                yield part.id, None, own or value, line


def _parameter(name: str, annotation: ast.expr | None, value: ast.expr | None) -> Parameter:
    known = _literal(value) if value else None
    default = known[0] if known else None
    code = None if known else ast.unparse(value) if value else "not set"
    if annotation is None:
        own = type(default) if default is not None else Any
        called = getattr(own, "__name__", "Any")
        kind: Any = _NAMES.get(called, own)
    else:
        called = ast.unparse(annotation)
        kind = _resolve(annotation)
        if known and default is None:  # as `x: int = None` means it
            kind = Optional[kind]  # noqa: UP045
    text = isinstance(default, str) or default is None
    secret = "SecretStr" in called or (text and _SECRET.fullmatch(name) is not None)
    return Parameter(name, called, kind, default, code, secret=secret)


def _literal(value: ast.expr) -> tuple[Any] | None:
    """Return the value of a literal that a record can hold, in a tuple of its own."""
    try:
        found = ast.literal_eval(value)
        _ensure_literal("", found)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return (found,)


def _resolve(node: ast.expr) -> Any:
    """Return the type that an annotation names, from a short list of names; else `Any`."""
    try:
        kind = _named_type(node)
        TypeAdapter(kind, config=_STRICT)
    except Exception:  # whatever pydantic makes of `list[int, str]`
        return Any
    return kind


def _named_type(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.Attribute(value=ast.Name(), attr=name) if name in _NAMES:  # typing.Optional
            return _NAMES[name]
        case ast.Constant(value=None):
            return type(None)
        case ast.Constant(value=types.EllipsisType()):
            return ...
        case ast.Constant(value=str(text)):
            return _named_type(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_named_type(left), _named_type(right)]  # noqa: UP007
        case ast.Subscript(value=outer, slice=inner):
            kind = _named_type(outer)
            if kind is Literal:
                return Literal[ast.literal_eval(inner)]
            inside = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            found = tuple(_named_type(item) for item in inside)
            return kind[found if len(found) > 1 else found[0]]
    raise ValueError(f"the annotation `{ast.unparse(node)}` is not known")


def _forms(source: str) -> dict[int, str]:
    """Colab's ``#@param`` comments by line."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return {}
    comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
    return {n: c.partition("@param")[2] for n, c in comments.items() if "@param" in c}


def _with_form(parameter: Parameter, form: str) -> Parameter:
    """Add what a Colab form says: ``["a", "b"] {allow-input: true}``, ``{min:1, max:50}``."""
    opened, _, rest = form.partition("[")
    inside, _, last = rest.rpartition("]")
    options = dict(
        re.findall(
            r"""([\w-]{1,40})\s{0,9}:\s{0,9}["']?([^"',}\s]{1,80})""", last if rest else opened
        )
    )
    choices = next(literals(f"[{inside}]"), None) if rest else None
    if isinstance(choices, list) and options.get("allow-input") != "true":
        if options.get("type") == "raw":  # Colab writes choices that are not strings as strings
            choices = [next(literals(v), v) if isinstance(v, str) else v for v in choices]
        parameter = replace(parameter, choices=tuple(choices))
    try:
        low, high = (float(options[k]) if k in options else None for k in ("min", "max"))
    except ValueError:
        return parameter
    return replace(parameter, low=low, high=high)
