"""``make setup`` ends with a torch and a torchvision that fit each other, or fails and says so.

The recipe runs as it stands; in the place of the installer and the interpreter stand scripts that
note what they were asked.
"""

import subprocess

import pytest
from notebook_contract import ROOT

INSTALLER = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *torch-backend*) echo "{error}" >&2; exit {backend};; esac
"""
#: Importing torchvision fails so many times; whatever else it is asked succeeds.
INTERPRETER = """#!/bin/sh
case "$*" in *torchvision*)
    echo import >> {log}
    [ "$(grep -c '^import$' {log})" -gt {failures} ];;
esac
"""
USUAL = "--require-hashes --requirement torch.lock"


@pytest.fixture
def setup(tmp_path):
    """Run ``make setup`` where PyTorch's index answers or not and imports fail so many times."""

    def run(*, backend, failures):
        log, programs = tmp_path / "log", tmp_path / "venv" / "bin"
        programs.mkdir(parents=True)
        values = {"log": log, "error": "no such host", "backend": backend, "failures": failures}
        for file, text in ((tmp_path / "uv", INSTALLER), (programs / "python", INTERPRETER)):
            file.write_text(text.format(**values))
            file.chmod(0o755)
        command = ["make", "-C", ROOT, "setup", f"UV={tmp_path / 'uv'}", f"VENV={programs.parent}"]
        done = subprocess.run(command, capture_output=True, text=True)
        return done, log.read_text()

    return run


def test_pytorchs_own_index_is_enough(setup):
    done, log = setup(backend=0, failures=0)
    assert done.returncode == 0
    assert "--torch-backend=auto torch==" in log
    assert USUAL not in log


@pytest.mark.parametrize(("backend", "failures"), [(2, 0), (0, 1)])
def test_the_usual_index_when_unreachable_or_the_two_do_not_fit(setup, backend, failures):
    done, log = setup(backend=backend, failures=failures)
    assert done.returncode == 0
    assert USUAL in log
    assert "no such host" in done.stderr, "the first installer's own error is hidden"
    assert "from the usual index instead" in done.stderr


def test_what_still_cannot_be_imported_fails_loudly(setup):
    done, _ = setup(backend=0, failures=9)
    assert done.returncode != 0


def test_runs_are_removed_by_a_target_of_their_own():
    def commands(target):
        done = subprocess.run(["make", "-n", "-C", ROOT, target], capture_output=True, text=True)
        return done.stdout.split()

    assert ".venv" in commands("clean")
    assert "runs" not in commands("clean")
    assert "runs" in commands("clean-runs")
