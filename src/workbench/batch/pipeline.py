"""Pipelines: stages that hand files on, run in order, and only if they are not up to date."""

import json
import operator
import platform
import re
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from workbench._units import parse_size
from workbench.batch import run_record
from workbench.batch.jobs import CheckedJob, Job, check_jobs
from workbench.batch.notebook import JobError
from workbench.batch.presets import LimitsConfig, StrictModel, problems_of, read_yaml
from workbench.batch.provenance import check_file
from workbench.batch.results import file_state
from workbench.batch.run import Interrupted, RunContext, ensure_writable, execute_job
from workbench.batch.run_record import RunRecord, leaves, read_runs, results_of
from workbench.batch.supervisor import Interruption, Limits


def reason_to_run(record: RunRecord, job: CheckedJob, inputs: dict[str, str]) -> str | None:
    """Return in words why a run would have to be repeated; None if it need not.

    `inputs` is the SHA-256 of each input by the parameter that names it. The paths do not count:
    the same file from another run is the same input.
    """
    if record.status != "succeeded":
        return f"it {record.status} the last time"
    if record.notebook_sha256 != job.notebook.sha256:
        return "the notebook has changed"
    return (
        _changed_input(record, inputs)
        or _changed_parameter(record, job, inputs)
        or _changed_package(record)
        or _changed_output(record)
    )


def _changed_input(record: RunRecord, inputs: dict[str, str]) -> str | None:
    before = {file.name: file.sha256 for file in record.inputs if file.name}
    for name, digest in inputs.items():
        if before.get(name) != digest:
            return f"the input {name} has changed"
    for file in record.inputs:  # named by a parameter that is no stage's, or declared
        if file.name not in inputs and check_file(Path(file.path), file) != "same":
            return f"the file {file.path} has changed"
    return None


def _changed_parameter(record: RunRecord, job: CheckedJob, inputs: dict[str, str]) -> str | None:
    now, then = _plain(job.masked(job.parameters)), _plain(record.parameters)
    settings: dict[str, tuple[Any, Any]] = {
        "kernel": (job.kernel, record.kernel),
        "cwd": (job.cwd, record.cwd),
    }
    settings |= {n: (now.get(n), then.get(n)) for n in {**now, **then} if n not in inputs}
    for name, (new, old) in settings.items():
        if new != old:
            return f"{name} was {old!r} and is {new!r}"
    return None


def _changed_package(record: RunRecord) -> str | None:
    if record.python != platform.python_version():
        return f"Python was {record.python} and is {platform.python_version()}"
    now, then = run_record.packages(), record.packages
    for name in {**now, **then}:
        if now.get(name) != then.get(name):
            return f"{name} was {then.get(name, 'missing')} and is {now.get(name, 'missing')}"
    return None


def _changed_output(record: RunRecord) -> str | None:
    states = {"missing": "is gone", "changed": "has been changed", "unknown": "was not hashed"}
    for file in record.outputs:
        state = check_file(record.file(file.path), file) if file.name is not None else "same"
        if state != "same":
            return f"its file {file.path} {states[state]}"
    return None


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as the record has them, with lists for tuples."""
    return dict(json.loads(json.dumps(parameters)))


_GATE = re.compile(r"(\S+)\s*(>=|<=|==|!=|>|<)\s*(\S+)")
_COMPARE = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


class Stage(StrictModel):
    """One notebook of a pipeline."""

    notebook: str = Field(description="seen from the pipeline's file")
    parameters: dict[str, Any] = Field(default={})
    inputs: dict[str, str] = Field(default={}, description="parameter: stage.file, as recorded")
    after: list[str] = Field(default=[], description="stages to wait for without taking a file")
    gates: list[str] = Field(default=[], description="conditions, as accuracy > 0.92")

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
                signs = " ".join(_COMPARE)
                raise ValueError(
                    f"a gate is a result, one of {signs} and a value, as accuracy > 0.92; "
                    f"got {gate!r}"
                )
        return gates

    @property
    def needs(self) -> set[str]:
        """The stages that come before."""
        return {*self.after, *(source.partition(".")[0] for source in self.inputs.values())}


class Pipeline(StrictModel):
    """Stages by name."""

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
    """Read a pipeline; the notebooks' paths become seen from here."""
    path = Path(path)
    try:
        pipeline = Pipeline(**read_yaml(path))
    except ValidationError as error:
        raise JobError(problems_of(error, Pipeline, str(path))) from error
    except TypeError as error:
        raise JobError([f"{path} is not a pipeline: {error}"]) from error
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


@dataclass(frozen=True)
class StageResult:
    """What became of a stage, and why."""

    stage: str
    state: Literal["ran", "up to date", "failed", "closed", "stopped"]
    why: str
    record: RunRecord | None = None


def run_pipeline(
    path: str | Path,
    *,
    out: str | Path = "runs",
    n_jobs: int = 1,
    force: Collection[str] = (),
    parameters: dict[str, dict[str, Any]] | None = None,
) -> list[StageResult]:
    """Run the stages of a pipeline that are not up to date.

    A stage is up to date if an earlier run of it had the same notebook, parameters, inputs and
    package versions, succeeded, and left files that are still there and the same. A stage that
    fails, or whose gate is closed, stops those that need it.

    Parameters
    ----------
    path
        The pipeline's YAML file.
    out
        The folder of runs; a stage's runs are in the group ``"<pipeline>/<stage>"``.
    n_jobs
        Stages at a time.
    force
        Stages to run in any case.
    parameters
        Values by stage, on top of those in the file.

    Raises
    ------
    JobError
        The file, a notebook or a parameter is wrong. Nothing was started.
    Interrupted
        Ctrl-C; what had been started was stopped.
    """
    pipeline, out = read_pipeline(path), Path(out)
    for name, given in (parameters or {}).items():
        if name not in pipeline.stages:
            raise JobError([f"there is no stage {name!r}; stages are {', '.join(pipeline.stages)}"])
        pipeline.stages[name].parameters |= given
    if unknown := set(force) - pipeline.stages.keys():
        raise JobError([f"there is no stage {', '.join(sorted(unknown))} to force"])
    checked = _check(pipeline)
    ensure_writable(out)
    run_record.look_again()
    return _PipelineRun(pipeline, checked, out, set(force)).run(n_jobs)


def _check(pipeline: Pipeline) -> dict[str, CheckedJob]:
    """Check all notebooks and parameters, with a word in place of each file to come."""
    stages = pipeline.stages.values()
    jobs = [Job(s.notebook, {**s.parameters, **dict.fromkeys(s.inputs, "file")}) for s in stages]
    return dict(zip(pipeline.stages, check_jobs(jobs), strict=True))


class _PipelineRun:
    """A pipeline while it runs; only the main thread changes what is here."""

    def __init__(
        self, pipeline: Pipeline, checked: dict[str, CheckedJob], out: Path, force: set[str]
    ) -> None:
        self.pipeline = pipeline
        self.checked = checked
        self.out = out
        self.force = force
        self.settled: dict[str, StageResult] = {}
        self.earlier = [record for record in read_runs(out) if record.group]
        self.interruption = Interruption()
        limits = pipeline.limits
        memory = parse_size(limits.memory) if limits.memory else None
        self.limits = Limits(limits.timeout, limits.cell_timeout, memory)

    def run(self, n_jobs: int) -> list[StageResult]:
        order = self.pipeline.order()
        order.prepare()
        going: dict[Future[RunRecord | None], tuple[str, str]] = {}
        with ThreadPoolExecutor(max_workers=n_jobs) as pool:
            try:
                while order.is_active():
                    for name in order.get_ready():
                        why = self._settle_or_say_why(name)
                        if why is None:
                            order.done(name)
                            continue
                        context = self._context(name)
                        going[pool.submit(execute_job, self._job(name), context)] = name, why
                    for future in wait(going, return_when=FIRST_COMPLETED).done if going else ():
                        name, why = going.pop(future)
                        self._finish(name, why, future.result())
                        order.done(name)
            except KeyboardInterrupt as stop:
                self.interruption.reason = str(stop) or self.interruption.reason
                self.interruption.set()
                ended = [record for future in going if (record := future.result())]
                before = [r.record for r in self.settled.values() if r.state == "ran" and r.record]
                raise Interrupted([*before, *ended]) from None
            finally:
                self.interruption.set()
        return list(self.settled.values())

    def _settle_or_say_why(self, name: str) -> str | None:
        """Return why a stage has to run; None if it need not, or cannot."""
        stage = self.pipeline.stages[name]
        for need in sorted(stage.needs):
            if (state := self.settled[need].state) not in ("ran", "up to date"):
                reason = "did not pass its gate" if state == "closed" else state
                self.settled[name] = StageResult(name, "stopped", f"{need} {reason}")
                return None
        for source in stage.inputs.values():
            if self._file(source) is None:
                before, _, wanted = source.partition(".")
                why = f"{before} recorded no file {wanted!r}"
                self.settled[name] = StageResult(name, "stopped", why)
                return None
        if name in self.force:
            return "it was asked for"
        fresh, why = self._look_back(name, stage)
        if fresh:
            self._finish(name, why, fresh, ran=False)
            return None
        return why

    def _look_back(self, name: str, stage: Stage) -> tuple[RunRecord | None, str]:
        """Return an earlier run that is as good as a new one, or why there is none."""
        group = f"{self.pipeline.name}/{name}"
        paths = {p: self._file(source) for p, source in stage.inputs.items()}
        inputs = {p: file_state(path)["sha256"] for p, path in paths.items() if path}
        reasons = []
        for record in (r for r in self.earlier if r.group == group):
            reason = reason_to_run(record, self.checked[name], inputs)
            if reason is None:
                return record, f"as {record.id}"
            reasons.append(reason)
        return None, reasons[0] if reasons else "it has not run before"

    def _job(self, name: str) -> CheckedJob:
        stage = self.pipeline.stages[name]
        files = {p: str(self._file(source)) for p, source in stage.inputs.items()}
        return check_jobs([Job(stage.notebook, {**stage.parameters, **files})])[0]

    def _context(self, name: str) -> RunContext:
        group = f"{self.pipeline.name}/{name}"
        return RunContext(self.out, self.limits, self.interruption, group)

    def _file(self, source: str) -> Path | None:
        """Return the file that a stage recorded under a name."""
        name, _, wanted = source.partition(".")
        record = self.settled[name].record
        found = [f for f in record.outputs if f.name == wanted] if record else []
        return record.file(found[0].path) if record and found else None

    def _finish(self, name: str, why: str, record: RunRecord | None, ran: bool = True) -> None:
        """Settle a stage that has a run, new or old, by its end and its gates."""
        state: Any = "ran" if ran else "up to date"
        if record is None or record.status != "succeeded":
            error = record.error if record else None
            state, why = "failed", f"{error.type}: {error.message}" if error else "interrupted"
        elif closed := closed_gate(self.pipeline.stages[name].gates, results_of(record)):
            state, why = "closed", closed
        self.settled[name] = StageResult(name, state, why, record)
