"""What notebooks do, and how their runs end: the cases of papermill's and nbclient's own tests, and
of public notebooks that were never written for a batch run, each as a small notebook.

Where a run ends otherwise than by papermill, the case says why.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from batch_helpers import command

from workbench.batch import Job, JobError, RunRecord, run_many

pytestmark = pytest.mark.kernel
CODE, TEXT = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
PARAMETERS = {"tags": ["parameters"]}
INJECTED = {"tags": ["injected-parameters"]}
FORM = 'k = 1  #@param {type:"integer"}'


@dataclass
class Case:
    """A notebook, and what its record has to say."""

    cells: list[Any]
    given: dict[str, Any] = field(default_factory=dict)
    status: str = "succeeded"
    error: str | None = None
    cell: int | None = None
    note: str | None = None
    shown: str | None = None  # in the last cell that shows anything
    parameters: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def stale(cell: Any) -> Any:
    """A cell that failed when it ran before."""
    cell.outputs = [nbformat.v4.new_output("error", ename="Old", evalue="old", traceback=["old"])]
    return cell


MARKER = {"tags": ["papermill-error-cell-tag"]}
CASES = {
    "hello": Case([CODE("print('hello')")], shown="hello"),
    "unicode": Case([CODE("print('☃ ñ 東京')")], shown="☃ ñ 東京"),
    "nothing to run": Case([TEXT("# only words"), CODE("")]),
    "await": Case([CODE("import asyncio\nawait asyncio.sleep(0)\n'done'")], shown="'done'"),
    "clear_output": Case(
        [CODE("from IPython.display import clear_output\nprint(1)\nclear_output()\nprint(2)")],
        shown="2",
    ),
    "update_display": Case(
        [
            CODE("from IPython.display import display\nshown = display('old', display_id=True)"),
            CODE("shown.update('new')"),
        ],
        shown="'new'",
    ),
    "raises-exception": Case(
        [CODE("1 / 0", metadata={"tags": ["raises-exception"]}), CODE("'on'")],
        shown="'on'",  # papermill fails, though every cell ran as was meant
    ),
    "skip-execution": Case(
        [CODE("x = 1"), CODE("1 / 0", metadata={"tags": ["skip-execution"]}), CODE("x")], shown="1"
    ),
    "an exception": Case(
        [TEXT("# t"), CODE("1 / 0"), CODE("2")], status="failed", error="ZeroDivisionError", cell=1
    ),
    "a syntax error": Case([CODE("x = = 1")], status="failed", error="SyntaxError", cell=0),
    "KeyboardInterrupt": Case(
        [CODE("raise KeyboardInterrupt")], status="failed", error="KeyboardInterrupt", cell=0
    ),
    "a magic that is none": Case(
        [CODE("%no_such_magic")], status="failed", error="UsageError", cell=0
    ),
    "input()": Case([CODE("input()")], status="failed", error="StdinNotImplementedError", cell=0),
    "sys.exit()": Case(
        [CODE("import sys"), CODE("sys.exit()"), CODE("1"), CODE("2")],
        note="ended early in cells[1]: 2 cells did not run",  # papermill says nothing of it
    ),
    "sys.exit(0)": Case(
        [CODE("import sys\nsys.exit(0)"), CODE("1")],
        note="ended early in cells[0]: 1 cell did not run",
    ),
    "sys.exit(3)": Case(
        [CODE("import sys\nsys.exit(3)")], status="failed", error="SystemExit", cell=0
    ),
    "failed before": Case(
        [
            TEXT("An Exception was encountered", metadata=MARKER),
            stale(CODE("'fine now'")),
            TEXT("here and stopped", metadata=MARKER),
            CODE("1 / 0"),
        ],
        status="failed",
        error="ZeroDivisionError",  # papermill's own marks are no cells of the notebook's
        cell=3,
    ),
    "parameters": Case(
        [CODE("a: int = 1", metadata=PARAMETERS), CODE("a")],
        {"a": 2},
        shown="2",
        parameters={"a": 2},
    ),
    "nested parameters": Case(
        [CODE("a: dict = {}\nb: tuple = ()", metadata=PARAMETERS), CODE("a, b")],
        {"a": {"x": [1, {"y": None}]}, "b": (1, "z")},
        shown="({'x': [1, {'y': None}]}, (1, 'z'))",
    ),
    "injected before": Case(
        [
            CODE("a: int = 1\nb: int = 1", metadata=PARAMETERS),
            CODE("a = 5", metadata=INJECTED),
            CODE("a, b"),
        ],
        shown="(5, 1)",
        parameters={"a": 5, "b": 1},  # with papermill's record: a is 1
    ),
    "injected before, and one set now": Case(
        [
            CODE("a: int = 1\nb: int = 1", metadata=PARAMETERS),
            CODE("a = 5", metadata=INJECTED),
            CODE("a, b"),
        ],
        {"b": 2},
        shown="(5, 2)",  # papermill drops what an earlier run had set
        parameters={"a": 5, "b": 2},
    ),
    "no cell for parameters": Case(
        [CODE("try:\n    k\nexcept NameError:\n    k = 1"), CODE("k")], {"k": 7}, shown="7"
    ),
    "a form of Colab's": Case([TEXT("# t"), CODE(FORM), CODE("k")], {"k": 3}, shown="3"),
    "any code among the parameters": Case(
        [
            CODE(
                "%matplotlib inline\nimport os\nfrom typing import List\nDEFAULT_SEED = 51\n"
                "SEED = DEFAULT_SEED\nwhere = os.path.join('a', 'b')\nhour = 60*60\n"
                "x: int = None\nsizes: List[int] = [1]\nfor i in range(2): pass",
                metadata=PARAMETERS,
            ),
            CODE("SEED, where, hour, x, sizes"),
        ],
        {"x": 3},
        shown=f"(51, '{Path('a', 'b')}', 3600, 3, [1])",
        parameters={"DEFAULT_SEED": 51, "x": 3, "sizes": [1]},
    ),
    "its own folder": Case(
        [CODE("from neighbour import word\nopen('data.csv').read() + word")], shown="'a,b!'"
    ),
    "a file in its own folder": Case(
        [
            CODE(
                "from workbench import batch\nopen('left.txt', 'w').write('1')\n"
                "batch.output('left.txt')"
            )
        ]
    ),
    "no kernelspec": Case([CODE("1 + 1")], metadata={}, shown="2"),
    "old format": Case([CODE("3 + 1")], shown="4"),
    "UTF-16": Case([CODE("'é'")], shown="'é'"),
    "a byte order mark": Case([CODE("'é'")], shown="'é'"),
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecord]:
    """All of them, run together in a folder."""
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "data.csv").write_text("a,b")
    (folder / "neighbour.py").write_text("word = '!'")
    jobs = []
    for name, case in CASES.items():
        document = nbformat.v4.new_notebook(cells=case.cells, metadata=case.metadata)
        path = folder / f"{name.replace('/', ' ')}.ipynb"
        text = nbformat.writes(document)
        if name == "old format":
            cell = {"cell_type": "code", "language": "python", "input": "3 + 1", "outputs": []}
            text = json.dumps(
                {
                    "nbformat": 3,
                    "nbformat_minor": 0,
                    "metadata": {},
                    "worksheets": [{"cells": [cell]}],
                }
            )
        encoding = {"UTF-16": "utf-16", "a byte order mark": "utf-8-sig"}.get(name, "utf-8")
        path.write_text(text, encoding=encoding)
        jobs.append(Job(path, case.given))
    found = run_many(jobs, out=folder / "runs", n_jobs=2, timeout=200)
    return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_the_record_says_how_it_ended(records: dict[str, RunRecord], name: str) -> None:
    case, record = CASES[name], records[name]
    assert (record.status, record.note) == (case.status, case.note), record.error
    assert (record.error and record.error.type) == case.error
    if record.error:
        assert record.error.cell == case.cell
        assert record.error.cause == "code"
    if case.parameters is not None:
        assert record.parameters == case.parameters
    document = nbformat.read(record.folder / Path(record.notebook).name, as_version=4)
    nbformat.validate(document)
    assert RunRecord.load(record.folder).model_dump_json() == record.model_dump_json()
    if case.shown is not None:
        outputs = [output for cell in document.cells for output in cell.get("outputs", [])]
        last = outputs[-1]
        assert last.get("text", last.get("data", {}).get("text/plain", "")).strip() == case.shown
    assert (record.folder / Path(record.notebook).with_suffix(".html").name).is_file()


def test_what_only_the_notebook_knows_is_recorded_as_code(records: dict[str, RunRecord]) -> None:
    assert records["any code among the parameters"].computed == {
        "SEED": "DEFAULT_SEED",
        "where": "os.path.join('a', 'b')",
        "hour": "60 * 60",
    }


def test_a_registered_file_is_in_the_runs_folder(records: dict[str, RunRecord]) -> None:
    record = records["a file in its own folder"]
    (file,) = [file for file in record.outputs if file.name]
    assert (file.name, file.path, file.size) == ("left.txt", "left.txt", 1)
    assert (record.folder / "left.txt").read_text() == "1"


def test_cells_that_did_not_run_are_pending(records: dict[str, RunRecord]) -> None:
    record = records["sys.exit()"]
    document = nbformat.read(record.folder / "sys.exit().ipynb", as_version=4)
    states = [cell.metadata.papermill.status for cell in document.cells]
    assert states[2:] == ["pending", "pending"]


def test_what_cannot_be_checked_is_said(
    make_notebook: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    from workbench.batch.jobs import check_jobs

    plain = make_notebook("plain", "1")
    typed = make_notebook("typed", "1", parameters="k: int = 1\ntwice = 2 * k\no: os.PathLike = ''")
    with caplog.at_level(logging.WARNING, "workbench.batch"):
        check_jobs([Job(plain, {"z": 1}), Job(typed, {"k": 2, "o": "x"})])
    assert caplog.messages == [
        "plain.ipynb: z is not declared in a cell tagged 'parameters': it is set unchecked",
        "typed.ipynb: o is os.PathLike, which cannot be checked here",
        "typed.ipynb: twice = 2 * k is computed before k is set, and keeps its value",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not JSON", "this is not a notebook: it is not JSON"),
        (b"", "this is not a notebook: it is not JSON"),
        (b"[]", "it has no cells"),
        (b'{"cells": [{"cell_type": "code"}]}', "cells[0] is no cell"),
        (b'{"cells": [3]}', "cells[0] is no cell"),
        (b'{"nbformat": 9, "cells": []}', "cannot be read as format 4"),
        (b"[" * 100_000, "this is not a notebook"),
        (b"\xff\xfe\x00", "this is not a notebook"),
    ],
)
def test_what_is_no_notebook_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-dash.ipynb").write_bytes(content)
    code, out, err = command("run", "--", "-dash.ipynb")
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def spec(folder: Path, name: str, language: str) -> None:
    """Install a kernel that is ours by another name."""
    import sys

    place = folder / "kernels" / name
    place.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    content = {"argv": argv, "display_name": name, "language": language}
    (place / "kernel.json").write_text(json.dumps(content))


def test_the_notebooks_own_kernel_runs_it_or_nothing(
    make_notebook: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    spec(tmp_path / "jupyter", "mine", "python")
    path = make_notebook("a", "import sys\n1 + 1")
    document = nbformat.read(path, as_version=4)
    document.metadata = {"kernelspec": {"name": "mine", "display_name": "x", "language": "python"}}
    nbformat.write(document, path)
    (record,) = run_many([Job(path)])
    assert (record.status, record.kernel) == ("succeeded", "mine")
    for name, language, said in (
        ("ir", "R", r"the kernel 'ir' is not installed; there are .*mine \(python\)"),
        ("", "julia", "no kernel for julia is installed"),
        ("gone", "python", "'gone' is not installed; .*; -k python3 runs it"),
    ):
        document.metadata = {"language_info": {"name": language}}
        if name:
            document.metadata["kernelspec"] = {"name": name, "display_name": name}
        nbformat.write(document, path)
        with pytest.raises(JobError, match=said):
            run_many([Job(path)])
    assert run_many([Job(path, kernel="python3")])[0].status == "succeeded"
