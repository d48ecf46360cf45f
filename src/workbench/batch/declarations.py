"""Read the parameters that a notebook's tagged cell declares.

The cell is read as text by ``ast`` and never run. Its lines are ``name: annotation = literal``,
with a Colab form as an optional comment::

    n_samples: int = 10_000  #@param {type:"slider", min:100, max:70000}
    method: str = "umap"  #@param ["umap", "tsne"]
    data: Path | None = None
"""

import ast
import io
import json
import re
import tokenize
import types
from dataclasses import replace
from typing import Any, Literal, Optional, Union

from workbench.batch.notebook import JobError, Notebook
from workbench.batch.parameters import Parameter, Text, literals

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
