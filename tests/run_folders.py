"""Folders of runs without running anything."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from workbench.batch import RunRecord


def make_run(name: str, *, days: float = 0, **fields: Any) -> RunRecord:
    """A run that started some days ago, in a folder of this name below ``runs``."""
    told = {
        "id": name,
        "notebook": "a.ipynb",
        "notebook_sha256": "0" * 64,
        "parameters": {},
        "given": {},
        "packages": {},
        "python": "3",
        "platform": "",
        "host": "elsewhere",
        "cpu_count": 1,
        "git": None,
        "pid": 1,
        "status": "succeeded",
        "started": datetime.now(UTC) - timedelta(days=days),
    }
    record = RunRecord(**{**told, **fields})
    record.folder = Path("runs") / name
    record.folder.mkdir(parents=True)
    record.save()
    return record
