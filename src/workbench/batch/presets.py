"""Configurations of batch runs: presets beside the notebooks and the reader's own files.

They are composed by Hydra, brought from older versions to the newest step by step, and checked
against the notebooks themselves.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench._extras import need
from workbench._units import parse_size
from workbench.batch.jobs import Job, sweep_jobs
from workbench.batch.notebook import JobError, Notebook
from workbench.batch.parameters import Sweep, check_parameters, read_parameters, read_range

NEWEST = 4
_MOST_BYTES = 10**5
_MOST_ALIASES = 20
_MOST_DEPTH = 50


class StrictModel(BaseModel):
    """Refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class LimitsConfig(StrictModel):
    """What each run may take."""

    timeout: float | None = Field(default=None, gt=0, description="seconds for a whole run")
    cell_timeout: float | None = Field(default=None, gt=0, description="seconds for each cell")
    memory: str | int | None = Field(default=None, description="bytes, or a text such as 4GiB")

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, value: str | int | None) -> str | int | None:
        if value is not None:
            parse_size(value)
        return value


class RunConfig(StrictModel):
    """What runs, with which parameters and limits.

    Parameters of a notebook are checked against the notebook itself.
    """

    version: Literal[4] = 4
    notebooks_folder: str = Field(default="notebooks", description="of notebooks called by name")
    # by a path, or a name with or without its number
    notebooks: dict[str, dict[str, Any]] = Field(default={}, description="parameters by notebook")
    sweep: dict[str, list[Any] | str] = Field(default={}, description="values or range(...)")
    limits: LimitsConfig = LimitsConfig()
    jobs: int = Field(default=1, ge=1, description="runs at a time")
    kernel: str | None = Field(default=None, description="instead of the notebooks' own")
    cwd: str | None = Field(default=None, description="run, notebook or a path")
    values: dict[str, Any] = Field(default={}, description="for ${values.name} elsewhere")

    @model_validator(mode="after")
    def _check_notebooks(self) -> "RunConfig":
        problems = []
        for name in self.notebooks:
            try:
                for job in self.jobs_of(self.path(name), {}):
                    check_parameters(read_parameters(Notebook.read(job.notebook)), job.parameters)
            except JobError as error:
                problems += [f"notebooks.{name}: {problem}" for problem in error.problems]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def jobs_of(self, notebook: str | Path, given: Mapping[str, Any]) -> list[Job]:
        """Return a notebook's jobs: one for each combination of what is swept."""
        swept = {name: _sweep(name, values) for name, values in self.sweep.items()}
        chosen = {**swept, **self.parameters_of(notebook), **given}
        jobs = sweep_jobs(notebook, chosen)
        return [replace(job, kernel=self.kernel, cwd=self.cwd) for job in jobs]

    def path(self, name: str) -> Path:
        """Return the file of a notebook that the configuration calls by a name or a path."""
        if name.endswith(".ipynb"):
            return Path(name)
        there = sorted(Path(self.notebooks_folder).glob("*.ipynb"))
        found = [path for path in there if name in (path.stem, bare_name(path))]
        if len(found) != 1:
            names = ", ".join(map(bare_name, there)) or "none"
            count = "several notebooks are" if found else "no notebook is"
            raise JobError([f"{count} called so in {self.notebooks_folder} (there are {names})"])
        return found[0]

    def parameters_of(self, notebook: str | Path) -> dict[str, Any]:
        """Return the parameters that are set for a notebook; none if it is not mentioned."""
        path = Path(notebook).resolve()
        for name, parameters in self.notebooks.items():
            if self.path(name).resolve() == path:
                return dict(parameters)
        return {}


def _sweep(name: str, values: Sequence[Any] | str) -> Sweep:
    try:
        swept = read_range(values) if isinstance(values, str) else Sweep(values)
    except JobError as error:
        raise JobError([f"sweep.{name}: {problem}" for problem in error.problems]) from error
    if not swept:
        raise JobError([f"sweep.{name} has no values"])
    return swept


def _from_3(content: dict[str, Any]) -> dict[str, Any]:
    """Version 4 calls the notebooks' folder so: `folder` is a run's everywhere else."""
    renamed = {"folder": "notebooks_folder"}
    return {renamed.get(name, name): value for name, value in content.items()}


#: What makes the next version of a configuration out of one of this version.
_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {3: _from_3}


def load_config(content: Mapping[str, Any], source: str) -> RunConfig:
    """Return the newest form of a configuration of any version.

    A JobError names each wrong field, its value and what is allowed.

    >>> load_config({"version": 3, "folder": "here"}, "old.yaml").notebooks_folder
    'here'
    """
    content = dict(content)
    version = content.get("version")
    if version not in (*_STEPS, NEWEST):
        known = ", ".join(map(str, (*_STEPS, NEWEST)))
        raise JobError([f"{source}: version is one of {known}; got {version!r}"])
    while version != NEWEST:
        content = {**_STEPS[version](content), "version": version + 1}
        version += 1
    try:
        return RunConfig(**content)
    except ValidationError as error:
        raise JobError(problems_of(error, RunConfig, source)) from error


def problems_of(error: ValidationError, model: type[BaseModel], source: str) -> list[str]:
    """Return each problem as a sentence with the field, its value and what is allowed."""
    said: list[str] = []
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"])
        if found["type"] == "extra_forbidden":
            allowed = ", ".join(model.model_fields)
            said.append(f"{source}: there is no {where}; allowed are {allowed}")
        elif not where:  # of the whole: what the notebooks themselves said
            said += [f"{source}: {line}" for line in str(found["ctx"]["error"]).splitlines()]
        elif found["type"] == "missing":
            said.append(f"{source}: {where} is missing")
        elif found["type"] == "value_error":
            said.append(f"{source}: {where}: {found['ctx']['error']}")
        else:
            what = found["msg"].removeprefix("Input should be ")
            said.append(f"{source}: {where} is {found['input']!r}; it should be {what}")
    return said


def bare_name(path: Path) -> str:
    """Return a notebook's name without its number, which a preset need not know.

    >>> bare_name(Path("notebooks/01_mnist_embeddings.ipynb"))
    'mnist_embeddings'
    """
    return re.sub(r"^\d+_", "", path.stem)


def compose(
    config: str | Path, overrides: Sequence[str] = (), *, folder: str | Path = "notebooks"
) -> RunConfig:
    """Return a preset or a file of one's own, composed, migrated and validated.

    Parameters
    ----------
    config
        The name of a preset, or a ``.yaml`` file, whose ``defaults`` may name presets.
    overrides
        In Hydra's grammar: ``"limits=long"``, ``"+notebooks.mnist_embeddings.seed=1"``.
    folder
        The notebooks' folder; the presets lie in its folder ``presets``.

    Raises
    ------
    JobError
        It cannot be read or composed, or names unknown or ill-typed fields or parameters.

    Examples
    --------
    >>> compose("smoke").parameters_of("notebooks/01_mnist_embeddings.ipynb")  # doctest: +SKIP
    {'n_samples': 300, 'epochs': 1}
    """
    presets = Path(folder) / "presets"
    own = str(config).endswith((".yaml", ".yml"))
    path = Path(config) if own else presets / f"{config}.yaml"
    if not own and not path.is_file():
        there = ", ".join(sorted(p.stem for p in presets.glob("*.yaml"))) or "none"
        raise JobError([f"there is no preset {config!r} in {presets}; there are {there}"])
    read_yaml(path)  # which says better than Hydra what is wrong with a file
    content = _composed(path, presets, overrides)
    if not {"folder", "notebooks_folder"} & content.keys():
        content["folder" if content.get("version") == 3 else "notebooks_folder"] = str(folder)
    return load_config(content, str(path))


def _composed(path: Path, presets: Path, overrides: Sequence[str]) -> dict[str, Any]:
    hydra = need("hydra", extra="batch")
    omegaconf = need("omegaconf", extra="batch")
    errors = (
        need("hydra.errors", extra="batch").HydraException,
        omegaconf.errors.OmegaConfBaseException,
    )
    search = [f"hydra.searchpath=['file://{presets.resolve()}']"] if presets.is_dir() else []
    resolvers = omegaconf.OmegaConf
    try:
        with hydra.initialize_config_dir(str(path.resolve().parent), version_base="1.3"):
            found = hydra.compose(path.stem, overrides=[*search, *overrides])
            # A file that somebody else has written is not told what the environment holds.
            resolvers.register_new_resolver("oc.env", _refuse_environment, replace=True)
            content = resolvers.to_container(found, resolve=True)
    except errors as error:
        # Hydra wraps the reason in advice about its own command line and the search path.
        reason = str(error).split("\n\nConfig search path:")[0].strip()
        raise JobError([f"{path}: {reason}"]) from error
    finally:
        env = need("omegaconf.resolvers.oc", extra="batch").env
        resolvers.register_new_resolver("oc.env", env, replace=True)
    return dict(content)


def _refuse_environment(*_: Any) -> str:
    raise ValueError("a configuration does not read environment variables")


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file that is no larger than what a person writes."""
    try:
        if path.exists() and not path.is_file():
            raise JobError([f"{path} is not a regular file"])
        if path.stat().st_size > _MOST_BYTES:
            raise JobError([f"{path} has more than {_MOST_BYTES:,} bytes"])
        text = path.read_text(encoding="utf-8")
        _ensure_small(path, text)
        content = yaml.safe_load(text) or {}
    except OSError as error:
        raise JobError([f"{path}: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError([f"{path} is not YAML: {error}"]) from error
    if not isinstance(content, dict):
        raise JobError([f"{path}: a mapping is expected, got {type(content).__name__}"])
    return content


def _ensure_small(path: Path, text: str) -> None:
    """Raise if YAML says much more than it looks: by aliases, each of which can double it."""
    aliases = depth = 0
    for event in yaml.parse(text):
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if aliases > _MOST_ALIASES:
            raise JobError([f"{path} has more than {_MOST_ALIASES} aliases"])
        if depth > _MOST_DEPTH:
            raise JobError([f"{path} is nested more than {_MOST_DEPTH} deep"])
