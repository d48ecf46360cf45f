"""Run notebooks unattended: checked parameters, one process each, a record that tells the truth.

In a notebook, ``record`` keeps a result and ``output`` a file; outside, ``run_notebook`` and
``run_many`` do what the command ``workbench run`` does.
"""

from importlib import import_module
from typing import Any

from workbench.batch.results import check, input_file, output, record

__all__ = [
    "check",
    "record",
    "output",
    "input_file",
    "run_notebook",
    "run_many",
    "Job",
    "RunConfig",
    "compose",
    "compare",
    "trace",
    "verify",
    "rerun",
    "run_pipeline",
    "RunRecord",
    "read_runs",
    "write_report",
    "write_index",
    "JobError",
    "Interrupted",
]

_HOME = {
    "run_notebook": "run",
    "run_many": "run",
    "Job": "jobs",
    "Interrupted": "run",
    "RunConfig": "presets",
    "compose": "presets",
    "trace": "provenance",
    "verify": "provenance",
    "rerun": "provenance",
    "compare": "provenance",
    "run_pipeline": "pipeline",
    "RunRecord": "run_record",
    "read_runs": "run_record",
    "write_report": "report",
    "write_index": "report",
    "JobError": "notebook",
}


def __getattr__(name: str) -> Any:
    """Import the runner on first use: a notebook that only records results does not need it."""
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
