"""A pipeline as it is written down: stages, what each takes from others, and gates."""

import operator
import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.batch.config import LimitsConfig, problems_of
from workbench.batch.notebook import JobError
from workbench.batch.repetition import leaves

_GATE = re.compile(r"(\S+)\s*(>=|<=|==|!=|>|<)\s*(\S+)")
_COMPARE = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


class Stage(BaseModel):
    """One notebook of a pipeline."""

    model_config = ConfigDict(extra="forbid")

    notebook: str = Field(description="seen from the pipeline's file")
    parameters: dict[str, Any] = {}
    inputs: dict[str, str] = Field(
        default={}, description="parameter: stage.file, where the stage recorded a file so"
    )
    after: list[str] = Field(default=[], description="stages to wait for without taking a file")
    gates: list[str] = Field(
        default=[], description="conditions on recorded results, as accuracy > 0.92"
    )

    @field_validator("inputs")
    @classmethod
    def _name_a_stage_and_a_file(cls, inputs: dict[str, str]) -> dict[str, str]:
        for source in inputs.values():
            if not all(source.partition(".")):
                raise ValueError(f"an input is stage.file, got {source!r}")
        return inputs

    @field_validator("gates")
    @classmethod
    def _are_conditions(cls, gates: list[str]) -> list[str]:
        for gate in gates:
            if not _GATE.fullmatch(gate.strip()):
                raise ValueError(f"a gate is a result, one of {' '.join(_COMPARE)} and a value, "
                                 f"as accuracy > 0.92; got {gate!r}")  # fmt: skip
        return gates

    @property
    def needs(self) -> set[str]:
        """The stages that come before."""
        return {*self.after, *(source.partition(".")[0] for source in self.inputs.values())}


class Pipeline(BaseModel):
    """Stages by name."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    name: str
    limits: LimitsConfig = LimitsConfig()
    stages: dict[str, Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _make_sense(self) -> "Pipeline":
        for name, stage in self.stages.items():
            if unknown := stage.needs - self.stages.keys():
                raise ValueError(f"stage {name!r} needs {sorted(unknown)}, which is no stage")
        try:
            self.order().prepare()
        except CycleError as error:
            raise ValueError(
                f"the stages wait for one another: {' → '.join(error.args[1])}"
            ) from error
        return self

    def order(self) -> TopologicalSorter[str]:
        """Return what says which stages may go next."""
        return TopologicalSorter({name: stage.needs for name, stage in self.stages.items()})


def read_pipeline(path: str | Path) -> Pipeline:
    """Read a pipeline; the notebooks' paths become seen from here.

    Raises
    ------
    JobError
        It cannot be read, or does not make sense.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        pipeline = Pipeline(**content)
    except OSError as error:
        raise JobError([f"{path}: {error.strerror}"]) from error
    except ValidationError as error:
        raise JobError(problems_of(error, Pipeline, str(path))) from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise JobError([f"{path} is not a pipeline in YAML: {error}"]) from error
    for stage in pipeline.stages.values():
        stage.notebook = str(path.parent / stage.notebook)
    return pipeline


def closed_gate(gates: list[str], results: Mapping[str, Any]) -> str | None:
    """Return in words the first gate that results do not pass; None if they pass all.

    A result that is missing or is no number where one is asked for passes no gate.

    Examples
    --------
    >>> closed_gate(["accuracy > 0.92"], {"accuracy": 0.9})
    'accuracy > 0.92 does not hold: accuracy is 0.9'
    >>> closed_gate(["scores.f1 >= 0.5", "done == true"], {"scores": {"f1": 0.5}, "done": True})
    """
    known = dict(leaves(results))
    for gate in gates:
        match = _GATE.fullmatch(gate.strip())
        assert match is not None  # noqa: S101  as the model has checked
        name, sign, text = match.groups()
        expected = yaml.safe_load(text)
        if name not in known:
            return f"{gate} does not hold: {name} was not recorded"
        try:
            if _COMPARE[sign](known[name], expected):
                continue
        except TypeError:
            pass
        return f"{gate} does not hold: {name} is {known[name]!r}"
    return None
