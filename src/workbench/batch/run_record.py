"""The record of a run, ``run.json``."""

from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, PrivateAttr

from workbench.batch.memory import Sample
from workbench.batch.notebook import write_text
from workbench.batch.outcome import Cause
from workbench.batch.processes import is_alive_since

Status = Literal["running", "succeeded", "failed", "timed-out", "killed", "interrupted"]


class RunError(BaseModel):
    """Why a run did not succeed."""

    type: str
    message: str
    cause: Cause = Field(default="unknown", description="who ended the run")
    cell: int | None = Field(description="nbformat index, from 0, in the notebook as it was given")
    cell_source: str | None = Field(description="the beginning of that cell")
    traceback: str = Field(description="its end, without colours")


class Memory(BaseModel):
    """The course of a run's memory.

    Sizes are resident memory summed over the run's processes, sampled every 0.25 s: pages that
    they share count once for each, and a peak between two samples is missed.
    """

    limit_bytes: int | None = None
    held_by: Literal["control group", "watching"] | None = Field(
        default=None, description="who held the run to its limit: the kernel, or the runner"
    )
    killed: int = Field(default=0, description="processes that the kernel killed at the limit")
    peak_cell: int | None = Field(default=None, description="the cell that ran at the peak")
    samples: list[Sample] = Field(default=[], description="seconds, bytes, cell; at most 120")
    last: list[Sample] = Field(default=[], description="the last ones, none left out")


class FileState(BaseModel):
    """A file or folder as it was; a folder's hash is that of its files' names and hashes."""

    path: str
    size: int
    sha256: str
    name: str | None = Field(
        default=None, description="the parameter that names it, or as it was recorded"
    )


class GitState(BaseModel):
    """The repository that the notebook lies in."""

    commit: str
    dirty: bool
    diff_sha256: str | None = Field(default=None, description="of `git diff HEAD` when dirty")


class RunRecord(BaseModel):
    """What is known of a run; ``run.json`` holds it as JSON.

    The runner writes it when the run starts and again when it has ended. Paths in it are
    relative, but for those that the user gave as parameters.
    """

    version: Literal[1, 2] = 2
    id: str
    notebook: str = Field(description="relative to the folder in which the run was started")
    notebook_sha256: str
    parameters: dict[str, Any] = Field(description="all of them, the notebook's defaults included")
    given: dict[str, Any] = Field(description="those that the user set, as they were set")
    packages: dict[str, str]
    python: str
    platform: str
    host: str
    cpu_count: int | None
    gpus: list[str] = Field(default=[], description="name, memory and driver of each")
    threads: int | None = Field(default=None, description="processors that the run may use")
    seeds: dict[str, Any] = Field(default={}, description="parameters that are called seeds")
    environment: dict[str, str] = Field(default={}, description="variables that bear on results")
    git: GitState | None
    pid: int = Field(description="the process that supervises the run")
    group: str | None = Field(
        default=None, description="the invocation, sweep or pipeline that it was a part of"
    )
    parent: str | None = Field(default=None, description="the run that this one repeats")
    started: AwareDatetime
    ended: AwareDatetime | None = None
    seconds: float | None = None
    status: Status = "running"
    error: RunError | None = None
    peak_memory_bytes: int | None = Field(default=None, description="as `memory` explains")
    memory: Memory = Memory()
    inputs: list[FileState] = Field(default=[], description="paths from where the run was started")
    outputs: list[FileState] = Field(default=[], description="paths in the run's folder")
    files: list[str] = Field(default=[], description="names in the run's folder")

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._folder

    def lies_in(self, folder: Path) -> None:
        """Set the run's folder."""
        self._folder = folder

    @classmethod
    def load(cls, folder: str | Path) -> "RunRecord":
        """Read the record in a run's folder.

        A run that its record calls running while the process that supervised it is gone is shown
        as killed; the file is left as it is.

        Raises
        ------
        OSError
            There is no ``run.json``.
        pydantic.ValidationError
            It is not a record.
        """
        folder = Path(folder)
        record = cls.model_validate_json((folder / "run.json").read_bytes())
        record.lies_in(folder)
        if record.status == "running" and not is_alive_since(
            record.pid, record.host, record.started.timestamp()
        ):
            message = "the process that supervised this run is gone"
            record.status = "killed"
            record.error = RunError(
                type="ParentGone", message=message, cell=None, cell_source=None, traceback=""
            )
        return record

    def save(self, folder: Path) -> None:
        """Write ``run.json`` at once: a reader finds the old record or the new one, never half."""
        self.lies_in(folder)
        write_text(folder / "run.json", self.model_dump_json(indent=1) + "\n", durable=True)
