"""Kernels: of another language, with parameters; that die as they start; that share a machine."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench.batch import Job, JobError, RunRecord, run_many, run_notebook
from workbench.batch.jobs import CheckedJob, assignments, check_jobs
from workbench.batch.notebook import Notebook
from workbench.batch.run import injected_code

Make = Callable[..., Path]
GIVEN = {"k": 7, "share": 0.5, "on": True, "word": 'a "b" $c', "none": None, "list": [1, "x"]}


def code_in(language: str, kernel: str) -> str | None:
    metadata = {"language_info": {"name": language}}
    notebook = Notebook(Path("a.ipynb"), b"", {"cells": [], "metadata": metadata})
    given = {name: v for name, v in GIVEN.items() if v is not None or language != ".net-csharp"}
    return injected_code(CheckedJob(notebook, {}, given, {}, {}, kernel, "run"), Path("runs/a"))


@pytest.mark.parametrize(
    ("language", "kernel", "lines"),
    [
        ("R", "ir", ["k = 7", "share = 0.5", "on = TRUE", 'word = "a \\"b\\" $c"', "none = NULL",
                     'list = list(1, "x")']),
        ("julia", "julia-1.10", ["k = 7", "share = 0.5", "on = true", "none = nothing",
                                 'list = [1, "x"]']),
        ("scala", "scala", ["val k = 7", "val share = 0.5", "val on = true", "val none = None",
                            'val list = Seq(1, "x")']),
        ("matlab", "matlab", ["k = 7;", "share = 0.5;", "on = true;", "none = NaN;",
                              'list = {1, "x"};']),
        (".net-csharp", ".net-csharp", ["var k = 7;", "var share = 0.5;", "var on = true;",
                                        'var list = new [] { 1, "x" };']),
        (".net-fsharp", ".net-fsharp", ["let k = 7", "let share = 0.5", "let on = true",
                                        'let list = [ 1; "x" ]']),
        (".net-powershell", ".net-powershell", ["$k = 7", "$share = 0.5", "$on = $True",
                                                "$none = $Null"]),
        ("bash", "bash", ["k=7", "share=0.5", "on=true", "word='a \"b\" $c'"]),
    ],
)  # fmt: skip
def test_parameters_are_written_in_the_notebooks_language(
    language: str, kernel: str, lines: list[str]
) -> None:
    code = code_in(language, kernel)
    assert code is not None
    assert set(lines) <= set(code.splitlines()), code


@pytest.fixture
def shell(make_notebook: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook in bash, and a kernel for it."""
    place = tmp_path / "jupyter" / "kernels" / "shell"
    place.mkdir(parents=True)
    script = str(Path(__file__).with_name("shell_kernel.py"))
    argv = [sys.executable, script, "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Shell", "language": "bash"}
    (place / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path = make_notebook("sums", 'echo "$word: $((k + 1))"', parameters="k=1\nword='none'")
    document = nbformat.read(path, as_version=4)
    document.metadata = {"kernelspec": {"name": "shell", "display_name": "", "language": "bash"}}
    nbformat.write(document, path)
    return path


def said(record: RunRecord) -> list[str]:
    document = nbformat.read(record.folder / "sums.ipynb", as_version=4)
    return [output.text for cell in document.cells for output in cell.get("outputs", [])]


@pytest.mark.kernel
def test_a_notebook_in_another_language_runs_with_its_parameters(
    shell: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"k": 7, "word": "it's $k"}
    default, chosen = run_many([Job(shell), Job(shell, given)], n_jobs=2)
    assert (default.status, default.kernel, said(default)) == ("succeeded", "shell", ["none: 2\n"])
    assert (chosen.status, chosen.given, said(chosen)) == ("succeeded", given, ["it's $k: 8\n"])
    assert "sums.ipynb: k is set unchecked: a parameter of bash" in caplog.messages
    document = nbformat.read(chosen.folder / "sums.ipynb", as_version=4)
    assert document.cells[2].source.splitlines()[0] == "# Parameters"
    executed = chosen.folder / "sums.ipynb"  # whose injected cell nobody can read
    jobs = [Job(executed), Job(executed, {"k": 9})]
    assert [(r.given, said(r)) for r in run_many(jobs, n_jobs=2)] == [
        ({}, ["none: 2\n"]),
        ({"k": 9}, ["none: 10\n"]),
    ]
    assert any("what an earlier run has set is not kept" in said for said in caplog.messages)
    with pytest.raises(JobError, match="'password' is a secret, which only a Python kernel"):
        run_notebook(shell, {"password": "x"})


def test_what_papermill_cannot_set_is_refused(shell: Path) -> None:
    with pytest.raises(JobError, match=r"cannot set these values in \.net-csharp: Option type"):
        assignments(".net-csharp", ".net-csharp", {"none": None})
    spec = Path("jupyter/kernels/shell/kernel.json")
    spec.write_text(spec.read_text().replace("bash", "cobol"))
    document = nbformat.read(shell, as_version=4)
    document.metadata.kernelspec.language = "cobol"
    nbformat.write(document, shell)
    assert check_jobs([Job(shell)])[0].kernel == "shell"
    with pytest.raises(JobError, match="cannot set these values in cobol: No parameter translator"):
        check_jobs([Job(shell, {"k": 1})])


@pytest.mark.kernel
def test_a_kernel_that_dies_as_it_starts_is_started_again(
    shell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL_KERNEL_DIES_ONCE", str(Path("died").absolute()))
    record = run_notebook(shell)
    assert (record.status, said(record)) == ("succeeded", ["none: 2\n"])
    log = (record.folder / "log.txt").read_text()
    assert "start 1 of at most 3: the kernel ended itself with exit code 1 as it started" in log
    monkeypatch.setenv("SHELL_KERNEL_DIES_ONCE", "/nowhere/died")  # it always fails to note that
    record = run_notebook(shell)
    assert record.error is not None
    assert (record.status, record.error.cause, record.error.cell) == ("killed", "system", None)
    assert "as it started" in record.error.message


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has sockets without files")
def test_no_other_process_can_take_a_kernels_sockets(make_notebook: Make) -> None:
    source = (
        "import json, ipykernel\nfrom workbench.batch import record\n"
        "with open(ipykernel.get_connection_file()) as file:\n    info = json.load(file)\n"
        "record('transport', info['transport'])\nrecord('ip', info['ip'])"
    )
    path = make_notebook("a", source)
    records = run_many([Job(path), Job(path)], n_jobs=2)
    found: list[Any] = [json.loads((r.folder / "results.json").read_text()) for r in records]
    assert [results["transport"] for results in found] == ["ipc", "ipc"]
    assert found[0]["ip"] != found[1]["ip"]
    assert all(results["ip"].startswith("@workbench-") for results in found)
