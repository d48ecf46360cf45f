"""Where and on what a run happened: package versions, machine, git, environment."""

import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

# Variables that change what a computation gives or where it reads; none of them is a secret.
_TELLING = (
    "CUDA_", "CUBLAS_", "DASK_", "GDAL_", "LANG", "LC_", "MALLOC_", "MKL_", "NUMBA_", "NUMEXPR_",
    "OMP_", "OPENBLAS_", "PROJ_", "PYTHONHASHSEED", "PYTHONPATH", "TORCH_", "TZ", "WORKBENCH_",
)  # fmt: skip
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD")


def of(folder: Path) -> dict[str, Any]:
    """Return the part of a run's record that says on what it ran, for a notebook in a folder."""
    return {**_machine(), "environment": _environment(), "git": _git_state(folder)}


def packages() -> dict[str, str]:
    """Return the versions of all installed distributions."""
    return dict(_machine()["packages"])


def look_again() -> None:
    """Forget what git said: the files may have changed since the last invocation."""
    _git_state.cache_clear()


@cache
def _machine() -> dict[str, Any]:
    return {
        "packages": {d.name: d.version for d in sorted(distributions(), key=lambda d: d.name)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu_count": os.cpu_count(),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "gpus": _gpus(),
    }


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_TELLING) and not any(word in name for word in _SECRET)
    }


def _gpus() -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


@cache
def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit and whether files differ from it; None without repository or git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        dirty = bool(_git(folder, "status", "--porcelain"))
        diff = _git(folder, "diff", "HEAD", "--binary", "--no-ext-diff") if dirty else ""
    except (OSError, subprocess.SubprocessError):
        return None
    digest = hashlib.sha256(diff.encode(errors="surrogateescape")).hexdigest() if dirty else None
    return {"commit": commit, "dirty": dirty, "diff_sha256": digest}


def _git(folder: Path, *arguments: str) -> str:
    # Without the optional locks a status never gets in the way of a commit made meanwhile.
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=True,
        timeout=20,
    ).stdout
