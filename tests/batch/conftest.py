"""Small notebooks, and the command in a process of its own."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch_helpers import write_notebook


@pytest.fixture
def make_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write notebooks into an own folder, which becomes the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, *cells: str, parameters: str | None = None) -> Path:
        path = Path(f"{name}.ipynb")
        write_notebook(path, *cells, parameters=parameters)
        return path

    return make


@pytest.fixture
def start_workbench() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``workbench`` with arguments, and leave none of it behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("workbench"), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_like_a_user,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _like_a_user() -> None:
    """Take the defaults of a user's shell, in a process that is about to become the command."""
    # Tests that a shell runs in the background have Ctrl-C switched off, and hand that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.geteuid() == 0:
        # Root passes by file permissions: drop that (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE).
        ctypes.CDLL(None).prctl(24, 1)
