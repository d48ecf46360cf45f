"""Claims are shown, recorded, and fail a run where they must hold."""

import nbformat
import pytest
from nbclient import NotebookClient

from workbench.batch import check
from workbench.batch.results import collect


def executed(source, allow_errors=False):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, kernel_name="python3", allow_errors=allow_errors).execute()
    return notebook


def test_all_failing_claims_are_named():
    with pytest.raises(AssertionError, match="does not hold: up is down; two is three"):
        check({"up is down": False, "one is one": True, "two is three": False, "n/a": None})


def test_other_data_are_told_and_not_failed():
    check({"up is down": False}, strict=False)
    check({})


@pytest.mark.kernel
def test_verdicts_are_recorded_and_shown_also_when_one_fails():
    claims = {"a < b": True, "b < a": False, "about others": None}
    notebook = executed(f"from workbench.batch import check\ncheck({claims})", allow_errors=True)
    assert collect(notebook.cells) == {
        "claims": {
            "a < b": "holds",
            "b < a": "DOES NOT HOLD",
            "about others": "not about these data",
        }
    }
    shown, error = notebook.cells[0].outputs
    assert "a &lt; b" in shown.data["text/html"]
    assert error.ename == "AssertionError"
