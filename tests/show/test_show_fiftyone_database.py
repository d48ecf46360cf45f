"""What is said where FiftyOne's database does not start; each in a process of its own."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("fiftyone")

CONNECT = "from workbench.show.fiftyone_bridge import connect; connect()"
AGED = (
    "import fiftyone; fiftyone.list_datasets(); "
    "from fiftyone.core.odm import database; config = database.get_db_config(); "
    "config.version = '99.0'; config.save()"
)


def python(code, **variables):
    here = {"FIFTYONE_DO_NOT_TRACK": "true", "FIFTYONE_DATABASE_VALIDATION": "false", **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**os.environ, **here}, capture_output=True, text=True)


def test_no_database_says_which_variable_to_set():
    nowhere = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"
    said = python(CONNECT, FIFTYONE_DATABASE_URI=nowhere).stderr
    assert "RuntimeError: FiftyOne's database does not start (ConnectionError" in said
    assert "Set FIFTYONE_DATABASE_URI to a MongoDB of your own" in said


@pytest.mark.slow
def test_a_newer_database_says_to_take_another_folder(tmp_path):
    folder = {"FIFTYONE_DATABASE_DIR": str(tmp_path)}
    aged = python(AGED, **folder)
    if aged.returncode:
        pytest.skip("FiftyOne's database does not start here")
    said = python(CONNECT, **folder).stderr
    assert "A newer FiftyOne has used this database" in said
    assert "set FIFTYONE_DATABASE_DIR to another folder" in said
