"""Runs with real kernels: what a run leaves, and that its record is true when it goes wrong."""

import html.parser
import json
import os
import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import psutil
import pytest
from batch_helpers import STARTED, survivors

from workbench.batch import Job, JobError, RunRecord, read_runs, run_many, run_notebook

Make = Callable[..., Path]


def error_outputs(record: RunRecord, cell: int) -> list[str]:
    document = nbformat.read(record.folder / record.notebook, as_version=4)
    assert document.metadata.papermill.exception is True
    assert document.cells[cell].metadata.papermill.status == "failed"
    assert all(c.metadata.papermill.status == "pending" for c in document.cells[cell + 1 :])
    return [o.ename for o in document.cells[cell].outputs if o.output_type == "error"]


class Addresses(html.parser.HTMLParser):
    """Collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = (
            dict(attrs).get({"script": "src", "img": "src", "link": "href"}.get(tag, "")) or ""
        )
        if not address.startswith("data:"):
            self.loads += [address] * bool(address)


def test_a_run_leaves_everything_and_names_no_absolute_path(
    make_notebook: Make, tmp_path: Path
) -> None:
    Path("data").mkdir()
    Path("data/file.txt").write_text("seven")
    path = make_notebook(
        "odd name {x}",
        "import pathlib, pandas as pd\nfrom workbench.batch import record",
        "record('read', pathlib.Path(file).read_text())\nrecord('types', repr((n, shape, word)))",
        "record('table', pd.DataFrame({'a': [1.5]}))\nrecord('loss', float('nan'))",
        "import sys\nprint('to the notebook')\nprint('warned', file=sys.stderr)",
        parameters="n: int = 1\nshape: tuple[int, ...] = ()\nword: str | None = None\nfile = ''",
    )
    given = {"file": "data/file.txt", "shape": (3, 4), "word": 'a="b"\n\\'}
    record = run_notebook(path, given)

    assert (record.status, record.error) == ("succeeded", None)
    assert record.folder == Path("runs") / record.id
    assert record.parameters == {"n": 1, **given}
    assert record.given == given
    assert record.notebook == "odd name {x}.ipynb"
    assert json.loads((record.folder / "results.json").read_text()) == {
        "read": "seven",
        "types": repr((1, (3, 4), given["word"])),
        "table": {"columns": ["a"], "data": [[1.5]]},
        "loss": "nan",
    }
    names = [
        "config.yaml",
        "log.txt",
        "odd name {x}.html",
        "odd name {x}.ipynb",
        "results.json",
        "run.json",
    ]
    assert record.files == names
    assert sorted(p.name for p in record.folder.iterdir()) == names
    assert record.peak_memory_bytes is not None
    assert 50e6 < record.peak_memory_bytes < 2e9
    assert record.packages["papermill"]
    assert record.ended is not None
    assert record.started < record.ended

    saved = (record.folder / "run.json").read_text()
    document = nbformat.read(record.folder / names[3], as_version=4)
    for text in (saved, json.dumps(document.metadata)):
        assert str(tmp_path) not in text
    assert RunRecord.load(record.folder).status == "succeeded"
    assert [o.name for o in document.cells[6].outputs] == ["stdout", "stderr"]

    page = (record.folder / names[2]).read_text()
    addresses = Addresses()
    addresses.feed(page)
    assert addresses.loads == []
    assert "loss = nan" in page
    assert not survivors([record.id])


def test_an_exception_is_recorded_with_its_cell(make_notebook: Make) -> None:
    path = make_notebook(
        "fails",
        "from workbench.batch import record\nrecord('before', n)",
        "def broken():\n    raise ValueError('no such thing')\n\nbroken()",
        "'never'",
        parameters="n: int = 1",
    )
    record = run_notebook(path, {"n": 2})
    assert record.status == "failed"
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("ValueError", "no such thing")
    assert record.error.cell == 3  # of the notebook as it was given, without the injected cell
    assert record.error.cell_source is not None
    assert record.error.cell_source.startswith("def broken()")
    assert "in broken()" in record.error.traceback
    assert "\x1b" not in record.error.traceback
    assert error_outputs(record, 4) == ["ValueError"]
    assert json.loads((record.folder / "results.json").read_text()) == {"before": 2}
    assert "no such thing" in (record.folder / "fails.html").read_text()


def test_a_killed_kernel_a_slow_cell_and_input_are_recorded(make_notebook: Make) -> None:
    kill = make_notebook(
        "kill", "print('so far')\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "2"
    )
    slow = make_notebook("slow", "import time; time.sleep(600)", "3")
    ask = make_notebook("ask", "input('your name?')")
    killed, asked = run_many([Job(kill), Job(ask)], n_jobs=2)
    timed_out = run_notebook(slow, cell_timeout=2)

    assert killed.error is not None
    assert killed.error.cause == "signal"
    assert (killed.status, killed.error.type, killed.error.cell) == ("killed", "DeadKernelError", 1)
    assert error_outputs(killed, 1) == ["DeadKernelError"]
    assert "the kernel was ended by SIGKILL" in (killed.folder / "kill.html").read_text()

    assert timed_out.error is not None
    assert (timed_out.status, timed_out.error.type) == ("timed-out", "CellTimeoutError")
    assert (timed_out.error.cell, timed_out.error.message) == (1, "the cell took longer than 2 s")
    assert error_outputs(timed_out, 1)[-1] == "CellTimeoutError"

    assert asked.error is not None
    assert (asked.status, asked.error.type, asked.error.cell) == (
        "failed",
        "StdinNotImplementedError",
        1,
    )
    assert not survivors([killed.id, timed_out.id, asked.id])


class LateOnceStarted:
    """A clock that is hours ahead as soon as a run has left its file ``started``."""

    @staticmethod
    def monotonic() -> float:
        return time.monotonic() + 10_000 * any(Path("runs").glob("*/started"))


def test_a_whole_run_has_a_deadline_and_leaves_no_children(
    make_notebook: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.batch.supervisor.time", LateOnceStarted)
    seconds = f"1234.{os.getpid()}"  # by which nobody else's process is called
    hidden = f"import subprocess\nsubprocess.Popen(['env', '-i', 'sleep', '{seconds}'])"
    path = make_notebook(
        "sleeps",
        hidden,
        "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)",
        f"print('going', flush=True)\n{STARTED}\nwhile True: time.sleep(0.1)",
    )
    record = run_notebook(path, timeout=1000)
    assert record.error is not None
    assert (record.status, record.error.type, record.error.cell) == ("timed-out", "RunTimeout", 3)
    assert record.error.message == "the run took longer than 1000 s"
    assert error_outputs(record, 3) == ["RunTimeout"]
    assert "going" in (record.folder / "sleeps.html").read_text()
    assert not survivors([record.id])
    assert ["sleep", seconds] not in [p.info["cmdline"] for p in psutil.process_iter(["cmdline"])]


def test_the_record_says_while_it_runs_that_somebody_is_there(
    make_notebook: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.batch.supervisor.BEAT_SECONDS", 0.1)
    seen = (
        "import json, os, pathlib, time\nfrom workbench.batch import record\n"
        "path = pathlib.Path(os.environ['WORKBENCH_RUN_FOLDER'], 'run.json')\n"
        "def beat():\n    return json.loads(path.read_text())['heartbeat']\n"
        "first, deadline = beat(), time.monotonic() + 60\n"
        "while beat() == first and time.monotonic() < deadline: time.sleep(0.1)\n"
        "record('renewed', beat() > first)"
    )
    record = run_notebook(make_notebook("beats", seen))
    assert json.loads((record.folder / "results.json").read_text()) == {"renewed": True}


def test_children_of_a_run_that_succeeded_are_ended(make_notebook: Make) -> None:
    path = make_notebook("leaves", "import subprocess\nsubprocess.Popen(['sleep', '1000'])")
    record = run_notebook(path)
    assert record.status == "succeeded"
    assert not survivors([record.id])


def test_eight_runs_at_once_keep_apart(make_notebook: Make) -> None:
    path = make_notebook(
        "many",
        "import os, pathlib\nfrom workbench.batch import record\n"
        "pathlib.Path('mine.txt').write_text(str(k))\nrecord('k', k)\n"
        "record('id', os.environ['WORKBENCH_RUN_ID'])\nrecord('folder', pathlib.Path.cwd().name)",
        parameters="k: int = 0",
    )
    records = run_many([Job(path, {"k": k}) for k in range(8)], n_jobs=4)
    assert [r.status for r in records] == ["succeeded"] * 8
    assert len({r.id for r in records}) == 8
    for k, record in enumerate(records):
        results = json.loads((record.folder / "results.json").read_text())
        assert results == {"k": k, "id": record.id, "folder": record.id}
        assert (record.folder / "mine.txt").read_text() == str(k)


def test_nothing_starts_when_a_job_is_wrong(make_notebook: Make) -> None:
    good = make_notebook("good", "1", parameters="epochs: int = 1")
    bad = make_notebook("bad", "1", parameters="a: int = 1")
    Path("text.ipynb").write_text("not JSON")
    jobs = [
        Job(good, {"epcohs": 1, "epochs": "one"}),
        Job(bad, {"a": "x"}),
        Job("text.ipynb"),
        Job("none.ipynb"),
    ]
    with pytest.raises(JobError) as caught:
        run_many(jobs)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "good.ipynb",
        "good.ipynb",
        "bad.ipynb",
        "text.ipynb",
        "none.ipynb",
    ]
    assert not Path("runs").exists()


@pytest.mark.parametrize("out", ["file/runs", "/proc/runs"])
def test_an_out_folder_that_cannot_be_made_is_an_error(make_notebook: Make, out: str) -> None:
    path = make_notebook("good", "1")
    Path("file").touch()
    with pytest.raises(JobError, match="runs cannot be written here"):
        run_notebook(path, out=out)


def test_a_full_disk_keeps_the_earlier_record(make_notebook: Make) -> None:
    record = run_notebook(make_notebook("good", "1"))
    before = (record.folder / "run.json").read_bytes()
    record.status = "failed"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # a write past 100 bytes fails
    try:
        with pytest.raises(OSError, match="File too large"):
            record.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (record.folder / "run.json").read_bytes() == before
    assert sorted(p.name for p in record.folder.iterdir()) == record.files


def test_a_running_record_whose_parent_is_gone_is_shown_as_killed(make_notebook: Make) -> None:
    record = run_notebook(make_notebook("good", "1"))
    record.status = "running"
    record.pid = os.getpid()
    record.save()
    assert RunRecord.load(record.folder).status == "running"
    record.started = datetime.now(UTC) - timedelta(days=900)  # the number now names a younger one
    record.save()
    shown = RunRecord.load(record.folder)
    assert shown.error is not None
    assert (shown.status, shown.error.type) == ("killed", "ParentGone")
    (Path("runs") / "broken").mkdir()
    (Path("runs") / "broken" / "run.json").write_text("{")
    assert [r.id for r in read_runs()] == [record.id]


def test_a_notebook_runs_in_the_folder_that_is_asked_for(make_notebook: Make) -> None:
    Path("nb").mkdir()
    Path("elsewhere").mkdir()
    where = "import os\nfrom workbench.batch import record\nrecord('at', os.getcwd())"
    path = make_notebook("nb/where", where, parameters="k: int = 1")
    at = {}
    for cwd in (None, "run", "notebook", "elsewhere"):
        record = run_notebook(path, cwd=cwd)
        results = json.loads((record.folder / "results.json").read_text())
        at[cwd] = Path(results["at"]) if "at" in results else None
        if cwd in (None, "run"):  # ours declares its parameters with types
            assert at[cwd] == record.folder.absolute()
    assert at["notebook"] == Path("nb").absolute()
    assert at["elsewhere"] == Path("elsewhere").absolute()
    with pytest.raises(JobError, match="there is no folder nowhere to run in"):
        run_notebook(path, cwd="nowhere")
