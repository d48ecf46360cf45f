"""Results: what may be recorded, and how it is collected."""

import datetime
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench.batch.results import MIME, collect, record, to_plain


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (3, 3),
        (True, True),
        (None, None),
        ("text", "text"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.float64("inf"), "inf"),
        (np.array([1.0, np.nan]), [1.0, "nan"]),
        (xr.DataArray(0.25), 0.25),
        (xr.DataArray([1, 2]), [1, 2]),
        ({"a": (1, np.float64(2.0)), 3: None}, {"a": [1, 2.0], "3": None}),
        (datetime.date(2024, 5, 1), "2024-05-01"),
    ],
)
def test_makes_values_plain(value: object, plain: object) -> None:
    found = to_plain(value, "x")
    assert found == plain
    assert type(found) is type(plain)


def test_tables_come_back_as_they_were() -> None:
    table = pd.DataFrame({"k": [1, 2], "score": [0.5, 1.0], "name": ["a", None]})
    plain = to_plain(table, "x")
    pd.testing.assert_frame_equal(pd.DataFrame(**plain), table)
    assert to_plain(table.set_index("name"), "x")["columns"] == ["name", "k", "score"]
    assert to_plain(pd.Series([1, 2], name="n"), "x") == {"columns": ["n"], "data": [[1], [2]]}


@pytest.mark.parametrize("value", [object(), {1, 2}, [lambda: 1], b"bytes"])
def test_refuses_other_kinds(value: object) -> None:
    with pytest.raises(TypeError, match="result 'x' is a "):
        record("x", value)


@pytest.mark.parametrize("value", ["a" * 70_000, np.zeros(30_000), list(range(20_000))])
def test_refuses_what_is_large(value: object) -> None:
    with pytest.raises(ValueError, match=r"result 'x' (takes|has) .* more than"):
        record("x", value)


def test_needs_a_name() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        record(" ", 1)


def test_is_silent_outside_ipython(capsys: pytest.CaptureFixture[str]) -> None:
    record("x", 1)
    assert capsys.readouterr().out == ""


def test_the_last_of_a_name_wins() -> None:
    def cell(name: str, value: int) -> dict[str, object]:
        shown = {MIME: {"name": name, "json": str(value)}}
        return {"outputs": [{"data": shown}, {"text": "x"}]}

    assert collect([cell("a", 1), cell("b", 2), {}, cell("a", 3)]) == {"a": 3, "b": 2}


def test_the_command_and_record_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom workbench.batch import record\nimport workbench.batch.cli as cli\n"
        "try:\n    cli.app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'papermill', 'pydantic', 'psutil', 'jinja2', 'nbformat', 'nbconvert', 'numpy',"
        " 'pandas', 'IPython', 'tqdm', 'rich'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "runs" in done.stdout


def test_a_result_can_be_recorded_after_a_run_was_started_from_the_same_process() -> None:
    code = (
        "from workbench import batch\n"
        "import workbench.batch.run, workbench.batch.run_record\n"
        "assert callable(batch.record), batch.record"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
