"""What is to be run, checked before anything starts."""

import ast
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench.batch.notebook import INJECTED, JobError, Notebook
from workbench.batch.parameters import (
    MASK,
    Parameter,
    check_parameters,
    combinations,
    is_typed,
    read_injected,
    read_parameters,
    undeclared,
)

_log = logging.getLogger("workbench.batch")
#: The working directories of a run that have a name.
RUN, NOTEBOOK = "run", "notebook"


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
    kernel
        The kernel to run it by; by default the one that the notebook names.
    cwd
        The kernel's working directory: ``"run"``, the run's folder, by default if all parameters
        are typed literals; ``"notebook"``, the notebook's, by default if not; or a path.
    """

    notebook: str | Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    kernel: str | None = None
    cwd: str | None = None


@dataclass(frozen=True)
class CheckedJob:
    """A job whose notebook and parameters were found right.

    Attributes
    ----------
    code
        What the notebook computes itself, by name: neither literals nor given.
    carried
        The part of it that a cell computes which an earlier run has injected.
    """

    notebook: Notebook
    known: Mapping[str, Parameter]  # those that it declares
    given: Mapping[str, Any]  # to inject: the job's, and those that an earlier run left in it
    code: Mapping[str, str]
    carried: Mapping[str, str]
    kernel: str
    cwd: str
    parent: str | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of all parameters that are known before the notebook runs."""
        known = {name: p.default for name, p in self.known.items() if name not in self.code}
        return known | dict(self.given)

    def folder(self, run_folder: Path) -> Path:
        """Return the kernel's working directory in a run with this folder."""
        named = {RUN: run_folder, NOTEBOOK: self.notebook.path.parent}
        return named.get(self.cwd, Path(self.cwd))

    @property
    def secrets(self) -> dict[str, str]:
        """Given values that may stand in no file."""
        secret = [n for n in self.given if self.known.get(n, undeclared(n)).secret]
        return {name: value for name in secret if isinstance(value := self.given[name], str)}

    def masked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values as a record may hold them: of a secret that there was one."""
        hidden = {n for n, p in self.known.items() if p.secret} | self.secrets.keys()
        return {n: MASK if n in hidden and v not in (None, "") else v for n, v in values.items()}


def sweep_jobs(notebook: str | Path, given: Mapping[str, Any]) -> list[Job]:
    """Return a notebook's jobs: one for each combination of the values that are swept."""
    try:
        known = read_parameters(Notebook.read(notebook))
    except JobError as error:
        raise JobError([f"{notebook}: {problem}" for problem in error.problems]) from error
    return [Job(notebook, parameters) for parameters in combinations(known, given)]


def check_jobs(jobs: Iterable[Job]) -> list[CheckedJob]:
    """Check every job; a JobError names all that is wrong with any of them together."""
    if find_spec("papermill") is None:
        need("papermill", extra="batch")
    checked: list[CheckedJob] = []
    problems: dict[str, None] = {}
    cautions: dict[str, None] = {}
    for job in jobs:
        try:
            checked.append(_check(job))
            cautions |= dict.fromkeys(f"{job.notebook}: {word}" for word in _cautions(checked[-1]))
        except JobError as error:
            problems |= dict.fromkeys(f"{job.notebook}: {problem}" for problem in error.problems)
    if problems:
        raise JobError([*problems])
    for caution in cautions:
        _log.warning(caution)
    return checked


def _check(job: Job) -> CheckedJob:
    notebook = Notebook.read(job.notebook)
    kernel = kernel_of(notebook, job.kernel)
    known, injected = read_parameters(notebook), read_injected(notebook)
    given = check_parameters(known, job.parameters)
    if lost := [n for n, v in given.items() if known.get(n, undeclared(n)).secret and v == MASK]:
        raise JobError([f"{lost[0]!r} was a secret, which no record keeps: give it anew"])
    code = {
        name: p.code for name, p in {**known, **injected}.items() if p.code and name not in given
    }
    for name, parameter in injected.items():
        if name in code and known.get(name, undeclared(name)).secret:
            raise JobError([f"{name!r} was a secret in an earlier run: give it anew"])
        if name not in given and not parameter.code:
            given[name] = parameter.default
            code.pop(name, None)
    cwd = job.cwd or (RUN if is_typed(notebook) else NOTEBOOK)
    if cwd not in (RUN, NOTEBOOK) and not Path(cwd).is_dir():
        raise JobError([f"there is no folder {cwd} to run in"])
    if notebook.language != "python":
        if secret := [name for name in given if undeclared(name).secret]:
            raise JobError([f"{secret[0]!r} is a secret, which only a Python kernel can be handed"])
        if given:
            assignments(kernel, notebook.language, given)
    carried = {name: code[name] for name, p in injected.items() if p.code and name in code}
    return CheckedJob(notebook, known, given, code, carried, kernel, cwd, job.parent)


def _cautions(job: CheckedJob) -> list[str]:
    """Return what somebody should know who set a parameter that could not be checked fully."""
    said = []
    if job.notebook.language != "python" and job.notebook.source(INJECTED) is not None:
        said.append("what an earlier run has set is not kept: its code is not Python")
    for name in job.given:
        parameter = job.known.get(name)
        if job.notebook.language != "python":
            said.append(f"{name} is set unchecked: a parameter of {job.notebook.language}")
        elif parameter is None:
            said.append(
                f"{name} is not declared in a cell tagged 'parameters': it is set unchecked"
            )
        elif parameter.type is Any and parameter.annotation != "Any":
            said.append(f"{name} is {parameter.annotation}, which cannot be checked here")
    for name, code in job.code.items():
        try:
            used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        except SyntaxError:
            continue
        if stale := sorted(used & job.given.keys()):
            said.append(
                f"{name} = {code} is computed before {stale[0]} is set, and keeps its value"
            )
    return said


def assignments(kernel: str, language: str, values: Mapping[str, Any]) -> str:
    """Return the code that sets values in a language, as papermill writes it.

    A JobError says that papermill does not know the language, or not how to write a value in it.
    """
    translators = need("papermill.translators", extra="batch").papermill_translators
    unknown = need("papermill.exceptions", extra="batch").PapermillException
    try:
        translator = translators.find_translator(kernel, "R" if language == "r" else language)
        return str(translator.codify(values))
    except (unknown, NotImplementedError) as error:
        raise JobError([f"papermill cannot set these values in {language}: {error}"]) from error


def kernel_of(notebook: Notebook, asked: str | None = None) -> str:
    """Return the name of the kernel for a notebook; a JobError names those that are installed."""
    name = asked or notebook.kernelspec.get("name")
    if name == "python3" or (not name and notebook.language == "python"):
        return "python3"
    manager = need("jupyter_client.kernelspec", extra="batch").KernelSpecManager()
    specs = manager.get_all_specs()
    if name in specs:
        return str(name)
    language = notebook.language
    if not name:
        fitting = [n for n, s in specs.items() if s["spec"].get("language", "").lower() == language]
        if fitting:
            return str(fitting[0])
    there = ", ".join(f"{n} ({s['spec'].get('language', '?')})" for n, s in sorted(specs.items()))
    what = (
        f"the kernel {name!r} is not installed"
        if name
        else f"no kernel for {language} is installed"
    )
    hint = "; -k python3 runs it by this environment's" if language == "python" else ""
    raise JobError([f"{what}; there are {there or 'none'}{hint}"])
