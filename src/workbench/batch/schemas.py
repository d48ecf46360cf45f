"""JSON schemas, for editors that complete and check what people write."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from workbench.batch.config import RunConfig
from workbench.batch.declarations import read_parameters
from workbench.batch.notebook import Notebook
from workbench.batch.parameters import Parameter


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
