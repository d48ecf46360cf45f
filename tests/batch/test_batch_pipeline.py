"""Pipelines: order, files handed on, what is up to date and why, gates."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from notebook_contract import ROOT

from workbench.batch import JobError, read_runs
from workbench.batch.pipeline import (
    StageResult,
    closed_gate,
    read_pipeline,
    run_pipeline,
)

Make = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]

FIRST = """
from pathlib import Path
from workbench import batch
Path('n.txt').write_text(str(n))
batch.output('n.txt', 'number')
"""
NEXT = """
from pathlib import Path
from workbench import batch
number = int(Path(file).read_text())
Path('n.txt').write_text(str(number + add))
batch.output('n.txt', 'number')
batch.record('number', number + add)
"""
PIPELINE = """
version: 1
name: sums
stages:
  first: {notebook: first.ipynb, parameters: {n: 1}}
  left: {notebook: next.ipynb, inputs: {file: first.number}, parameters: {add: 10}}
  right: {notebook: next.ipynb, inputs: {file: first.number}, gates: [number < 100]}
  last: {notebook: next.ipynb, inputs: {file: right.number}, after: [left]}
"""


@pytest.fixture
def pipeline(make_notebook: Make) -> Path:
    make_notebook("first", FIRST, parameters="n: int = 0")
    make_notebook("next", NEXT, parameters="file: str = ''\nadd: int = 1")
    Path("sums.yaml").write_text(PIPELINE)
    return Path("sums.yaml")


def told(results: list[StageResult]) -> dict[str, tuple[str, str]]:
    return {r.stage: (r.state, r.why) for r in results}


def test_only_what_is_not_up_to_date_runs_and_it_is_said_why(pipeline: Path) -> None:
    found = run_pipeline(pipeline, n_jobs=2)
    stages = ("first", "left", "right", "last")
    assert told(found) == dict.fromkeys(stages, ("ran", "it has not run before"))
    assert found[0].stage == "first"
    assert found[-1].stage == "last"
    runs = {r.stage: r.record for r in found}
    assert runs["last"] is not None
    assert (runs["last"].folder / "n.txt").read_text() == "3"

    again = run_pipeline(pipeline)
    assert {r.state for r in again} == {"up to date"}
    assert len(read_runs()) == 4

    # A gate that closes stops what follows; a parameter that changed makes one stage run.
    found = run_pipeline(pipeline, parameters={"right": {"add": 200}})
    assert told(found) == {
        "first": ("up to date", f"as {runs['first'].id}"),
        "left": ("up to date", f"as {runs['left'].id}"),
        "right": ("closed", "number < 100 does not hold: number is 201"),
        "last": ("stopped", "right did not pass its gate"),
    }
    # An input that came out the same as before makes nothing run that reads it.
    found = run_pipeline(pipeline, force=["first"])
    assert told(found)["first"] == ("ran", "it was asked for")
    assert {told(found)[s][0] for s in ("left", "right", "last")} == {"up to date"}

    runs["left"].folder.joinpath("n.txt").unlink()
    runs["last"].folder.joinpath("n.txt").write_text("tampered")
    notebook = json.loads(Path("first.ipynb").read_text())
    notebook["cells"][-1]["source"] = [FIRST, "1 / 0"]
    Path("first.ipynb").write_text(json.dumps(notebook))
    found = run_pipeline(pipeline)
    assert told(found)["first"] == ("failed", "ZeroDivisionError: division by zero")
    assert {told(found)[s] for s in ("left", "right")} == {("stopped", "first failed")}
    notebook["cells"][-1]["source"] = [FIRST]
    Path("first.ipynb").write_text(json.dumps(notebook))
    found = run_pipeline(pipeline)
    assert told(found)["left"] == ("ran", "its file n.txt is gone")
    assert told(found)["right"][0] == "up to date"
    assert told(found)["last"] == ("ran", "its file n.txt has been changed")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("file: first.number", "file: number", "an input is stage.file, got 'number'"),
        ("after: [left]", "after: [nobody]", "stage 'last' needs ['nobody'], which is no stage"),
        ("first.ipynb, ", "first.ipynb, after: [last], ", "the stages wait for one another"),
        ("number < 100", "number is fine", "a gate is a result, one of > >= < <= == != and"),
        ("{n: 1}", "{m: 1}", "unknown parameter 'm'"),
        ("{file: right", "{fiel: right", "unknown parameter 'fiel'; did you mean 'file'?"),
        ("next.ipynb", "nothing.ipynb", "nothing.ipynb: No such file"),
        ("version: 1", "version: 2", "version is 2; it should be 1"),
        ("name: sums", "nome: sums", "there is no nome; allowed are version, name"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    pipeline: Path, old: str, new: str, said: str
) -> None:
    pipeline.write_text(PIPELINE.replace(old, new))
    with pytest.raises(JobError) as caught:
        run_pipeline(pipeline)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("gate", "holds"),
    [
        ("a > 0.92", True),
        ("a>=0.95", True),
        ("a < 0.95", False),
        ("b.c == x", True),
        ("b.c != x", False),
        ("b.c > 1", False),
        ("missing > 0", False),
        ("ok == true", True),
        ("lost > 0", False),
    ],
)
def test_gates(gate: str, holds: bool) -> None:
    results = {"a": 0.95, "b": {"c": "x"}, "ok": True, "lost": "nan"}
    assert (closed_gate([gate], results) is None) is holds


def test_the_worked_example(tmp_path: Path, start_workbench: Start) -> None:
    example = ROOT / "notebooks" / "pipelines"
    process = start_workbench("pipeline", example / "digits.yaml", "--out", tmp_path, "--jobs", 2)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err + out
    lines = [line.split()[:2] for line in out.splitlines()[:-1]]
    assert lines == [[s, "ran"] for s in read_pipeline(example / "digits.yaml").stages]
    runs = {Path(r.notebook).stem: r for r in read_runs(tmp_path)}
    results = json.loads((runs["evaluate"].folder / "results.json").read_text())
    assert results["accuracy"] == pytest.approx(0.96, abs=0.01)
    error = results["calibration_error"]
    assert error["calibrated"] < 0.04 < 0.2 < error["forest"]
    assert {p.name for p in (runs["release"].folder / "release").iterdir()} == {
        "card.json", "forest.joblib", "steps.joblib",
    }  # fmt: skip

    strict = tmp_path / "strict"
    shutil.copytree(example, strict)
    text = (strict / "digits.yaml").read_text().replace("accuracy > 0.92", "accuracy > 0.999")
    (strict / "digits.yaml").write_text(text)
    process = start_workbench("pipeline", strict / "digits.yaml", "--out", tmp_path)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 1, err
    states = {line.split()[0]: line for line in out.splitlines()[:-1]}
    assert "up to date" in states["calibrate"]
    assert "accuracy > 0.999 does not hold: accuracy is 0.9" in states["evaluate"]
    assert states["release"].split(None, 1)[1] == "stopped     evaluate did not pass its gate"
