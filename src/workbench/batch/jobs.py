"""What is to be run, checked before anything starts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench.batch.declarations import read_parameters
from workbench.batch.notebook import JobError, Notebook
from workbench.batch.parameters import Parameter, check_parameters


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
