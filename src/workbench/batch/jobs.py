"""What is to be run, checked before anything starts.

Many values for one parameter: read, and combined into runs.
"""

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench.batch.notebook import JobError, Notebook
from workbench.batch.parameters import CommandLine, Parameter, check_parameters, read_parameters


@dataclass(frozen=True)
class Job:
    """A notebook to run, and the parameters to set in it.

    Attributes
    ----------
    notebook
        The ``.ipynb`` file.
    parameters
        Values for names in its cell tagged ``parameters``; the others keep their defaults.
    parent
        Id of the run that this one repeats.
    """

    notebook: str | Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None


@dataclass(frozen=True)
class Plan:
    """A job whose notebook and parameters were found right."""

    notebook: Notebook
    known: Mapping[str, Parameter]
    given: Mapping[str, Any]
    parent: str | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters, the notebook's defaults included."""
        return {name: p.default for name, p in self.known.items()} | dict(self.given)


def check_jobs(jobs: Iterable[Job]) -> list[Plan]:
    """Check every job, and report what is wrong with any of them together.

    Raises
    ------
    JobError
        A notebook cannot be read, or a parameter is unknown or ill-typed.
    """
    if find_spec("papermill") is None:
        need("papermill", extra="batch")
    plans, problems = [], []
    for job in jobs:
        try:
            notebook = Notebook.read(job.notebook)
            known = read_parameters(notebook)
            given = check_parameters(known, job.parameters)
            plans.append(Plan(notebook, known, given, job.parent))
        except JobError as error:
            found = [f"{job.notebook}: {problem}" for problem in error.problems]
            problems += [problem for problem in found if problem not in problems]
    if problems:
        raise JobError(problems)
    return plans


_RANGE = re.compile(r"range\(\s*(-?[\d_]+(?:\s*,\s*-?[\d_]+){0,2})\s*\)")
_OPEN, _CLOSE = "([{", ")]}"


class Sweep(tuple[Any, ...]):
    """The values that a parameter takes in turn."""

    @classmethod
    def of(cls, name: str, values: Sequence[Any] | str) -> "Sweep":
        """Read the values of a configuration: a list, or ``range(...)`` as text.

        Examples
        --------
        >>> Sweep.of("seed", "range(3)")
        (0, 1, 2)
        """
        if isinstance(values, str):
            match = _RANGE.fullmatch(values.strip())
            if not match:
                raise JobError([f"sweep.{name} is a list or range(...), got {values!r}"])
            values = list(_range(match))
        if not values:
            raise JobError([f"sweep.{name} has no values"])
        return cls(values)


def read_values(text: str) -> CommandLine | Sweep:
    """Read what follows ``-p name=``: one value or, with commas or ``range(...)``, several.

    Commas within brackets or quotes separate nothing. A value in quotes is one value, and the
    quotes are dropped.

    Examples
    --------
    >>> read_values("7,30,50")
    ('7', '30', '50')
    >>> read_values("range(1, 4)")
    ('1', '2', '3')
    >>> read_values("[7,30]"), read_values("'a,b'")
    ('[7,30]', 'a,b')
    """
    if match := _RANGE.fullmatch(text.strip()):
        values = list(map(str, _range(match)))
    else:
        values = list(_parts(text))
    if len(values) == 1 and not match:
        return CommandLine(_unquoted(text))
    return Sweep(CommandLine(_unquoted(value.strip())) for value in values)


def combinations(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one set of parameters for each combination of swept values, the last fastest.

    Examples
    --------
    >>> combinations({"k": Sweep([1, 2]), "method": "umap"})
    [{'k': 1, 'method': 'umap'}, {'k': 2, 'method': 'umap'}]
    """
    choices = [value if isinstance(value, Sweep) else (value,) for value in given.values()]
    return [dict(zip(given, chosen, strict=True)) for chosen in itertools.product(*choices)]


def _range(match: re.Match[str]) -> range:
    try:
        found = range(*(int(number) for number in match[1].split(",")))
    except ValueError as error:
        raise JobError([f"{match[0]}: {error}"]) from error
    if not found:
        raise JobError([f"{match[0]} has no values"])
    return found


def _parts(text: str) -> Iterator[str]:
    """Split at the commas outside brackets and quotes; unbalanced text stays whole."""
    depth, quote, start, found = 0, "", 0, []
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"" and not text[start:at].strip():
            quote = sign
        elif sign in _OPEN:
            depth += 1
        elif sign in _CLOSE:
            depth -= 1
        elif sign == "," and not depth:
            found.append(text[start:at])
            start = at + 1
    if quote or depth:
        return iter([text])
    return iter([*found, text[start:]])


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        try:
            return str(ast.literal_eval(text))
        except (ValueError, SyntaxError):
            return text
    return text
