"""Whether this notebook runs unattended, as the runner tells by environment variables."""

import os
from pathlib import Path

#: Holds the run's id, in the run's own process and in all that it starts.
RUN_ID = "WORKBENCH_RUN_ID"
#: Holds the absolute path of the run's folder, which need not be the working directory.
RUN_FOLDER = "WORKBENCH_RUN_FOLDER"
#: Begins the names of variables by which secrets reach the kernel.
SECRET_PREFIX = "WORKBENCH_SECRET_"  # noqa: S105  no secret itself


def run_id() -> str | None:
    """The id of the batch run that this is; None where somebody looks on."""
    return os.environ.get(RUN_ID) or None


def in_batch() -> bool:
    """Whether this notebook runs in batch."""
    return run_id() is not None


def run_folder() -> Path:
    """The folder of the batch run that this is, else the working directory."""
    return Path(os.environ.get(RUN_FOLDER) or Path.cwd())
