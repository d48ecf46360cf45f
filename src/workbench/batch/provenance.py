"""Where and on what a run happened: package versions, machine, git."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def of(folder: Path) -> dict[str, Any]:
    """Return the part of a run's record that says on what it ran, for a notebook in a folder."""
    return {**_machine(), "git": _git_state(folder)}


@cache
def _machine() -> dict[str, Any]:
    return {
        "packages": {d.name: d.version for d in sorted(distributions(), key=lambda d: d.name)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu_count": os.cpu_count(),
    }


@cache
def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit and whether files differ from it; None without repository or git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    # Without the optional locks a status never gets in the way of a commit made meanwhile.
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout
