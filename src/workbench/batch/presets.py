"""Configurations composed by Hydra: presets beside the notebooks, and the reader's own files.

What a batch run is configured by: a typed, versioned file, and how older versions become new.

A file is read as the model of its version, and each model makes the next one, so that what runs is
always a `RunConfig`.

JSON schemas, for editors that complete and check what people write.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from workbench._extras import need
from workbench._units import parse_size
from workbench.batch.jobs import Sweep, combinations
from workbench.batch.notebook import JobError, Notebook, write_text
from workbench.batch.parameters import Parameter, check_parameters, read_parameters

NEWEST = 3


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class LimitsConfig(_Model):
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


class RunConfig(_Model):
    """Version 3: limits in a group of their own, and sweeps.

    Parameters of a notebook are checked against the notebook itself.
    """

    version: Literal[3] = 3
    folder: str = Field(default="notebooks", description="where notebooks called by name lie")
    notebooks: dict[str, dict[str, Any]] = Field(
        default={},
        description="parameters by notebook: a path, or a name with or without its number",
    )
    sweep: dict[str, list[Any] | str] = Field(
        default={}, description="values, or range(...), of parameters: each combination is a run"
    )
    limits: LimitsConfig = LimitsConfig()
    jobs: int = Field(default=1, ge=1, description="runs at a time")
    values: dict[str, Any] = Field(default={}, description="for ${values.name} elsewhere")

    @model_validator(mode="after")
    def _check_notebooks(self) -> "RunConfig":
        problems = []
        for name, parameters in self.notebooks.items():
            try:
                path = self.path(name)
                known = read_parameters(Notebook.read(path))
                swept = {n: Sweep.of(n, values) for n, values in self.sweep.items()}
                for chosen in combinations({**swept, **parameters}):
                    check_parameters(known, chosen)
            except JobError as error:
                problems += [f"notebooks.{name}: {problem}" for problem in error.problems]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def path(self, name: str) -> Path:
        """Return the file of a notebook that the configuration calls by a name or a path."""
        if name.endswith(".ipynb"):
            return Path(name)
        found = [p for p in Path(self.folder).glob("*.ipynb") if name in (p.stem, bare_name(p))]
        if len(found) != 1:
            there = ", ".join(sorted(bare_name(p) for p in Path(self.folder).glob("*.ipynb")))
            count = "several notebooks are" if found else "no notebook is"
            raise JobError([f"{count} called so in {self.folder} (there are {there or 'none'})"])
        return found[0]

    def parameters_of(self, notebook: str | Path) -> dict[str, Any]:
        """Return the parameters that are set for a notebook; none if it is not mentioned."""
        path = Path(notebook).resolve()
        for name, parameters in self.notebooks.items():
            if self.path(name).resolve() == path:
                return dict(parameters)
        return {}


class ConfigV2(_Model):
    """Version 2: several notebooks, limits in seconds beside them."""

    version: Literal[2]
    folder: str = "notebooks"
    notebooks: dict[str, dict[str, Any]] = {}
    timeout: float | None = Field(default=None, gt=0)
    cell_timeout: float | None = Field(default=None, gt=0)
    jobs: int = Field(default=1, ge=1)

    def to_next(self) -> dict[str, Any]:
        """Gather the limits."""
        limits = {"timeout": self.timeout, "cell_timeout": self.cell_timeout}
        kept = self.model_dump(include={"folder", "notebooks", "jobs"})
        return {"version": 3, "limits": limits, **kept}


class ConfigV1(_Model):
    """Version 1: one notebook, its time in minutes."""

    version: Literal[1]
    notebook: str
    parameters: dict[str, Any] = {}
    timeout_minutes: float | None = Field(default=None, gt=0)

    def to_next(self) -> dict[str, Any]:
        """Make it the only one of several, and seconds of minutes."""
        seconds = self.timeout_minutes and self.timeout_minutes * 60
        return {"version": 2, "notebooks": {self.notebook: self.parameters}, "timeout": seconds}


M = TypeVar("M", bound=BaseModel)
_MODELS: dict[int, type[ConfigV1] | type[ConfigV2]] = {1: ConfigV1, 2: ConfigV2}


def load_config(content: Mapping[str, Any], source: str) -> RunConfig:
    """Return the newest form of a configuration of any version.

    Raises
    ------
    JobError
        Names each wrong field, its value and what is allowed, and the version it was read as.

    Examples
    --------
    >>> old = {"version": 2, "timeout": 60}
    >>> load_config(old, "old.yaml").limits.timeout
    60.0
    """
    content = dict(content)
    version = content.get("version")
    if version not in (*_MODELS, NEWEST):
        known = ", ".join(map(str, (*_MODELS, NEWEST)))
        raise JobError([f"{source}: version is one of {known}; got {version!r}"])
    while version != NEWEST:
        step = f"{source}, version {version} → {version + 1}"
        content = _as(_MODELS[version], content, step).to_next()
        version += 1
    return _as(RunConfig, content, source)


def _as(model: type[M], content: Mapping[str, Any], source: str) -> M:
    try:
        return model(**content)
    except ValidationError as error:
        raise JobError(problems_of(error, model, source)) from error


def problems_of(error: ValidationError, model: type[BaseModel], source: str) -> list[str]:
    """Return each problem as a sentence with the field, its value and what is allowed."""
    return list(_problems(error, model, source))


def _problems(error: ValidationError, model: type[BaseModel], source: str) -> Iterator[str]:
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"])
        if found["type"] == "extra_forbidden":
            allowed = ", ".join(model.model_fields)
            yield f"{source}: there is no {where}; allowed are {allowed}"
        elif not where:  # of the whole: what the notebooks themselves said
            yield from (f"{source}: {line}" for line in str(found["ctx"]["error"]).splitlines())
        elif found["type"] == "missing":
            yield f"{source}: {where} is missing"
        elif found["type"] == "value_error":
            yield f"{source}: {where}: {found['ctx']['error']}"
        else:
            what = found["msg"].removeprefix("Input should be ")
            yield f"{source}: {where} is {found['input']!r}; it should be {what}"


def bare_name(path: Path) -> str:
    """Return a notebook's name without its number, which a preset need not know.

    Examples
    --------
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
        In Hydra's grammar: ``"limits=long"``, ``"notebooks.mnist_embeddings.epochs=2"``,
        ``"+notebooks.mnist_embeddings.seed=1"`` for what the configuration does not mention.
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
    version = _version(path, presets)
    if version == NEWEST:
        content = _composed(path, presets, overrides)
        content.setdefault("folder", str(folder))
    elif overrides:
        raise JobError([f"{path}: overrides need version {NEWEST}, and this is {version!r}"])
    else:
        content = _read(path)
    return load_config(content, str(path))


def save(config: RunConfig, path: Path) -> None:
    """Write a configuration so that `compose` reads the same."""
    content = config.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump({"version": NEWEST, **content}, sort_keys=False, allow_unicode=True)
    write_text(path, text)


def _composed(path: Path, presets: Path, overrides: Sequence[str]) -> dict[str, Any]:
    hydra = need("hydra", extra="batch")
    omegaconf = need("omegaconf", extra="batch")
    errors = (
        need("hydra.errors", extra="batch").HydraException,
        omegaconf.errors.OmegaConfBaseException,
    )
    search = [f"hydra.searchpath=['file://{presets.resolve()}']"] if presets.is_dir() else []
    try:
        with hydra.initialize_config_dir(str(path.resolve().parent), version_base="1.3"):
            found = hydra.compose(path.stem, overrides=[*search, *overrides])
            content = omegaconf.OmegaConf.to_container(found, resolve=True)
    except errors as error:
        # Hydra wraps the reason in advice about its own command line and the search path.
        reason = str(error).split("\n\nConfig search path:")[0].strip()
        raise JobError([f"{path}: {reason}"]) from error
    return dict(content)


def _version(path: Path, presets: Path) -> Any:
    """Return a file's version; one that only composes others has theirs, which is the newest."""
    content = _read(path, presets)
    return content.get("version", NEWEST if "defaults" in content else None)


def _read(path: Path, presets: Path | None = None) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        there = sorted(p.stem for p in presets.glob("*.yaml")) if presets else []
        hint = f" (presets are {', '.join(there)})" if there else ""
        raise JobError([f"{path}: {error.strerror}{hint}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError([f"{path} is not YAML: {error}"]) from error
    if not isinstance(content, dict):
        raise JobError([f"{path}: a configuration is a mapping, got {type(content).__name__}"])
    return content


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of the newest configuration.

    Examples
    --------
    >>> config_schema()["properties"]["version"]["const"]
    3
    """
    return RunConfig.model_json_schema()


def parameters_schema(notebook: str | Path) -> dict[str, Any]:
    """Return the JSON schema of a notebook's parameters.

    Raises
    ------
    JobError
        The notebook cannot be read, or its parameters are not typed literals.
    """
    known = read_parameters(Notebook.read(notebook))
    fields: dict[str, Any] = {name: _field(p) for name, p in known.items()}
    forbid = ConfigDict(extra="forbid")
    model: type[BaseModel] = create_model(Path(notebook).stem, __config__=forbid, **fields)
    return model.model_json_schema()


def _field(parameter: Parameter) -> tuple[Any, Any]:
    """Return what pydantic makes a field of: the type with its limits, and the default."""
    kind = Literal[parameter.choices] if parameter.choices else parameter.type
    limits = Field(ge=parameter.low, le=parameter.high)
    return Annotated[kind, limits], parameter.default
