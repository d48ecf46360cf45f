"""Run a pipeline: in order, in parallel where it may, and only what is not up to date."""

import threading
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench.batch import provenance
from workbench.batch.attempt import Setting, carry_out
from workbench.batch.files import measure
from workbench.batch.freshness import why_stale
from workbench.batch.jobs import Job, Plan, check_jobs
from workbench.batch.limits import parse_size
from workbench.batch.notebook import JobError
from workbench.batch.nursery import Nursery
from workbench.batch.repetition import results_of
from workbench.batch.run import Interrupted, ensure_writable
from workbench.batch.run_record import RunRecord
from workbench.batch.stages import Pipeline, Stage, closed_gate, read_pipeline
from workbench.batch.store import read_runs, summaries
from workbench.batch.supervise import Limits


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

    Returns
    -------
    list of StageResult
        In the order in which they were settled.

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
    plans = _check(pipeline)
    ensure_writable(out)
    provenance.look_again()
    return _Running(pipeline, plans, out, set(force)).run(n_jobs)


def _check(pipeline: Pipeline) -> dict[str, Plan]:
    """Check all notebooks and parameters, with a word in place of each file to come."""
    stages = pipeline.stages.values()
    jobs = [Job(s.notebook, {**s.parameters, **dict.fromkeys(s.inputs, "file")}) for s in stages]
    return dict(zip(pipeline.stages, check_jobs(jobs), strict=True))


class _Running:
    """A pipeline while it runs; only the main thread changes what is here."""

    def __init__(
        self, pipeline: Pipeline, plans: dict[str, Plan], out: Path, force: set[str]
    ) -> None:
        self.pipeline, self.plans, self.out, self.force = pipeline, plans, out, force
        self.settled: dict[str, StageResult] = {}
        self.earlier = summaries(out)
        self.interrupted = threading.Event()
        limits = pipeline.limits
        memory = parse_size(limits.memory) if limits.memory else None
        self.limits = Limits(limits.timeout, limits.cell_timeout, memory)

    def run(self, n_jobs: int) -> list[StageResult]:
        order = self.pipeline.order()
        order.prepare()
        going: dict[Future[RunRecord | None], tuple[str, str]] = {}
        with Nursery() as nursery, ThreadPoolExecutor(max_workers=n_jobs) as pool:
            try:
                while order.is_active():
                    for name in order.get_ready():
                        why = self._settle_or_say_why(name)
                        if why is None:
                            order.done(name)
                            continue
                        setting = self._setting(name, nursery)
                        going[pool.submit(carry_out, self._plan(name), setting)] = name, why
                    for future in wait(going, return_when=FIRST_COMPLETED).done if going else ():
                        name, why = going.pop(future)
                        self._finish(name, why, future.result())
                        order.done(name)
            except KeyboardInterrupt:
                self.interrupted.set()
                ended = [record for future in going if (record := future.result())]
                before = [r.record for r in self.settled.values() if r.state == "ran" and r.record]
                raise Interrupted([*before, *ended]) from None
            finally:
                self.interrupted.set()
        return list(self.settled.values())

    def _settle_or_say_why(self, name: str) -> str | None:
        """Return why a stage has to run; None if it need not, or cannot."""
        stage = self.pipeline.stages[name]
        for need in sorted(stage.needs):
            if self.settled[need].state not in ("ran", "up to date"):
                self.settled[name] = StageResult(name, "stopped", f"{need} {self._state(need)}")
                return None
        missing = [s for s in stage.inputs.values() if self._file(s) is None]
        if missing:
            why = (
                f"{missing[0].partition('.')[0]} recorded no file {missing[0].partition('.')[2]!r}"
            )
            self.settled[name] = StageResult(name, "stopped", why)
            return None
        if name in self.force:
            return "it was asked for"
        fresh, why = self._look_back(name, stage)
        if fresh:
            self._finish(name, why, fresh, ran=False)
            return None
        return why

    def _state(self, name: str) -> str:
        return {"closed": "did not pass its gate"}.get(
            self.settled[name].state, self.settled[name].state
        )

    def _look_back(self, name: str, stage: Stage) -> tuple[RunRecord | None, str]:
        """Return an earlier run that is as good as a new one, or why there is none."""
        group = f"{self.pipeline.name}/{name}"
        ids = [s.id for s in self.earlier if s.group == group]
        inputs = {
            p: measure(path)[1] for p in stage.inputs if (path := self._file(stage.inputs[p]))
        }
        reasons = []
        for record in read_runs(self.out, ids):
            reason = why_stale(record, self.plans[name], inputs)
            if reason is None:
                return record, f"as {record.id}"
            reasons.append(reason)
        return None, reasons[0] if reasons else "it has not run before"

    def _plan(self, name: str) -> Plan:
        stage = self.pipeline.stages[name]
        files = {p: str(self._file(source)) for p, source in stage.inputs.items()}
        return check_jobs([Job(stage.notebook, {**stage.parameters, **files})])[0]

    def _setting(self, name: str, nursery: Nursery) -> Setting:
        group = f"{self.pipeline.name}/{name}"
        return Setting(self.out, self.limits, nursery, self.interrupted, group)

    def _file(self, source: str) -> Path | None:
        """Return the file that a stage recorded under a name."""
        name, _, wanted = source.partition(".")
        record = self.settled[name].record
        found = [f for f in record.outputs if f.name == wanted] if record else []
        return record.folder / found[0].path if record and found else None

    def _finish(self, name: str, why: str, record: RunRecord | None, ran: bool = True) -> None:
        """Settle a stage that has a run, new or old, by its end and its gates."""
        state: Any = "ran" if ran else "up to date"
        if record is None or record.status != "succeeded":
            error = record.error if record else None
            state, why = "failed", f"{error.type}: {error.message}" if error else "interrupted"
        elif closed := closed_gate(self.pipeline.stages[name].gates, results_of(record)):
            state, why = "closed", closed
        self.settled[name] = StageResult(name, state, why, record)
