"""Whether this notebook runs unattended, as the runner tells by an environment variable."""

import os

#: Holds the run's id, in the run's own process and in all that it starts.
RUN_ID = "WORKBENCH_RUN_ID"


def run_id() -> str | None:
    """The id of the batch run that this is; None where somebody looks on."""
    return os.environ.get(RUN_ID) or None


def in_batch() -> bool:
    """Whether this notebook runs in batch."""
    return run_id() is not None
