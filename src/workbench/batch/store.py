"""The record of a run, ``run.json``, and the folder of runs."""

import logging
import platform
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import AwareDatetime, BaseModel, Field, PrivateAttr, ValidationError

from workbench.batch.notebook import write_text

Status = Literal["running", "succeeded", "failed", "timed-out", "killed", "interrupted"]
_log = logging.getLogger("workbench.batch")


class RunError(BaseModel):
    """Why a run did not succeed."""

    type: str
    message: str
    cell: int | None = Field(description="nbformat index, from 0, in the notebook as it was given")
    cell_source: str | None = Field(description="the beginning of that cell")
    traceback: str = Field(description="its end, without colours")


class GitState(BaseModel):
    """The repository that the notebook lies in."""

    commit: str
    dirty: bool


class RunRecord(BaseModel):
    """What is known of a run; ``run.json`` holds it as JSON.

    The runner writes it when the run starts and again when it has ended. Paths in it are
    relative, but for those that the user gave as parameters.
    """

    version: Literal[1] = 1
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
    git: GitState | None
    pid: int = Field(description="the process that supervises the run")
    started: AwareDatetime
    ended: AwareDatetime | None = None
    seconds: float | None = None
    status: Status = "running"
    error: RunError | None = None
    peak_memory_bytes: int | None = Field(
        default=None,
        description="resident memory summed over the run's processes, sampled every 0.25 s: pages "
        "that they share count once for each, and a peak between two samples is missed",
    )
    files: list[str] = Field(default=[], description="names in the run's folder")

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._folder

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
        record._folder = folder
        if record.status == "running" and not record._supervised():
            message = "the process that supervised this run is gone"
            record.status = "killed"
            record.error = RunError(
                type="ParentGone", message=message, cell=None, cell_source=None, traceback=""
            )
        return record

    def save(self, folder: Path) -> None:
        """Write ``run.json`` at once: a reader finds the old record or the new one, never half."""
        self._folder = folder
        write_text(folder / "run.json", self.model_dump_json(indent=1) + "\n")

    def _supervised(self) -> bool:
        if self.host != platform.node():
            return True  # nothing can be known of another machine's processes
        try:
            born = psutil.Process(self.pid).create_time()
        except psutil.Error:
            return False
        # A process that is younger than the run has only got the old one's number. The start of a
        # process is known to a hundredth of a second.
        return born < self.started.timestamp() + 1.0


def read_runs(out: str | Path = "runs") -> list[RunRecord]:
    """Return the records of all runs in a folder, newest first.

    Records that cannot be read are named in a warning of the ``workbench.batch`` logger.

    Examples
    --------
    >>> read_runs("no-such-folder")
    []
    """
    found = []
    for path in Path(out).glob("*/run.json"):
        try:
            found.append(RunRecord.load(path.parent))
        except (OSError, ValidationError) as error:
            _log.warning("%s cannot be read: %s", path, str(error).partition("\n")[0])

    return sorted(found, key=lambda record: (record.started, record.id), reverse=True)
